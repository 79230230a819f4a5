//! `gzip`, `brotli` and `zstd`: a filter of Envoy's for each way to compress, which stands in the listener; routes switch it on.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::extensions::compression::brotli::compressor::v3::Brotli;
use heddle_proto::envoy::extensions::compression::gzip::compressor::v3::{Gzip, gzip};
use heddle_proto::envoy::extensions::compression::zstd::compressor::v3::Zstd;
use heddle_proto::envoy::extensions::filters::http::compressor::v3 as wire;
use prost::{Message, Name};
use serde_json::Value;

use super::super::route::Draft;
use super::super::wire::any;
use super::{Applied, Config, filter, only, text};
use crate::snapshot::version_of;

/// The shortest body that Envoy compresses, in bytes.
const SHORTEST: u32 = 30;
/// What all three are told, and Envoy does. It always says what an answer varies by, whatever `vary` says.
const COMMON: [&str; 5] = ["types", "min_length", "comp_level", "vary", "http_version"];

pub(super) fn gzip(config: &Config, draft: &mut Draft) -> Applied {
    // Envoy bounds its memory without being told how.
    only(config, &[&COMMON[..], &["buffers"]].concat())?;
    let level = config.get("comp_level").and_then(Value::as_i64).unwrap_or(1);
    let level = i32::try_from(level).ok().and_then(|level| gzip::CompressionLevel::try_from(level).ok()).unwrap_or_default();
    compress(("gzip", &Gzip { compression_level: level.into(), ..Default::default() }), config, draft)
}

pub(super) fn brotli(config: &Config, draft: &mut Draft) -> Applied {
    // The size of a block says how fast it is, not what comes out.
    only(config, &[&COMMON[..], &["lgwin", "lgblock", "mode"]].concat())?;
    if config.get("mode").and_then(Value::as_u64).unwrap_or_default() != 0 {
        return Err("mode: only 0 has a counterpart in Envoy".to_owned());
    }
    let window = number(config, "lgwin").unwrap_or(19);
    let library = Brotli {
        quality: Some(number(config, "comp_level").unwrap_or(6)),
        window_bits: (window > 0).then_some(window),
        ..Default::default()
    };
    compress(("br", &library), config, draft)
}

pub(super) fn zstd(config: &Config, draft: &mut Draft) -> Applied {
    // Envoy's window follows from the level.
    only(config, &[&COMMON[..], &["window_log"]].concat())?;
    let library = Zstd { compression_level: Some(number(config, "comp_level").unwrap_or(3)), ..Default::default() };
    compress(("zstd", &library), config, draft)
}

fn number(config: &Config, field: &str) -> Option<u32> {
    config.get(field).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
}

/// Of several that a client likes equally Envoy takes the one that it names first.
fn compress<M: Message + Name>((coding, library): (&str, &M), config: &Config, draft: &mut Draft) -> Applied {
    let older = match config.get("http_version") {
        Some(Value::Number(version)) => version.as_f64() == Some(1.0),
        _ => text(config, "http_version") == Some("1.0"),
    };
    if older {
        return Err("http_version: Envoy asks for no version before it compresses".to_owned());
    }
    let types = match config.get("types") {
        None => vec!["text/html".to_owned()],
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err("types: Envoy compresses listed types only, not `*`".to_owned()),
    };
    let shortest = config.get("min_length").and_then(Value::as_u64).unwrap_or(20);
    let compressor = wire::Compressor {
        compressor_library: Some(base::TypedExtensionConfig { name: coding.to_owned(), typed_config: any(library) }),
        response_direction_config: Some(wire::compressor::ResponseDirectionConfig {
            common_config: Some(wire::compressor::CommonDirectionConfig {
                min_content_length: Some(u32::try_from(shortest).unwrap_or(u32::MAX).max(SHORTEST)),
                content_type: types,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let name = format!("heddle.compress.{coding}.{}", version_of(&compressor.encode_to_vec()));
    let on = wire::CompressorOverrides { response_direction_config: Some(wire::ResponseDirectionOverrides::default()) };
    let per_route = wire::CompressorPerRoute { r#override: Some(wire::compressor_per_route::Override::Overrides(on)) };
    draft.filters.extend(any(&per_route).map(|config| (name.clone(), config)));
    draft.further.insert(name.clone(), filter(&name, &compressor, true));
    Ok(())
}
