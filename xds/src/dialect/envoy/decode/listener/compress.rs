//! Smaller answers: `compressor` as our plugins that do the same. It knows no other filter.

use serde_json::{Map, Value, json};

use super::super::piece::{Deed, Filter};
use super::super::read::{Fault, Fields, Read, typed};

/// What Envoy compresses where nothing is said.
const COMPRESSED: [&str; 8] = [
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];
/// The shortest body that Envoy compresses where nothing is said.
const SHORTEST: u32 = 30;
/// The plugins.
const PLUGINS: [&str; 3] = ["gzip", "brotli", "zstd"];
/// The place of the first compressor of a listener.
const FIRST: usize = 99;
/// Where a plugin says its place among others.
const PLACE: &str = "preference";

/// Reads the filter.
pub(super) fn filter(fields: &mut Fields<'_>) -> Read<Deed> {
    fields.refuse("request_direction_config", "compressing requests is not supported")?;
    fields.refuse("choose_first", "is not supported: of what clients like equally the first counts that they name")?;
    let (plugin, mut config) = fields.required("compressor_library", |library| {
        library.ignore(&["name"]);
        let config = library.take("typed_config").ok_or_else(|| Fault::new("typed_config", "is missing"))?;
        typed(config, tuned).map_err(|fault| fault.inside("typed_config"))
    })?;
    let (mut shortest, mut types) = (SHORTEST, COMPRESSED.map(str::to_owned).to_vec());
    fields.message("response_direction_config", |direction| {
        direction.ignore(&["status_header_enabled"]);
        direction.refuse("disable_on_etag_header", "is not supported: an ETag becomes a weak one")?;
        direction.refuse("remove_accept_encoding_header", "is not supported: upstreams are told what clients take")?;
        direction.refuse("uncompressible_response_codes", "is not supported")?;
        direction.message("common_config", |common| {
            shortest = common.small("min_content_length")?.unwrap_or(shortest);
            let said = common.texts("content_type")?;
            if !said.is_empty() {
                types = said.into_iter().map(str::to_owned).collect();
            }
            common.message("enabled", |flag| {
                flag.ignore(&["runtime_key"]);
                match flag.flag("default_value")? {
                    Some(false) => Err(Fault::new("default_value", "a filter that is off is not supported: leave it out")),
                    _ => Ok(()),
                }
            })
        })?;
        Ok(())
    })?;
    config.extend([
        ("types".to_owned(), json!(types)),
        ("min_length".to_owned(), json!(shortest.max(1))),
        ("vary".to_owned(), json!(true)),
        ("client_order".to_owned(), json!(true)),
        (PLACE.to_owned(), json!(FIRST)),
    ]);
    Ok(vec![(plugin, config.into())])
}

/// Reads how hard a library tries. How much memory it takes for that is our affair.
fn tuned(kind: &str, library: &mut Fields<'_>) -> Read<(&'static str, Map<String, Value>)> {
    library.ignore(&["chunk_size"]);
    let (plugin, level) = match kind {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => {
            library.ignore(&["memory_level", "window_bits"]);
            ("gzip", Some(library.choice("compression_level", &LEVELS)?.unwrap_or(6)))
        }
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
            let window = bounded(library, "window_bits", 10, 24)?;
            let quality = bounded(library, "quality", 0, 11)?;
            let mut config = Map::new();
            config.insert("comp_level".to_owned(), json!(quality.unwrap_or(3)));
            config.insert("lgwin".to_owned(), json!(window.unwrap_or(18)));
            return Ok(("brotli", config));
        }
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => {
            library.refuse("enable_checksum", "is not supported")?;
            ("zstd", bounded(library, "compression_level", 1, 19)?)
        }
        other => return Err(Fault::new("@type", format!("{other} is not supported"))),
    };
    Ok((plugin, level.map(|level| ("comp_level".to_owned(), json!(level))).into_iter().collect()))
}

/// Levels of gzip, by their names.
const LEVELS: [(&str, u64, u32); 12] = [
    ("DEFAULT_COMPRESSION", 0, 6),
    ("BEST_SPEED", 1, 1),
    ("COMPRESSION_LEVEL_1", 1, 1),
    ("COMPRESSION_LEVEL_2", 2, 2),
    ("COMPRESSION_LEVEL_3", 3, 3),
    ("COMPRESSION_LEVEL_4", 4, 4),
    ("COMPRESSION_LEVEL_5", 5, 5),
    ("COMPRESSION_LEVEL_6", 6, 6),
    ("COMPRESSION_LEVEL_7", 7, 7),
    ("COMPRESSION_LEVEL_8", 8, 8),
    ("COMPRESSION_LEVEL_9", 9, 9),
    ("BEST_COMPRESSION", 9, 9),
];

fn bounded(fields: &mut Fields<'_>, name: &str, least: u32, most: u32) -> Read<Option<u32>> {
    match fields.small(name)? {
        Some(number) if !(least..=most).contains(&number) => Err(Fault::new(name, format!("expected {least} to {most}"))),
        number => Ok(number),
    }
}

/// Of compressors that a client likes equally, and does not tell apart, the first of the listener counts.
pub(super) fn in_turn(filters: &mut [Filter]) {
    let deeds = filters.iter_mut().filter_map(|filter| filter.does.as_mut()).flatten();
    let places = deeds.filter(|(name, config)| PLUGINS.contains(name) && config[PLACE] == json!(FIRST));
    for (before, (_, config)) in places.enumerate() {
        config[PLACE] = json!(FIRST.saturating_sub(before));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use super::super::super::read::message;
    use super::*;

    fn with(library: &str, tuning: Value) -> Value {
        let mut config = tuning;
        config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.compression.{library}"));
        json!({"compressor_library": {"name": "x", "typed_config": config}})
    }

    #[test]
    fn a_library_works_as_hard_as_it_is_told() {
        let level = |value: Value| message(&value, filter).unwrap().remove(0).1["comp_level"].clone();
        let gzip = "gzip.compressor.v3.Gzip";
        assert_eq!(level(with(gzip, json!({"compression_level": "BEST_COMPRESSION"}))), json!(9));
        assert_eq!(level(with(gzip, json!({"compression_level": 3}))), json!(3));
        assert_eq!(level(with("brotli.compressor.v3.Brotli", json!({"quality": 7}))), json!(7));
        assert_eq!(level(with("zstd.compressor.v3.Zstd", json!({"compression_level": 19}))), json!(19));
    }

    #[test]
    fn the_first_of_a_listener_goes_before_the_others() {
        let one = |library: &str| {
            let does = Some(message(&with(library, json!({})), filter).unwrap());
            Filter { name: "f".into(), does, named: Arc::default(), asked: None, disabled: false }
        };
        let mut filters = ["gzip.compressor.v3.Gzip", "brotli.compressor.v3.Brotli", "zstd.compressor.v3.Zstd"].map(one);
        in_turn(&mut filters);
        let told = filters.map(|filter| {
            let config = &filter.does.unwrap()[0].1;
            (config["preference"].clone(), config["client_order"].clone())
        });
        assert_eq!(told, [(json!(99), json!(true)), (json!(98), json!(true)), (json!(97), json!(true))]);
    }

    #[test]
    fn what_would_be_compressed_otherwise_is_refused_by_its_place() {
        let refused = |change: &dyn Fn(&mut Value)| {
            let mut value = with("zstd.compressor.v3.Zstd", json!({}));
            change(&mut value);
            message(&value, filter).unwrap_err().field
        };
        for field in ["disable_on_etag_header", "remove_accept_encoding_header"] {
            let place = format!("response_direction_config.{field}");
            assert_eq!(refused(&|value| value["response_direction_config"] = json!({field: true})), place);
        }
        assert_eq!(refused(&|value| value["choose_first"] = json!(true)), "choose_first");
        let library = "compressor_library.typed_config";
        let told = refused(&|value| value["compressor_library"]["typed_config"]["enable_checksum"] = json!(true));
        assert_eq!(told, format!("{library}.enable_checksum"));
        let told = refused(&|value| value["compressor_library"]["typed_config"]["compression_level"] = json!(20));
        assert_eq!(told, format!("{library}.compression_level"));
    }
}
