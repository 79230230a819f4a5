//! Tests that every coding passes: what goes in comes out, at once where the source pauses, and nothing is left in a coder for the next body.

#![allow(clippy::unwrap_used)]

use std::io::Read;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::filter;
use super::testing::{all, page, paused, through, until_pause};
use crate::exchange::testing::request;
use crate::http::Body;

/// A plugin, what its coding is called, and how others undo it.
struct Coding {
    plugin: &'static str,
    token: &'static str,
    levels: &'static [u8],
    decoder: fn(&[u8]) -> Box<dyn Read + '_>,
}

const CODINGS: [Coding; 3] = [
    Coding { plugin: "gzip", token: "gzip", levels: &[1, 6, 9], decoder: |bytes| Box::new(flate2::read::GzDecoder::new(bytes)) },
    Coding {
        plugin: "brotli",
        token: "br",
        levels: &[0, 4, 6, 11],
        decoder: |bytes| Box::new(brotli::Decompressor::new(bytes, 4096)),
    },
    Coding {
        plugin: "zstd",
        token: "zstd",
        levels: &[1, 3, 19],
        decoder: |bytes| Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    },
];

impl Coding {
    /// What these bytes hold, and whether they have an end.
    fn decoded(&self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let (mut out, mut room) = (Vec::new(), [0; 4096]);
        let mut decoder = (self.decoder)(bytes);
        loop {
            match decoder.read(&mut room) {
                Ok(0) => return (out, true),
                Ok(more) => out.extend_from_slice(&room[..more]),
                Err(_) => return (out, false),
            }
        }
    }

    fn compressed(&self, config: &Value, body: Body) -> Body {
        let mut x = request("GET", "h", "/", &[("Accept-Encoding", self.token)]);
        let (head, body) = through(&*filter(self.plugin, config), &mut x, page(), body);
        assert_eq!(head.fields.get_str("content-encoding"), Some(self.token));
        body
    }
}

#[test]
fn every_level_gives_what_went_in() {
    let text = "All work and no play makes Jack a dull boy. ".repeat(5000);
    for coding in &CODINGS {
        for level in coding.levels {
            let packed = all(&mut coding.compressed(&json!({ "comp_level": level }), Body::from(Bytes::from(text.clone()))));
            assert!(packed.len() < text.len() / 20, "{} {level}: {}", coding.plugin, packed.len());
            assert_eq!(coding.decoded(&packed), (text.clone().into_bytes(), true), "{} {level}", coding.plugin);
        }
    }
}

#[test]
fn nothing_is_held_back_while_the_source_pauses() {
    for coding in &CODINGS {
        let mut body = coding.compressed(&json!({}), paused(&[b"data: 1\n\n", b"data: 2\n\n"]));
        let (mut bytes, ended) = until_pause(&mut body);
        assert_eq!((coding.decoded(&bytes).0.as_slice(), ended), (&b"data: 1\n\n"[..], false), "{}", coding.plugin);
        bytes.extend(until_pause(&mut body).0);
        assert_eq!(coding.decoded(&bytes).0, b"data: 1\n\ndata: 2\n\n", "{}", coding.plugin);
        bytes.extend(all(&mut body));
        assert_eq!(coding.decoded(&bytes), (b"data: 1\n\ndata: 2\n\n".to_vec(), true), "{}", coding.plugin);
    }
}

#[test]
fn a_coder_that_was_left_in_the_middle_spoils_no_other_body() {
    for coding in &CODINGS {
        for _ in 0..3 {
            let mut left = coding.compressed(&json!({}), paused(&[b"left alone", b"never read"]));
            until_pause(&mut left);
            drop(left);
            let whole = all(&mut coding.compressed(&json!({}), paused(&[b"all of it"])));
            assert_eq!(coding.decoded(&whole), (b"all of it".to_vec(), true), "{}", coding.plugin);
        }
    }
}

#[test]
fn an_empty_stream_is_sound() {
    for coding in &CODINGS {
        let empty = all(&mut coding.compressed(&json!({}), paused(&[])));
        assert_eq!(coding.decoded(&empty), (Vec::new(), true), "{}", coding.plugin);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_pieces_come_out_again(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20_000), 0..12)) {
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        for coding in &CODINGS {
            let packed = all(&mut coding.compressed(&json!({}), paused(&pieces)));
            prop_assert_eq!(coding.decoded(&packed), (pieces.concat(), true), "{}", coding.plugin);
        }
    }
}
