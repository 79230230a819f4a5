//! `gzip`: a filter of Envoy's for each way to compress, which stands in the listener; routes switch it on.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::extensions::compression::gzip::compressor::v3::{Gzip, gzip};
use heddle_proto::envoy::extensions::filters::http::compressor::v3 as wire;
use prost::Message;
use serde_json::Value;

use super::super::route::Draft;
use super::super::wire::any;
use super::{Applied, Config, filter, only, text};
use crate::snapshot::version_of;

/// The shortest body that Envoy compresses, in bytes.
const SHORTEST: u32 = 30;

pub(super) fn gzip(config: &Config, draft: &mut Draft) -> Applied {
    // Envoy always says what an answer varies by, and bounds its memory without being told how.
    only(config, &["types", "min_length", "comp_level", "buffers", "vary", "http_version"])?;
    let older = match config.get("http_version") {
        Some(Value::Number(version)) => version.as_f64() == Some(1.0),
        _ => text(config, "http_version") == Some("1.0"),
    };
    if older {
        return Err("http_version: Envoy compresses nothing for HTTP/1.0".to_owned());
    }
    let types = match config.get("types") {
        None => vec!["text/html".to_owned()],
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(_) => return Err("types: Envoy compresses listed types only, not `*`".to_owned()),
    };
    let level = config.get("comp_level").and_then(Value::as_i64).unwrap_or(1);
    let level = i32::try_from(level).ok().and_then(|level| gzip::CompressionLevel::try_from(level).ok()).unwrap_or_default();
    let shortest = config.get("min_length").and_then(Value::as_u64).unwrap_or(20);
    let library = Gzip { compression_level: level.into(), ..Default::default() };
    let compressor = wire::Compressor {
        compressor_library: Some(base::TypedExtensionConfig { name: "gzip".to_owned(), typed_config: any(&library) }),
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
    let name = format!("heddle.gzip.{}", version_of(&compressor.encode_to_vec()));
    let on = wire::CompressorOverrides { response_direction_config: Some(wire::ResponseDirectionOverrides::default()) };
    let per_route = wire::CompressorPerRoute { r#override: Some(wire::compressor_per_route::Override::Overrides(on)) };
    draft.filters.extend(any(&per_route).map(|config| (name.clone(), config)));
    draft.further.insert(name.clone(), filter(&name, &compressor, true));
    Ok(())
}
