//! Tests of `gzip`.

#![allow(clippy::unwrap_used)]

use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::compress::testing::{all, page, paused, through, until_pause};
use super::super::testing::{faults, filter};
use crate::exchange::testing::request;
use crate::http::Body;

/// What these bytes hold, and whether they have an end.
fn decoded(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut room) = (Vec::new(), [0; 4096]);
    let mut decoder = flate2::read::GzDecoder::new(bytes);
    loop {
        match decoder.read(&mut room) {
            Ok(0) => return (out, true),
            Ok(more) => out.extend_from_slice(&room[..more]),
            Err(_) => return (out, false),
        }
    }
}

fn compressed(config: &Value, body: Body) -> Body {
    let mut x = request("GET", "h", "/", &[("Accept-Encoding", "gzip")]);
    let (head, body) = through(&*filter("gzip", config), &mut x, page(), body);
    assert_eq!(head.fields.get_str("content-encoding"), Some("gzip"));
    body
}

#[test]
fn every_level_gives_what_went_in() {
    let text = "All work and no play makes Jack a dull boy. ".repeat(5000);
    for level in [1, 6, 9] {
        let packed = all(&mut compressed(&json!({"comp_level": level}), Body::from(Bytes::from(text.clone()))));
        assert!(packed.len() < text.len() / 20, "{level}: {}", packed.len());
        assert_eq!(decoded(&packed), (text.clone().into_bytes(), true), "{level}");
    }
}

#[test]
fn nothing_is_held_back_while_the_source_pauses() {
    let mut body = compressed(&json!({}), paused(&[b"data: 1\n\n", b"data: 2\n\n"]));
    let (mut bytes, ended) = until_pause(&mut body);
    assert_eq!((decoded(&bytes).0.as_slice(), ended), (&b"data: 1\n\n"[..], false));
    bytes.extend(until_pause(&mut body).0);
    assert_eq!(decoded(&bytes).0, b"data: 1\n\ndata: 2\n\n");
    bytes.extend(all(&mut body));
    assert_eq!(decoded(&bytes), (b"data: 1\n\ndata: 2\n\n".to_vec(), true));
}

#[test]
fn a_coder_that_was_left_in_the_middle_spoils_no_other_body() {
    for _ in 0..3 {
        let mut left = compressed(&json!({}), paused(&[b"left alone", b"never read"]));
        until_pause(&mut left);
        drop(left);
        let whole = all(&mut compressed(&json!({}), paused(&[b"all of it"])));
        assert_eq!(decoded(&whole), (b"all of it".to_vec(), true));
    }
}

#[test]
fn an_empty_stream_is_sound() {
    assert_eq!(decoded(&all(&mut compressed(&json!({}), paused(&[])))), (Vec::new(), true));
}

#[test]
fn mistakes_are_refused() {
    for (config, paths) in [
        (json!({"buffers": {"number": 0, "size": 0}}), vec!["buffers.number", "buffers.size"]),
        (json!({"comp_level": 0}), vec!["comp_level"]),
    ] {
        assert_eq!(faults("gzip", &config), paths, "{config}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_pieces_come_out_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20_000), 0..12)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        let packed = all(&mut compressed(&json!({}), paused(&pieces)));
        prop_assert_eq!(decoded(&packed), (pieces.concat(), true));
    }
}
