//! Smaller answers: whatever clients take, both data planes choose the same of the codings that compressors are there for.

use heddle_integration::ads::any;
use heddle_integration::client;
use heddle_integration::nginx::Nginx;
use serde_json::{Value, json};

use super::pair::{Door, Pair, cluster, host};
use super::{GENERATED, SEED};

const CODINGS: [&str; 6] = ["gzip", "br", "zstd", "identity", "*", "deflate"];
const WEIGHTS: [&str; 6] = ["", "", ";q=1", ";q=0.5", ";q=0.2", ";q=0"];
const CHOSEN: [&str; 14] = [
    "",
    "gzip",
    "gzip, br",
    "br, gzip",
    "br",
    "*",
    "gzip, *",
    "*, gzip",
    "gzip;q=0, *",
    "identity, gzip",
    "gzip, identity",
    "br;q=0.8, gzip;q=0.8",
    "zstd, br, gzip",
    "gzip;q=0",
];

fn compressor(library: &str, more: Value) -> (String, Value) {
    let (folder, name) = library.split_once(' ').unwrap();
    let library = any(&format!("envoy.extensions.compression.{folder}.compressor.v3.{name}"), json!({}));
    let mut config = json!({ "compressor_library": { "name": folder, "typed_config": library } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (folder.to_owned(), any("envoy.extensions.filters.http.compressor.v3.Compressor", config))
}

/// What a client takes, made of dice.
fn accepts(dice: &mut fastrand::Rng) -> String {
    let mut codings = CODINGS;
    dice.shuffle(&mut codings);
    let some: Vec<String> =
        codings[..dice.usize(1..5)].iter().map(|coding| format!("{coding}{}", WEIGHTS[dice.usize(..WEIGHTS.len())])).collect();
    some.join(", ")
}

/// The weight that a client gives a coding, in tenths.
fn weight(accepts: &str, coding: &str) -> Option<u32> {
    let member = accepts.split(", ").find(|member| member.split(';').next() == Some(coding))?;
    let weight: f64 = member.split("q=").nth(1).map_or(1.0, |weight| weight.parse().unwrap());
    Some((weight * 10.0) as u32)
}

/// A named difference: what is named beside `*` is not meant by it (RFC 9110 section 12.5.3), whatever Envoy thinks.
fn speaks_for_others(accepts: &str) -> bool {
    let any = weight(accepts, "*").unwrap_or(0);
    ["gzip", "br", "zstd"].iter().any(|coding| weight(accepts, coding).is_some_and(|named| 0 < named && named < any))
}

#[test]
fn the_same_coding_is_chosen_of_those_that_compressors_are_there_for() {
    let text = "All work and no play makes Jack a dull boy. ".repeat(40);
    let server = format!(
        "default_type text/html; location / {{ return 200 '{text}'; }} location /small {{ return 200 'short'; }}
         location /image {{ default_type image/png; return 200 '{text}'; }} location /error {{ return 404 '{text}'; }}"
    );
    let upstream = Nginx::start(&server);
    let (gzip, brotli, zstd) = ("gzip Gzip", "brotli Brotli", "zstd Zstd");
    let door = |libraries: &[(&str, Value)]| Door {
        filters: libraries.iter().map(|(library, more)| compressor(library, more.clone())).collect(),
        hosts: vec![host("all", "*", json!([{ "match": { "prefix": "/" }, "route": { "cluster": "up" } }]))],
    };
    let plain = || json!({});
    let json_too =
        json!({ "response_direction_config": { "common_config": { "content_type": ["image/png"], "min_content_length": 100 } } });
    let doors = [
        door(&[(gzip, plain())]),
        door(&[(gzip, plain()), (brotli, plain())]),
        door(&[(brotli, plain()), (zstd, plain()), (gzip, plain())]),
        door(&[(gzip, json_too), (brotli, plain())]),
    ];
    let pair = Pair::start(&doors, &[cluster("up", &[(upstream.address, 1)], json!({}))]);
    let mut dice = fastrand::Rng::with_seed(SEED);
    let generated: Vec<String> = std::iter::repeat_with(|| accepts(&mut dice)).take(GENERATED / 3).collect();
    let (mut differing, mut codings) = (Vec::new(), std::collections::BTreeMap::new());
    for accepts in CHOSEN.map(str::to_owned).into_iter().chain(generated) {
        for (number, path) in (0..doors.len()).flat_map(|door| ["/", "/small", "/image", "/error"].map(|path| (door, path))) {
            let told = pair.both(number).map(|address| {
                let answer = client::send(address, "GET", path, &[("Accept-Encoding", &accepts)], b"").expect("an answer");
                (answer.status, answer.field("content-encoding").map(str::to_owned), answer.field("vary").is_some())
            });
            *codings.entry(told[1].1.clone()).or_insert(0) += 1;
            if told[0] != told[1] && !speaks_for_others(&accepts) {
                differing.push(format!("{path} of {number}, {accepts:?}: {:?} instead of {:?}", told[0], told[1]));
            }
        }
    }
    assert!(differing.is_empty(), "{} answers differ:\n{}", differing.len(), differing.join("\n"));
    let met = |coding: &str| codings.get(&Some(coding.to_owned())).is_some_and(|count| *count > 20);
    assert!(met("gzip") && met("br") && met("zstd") && codings[&None] > 20, "{codings:?}");
    for address in pair.both(1) {
        let url = format!("http://{address}/");
        assert_eq!(
            client::curl(&["-s", "-H", "Accept-Encoding: gzip", "--compressed", &url]),
            text,
            "what was compressed is whole"
        );
    }
}
