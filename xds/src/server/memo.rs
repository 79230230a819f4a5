//! Responses that were encoded a moment ago: most nodes are told the same, and only the first of them pays for it. It knows no stream.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::protocol::{DeltaResponse, SotwResponse};

/// Responses that are remembered. Few are alive at a time: the parts of a first load, and the last few differences.
const MAX_ENTRIES: usize = 64;
/// Bytes that they may hold together: a first load of 100,000 routes fits.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What was encoded lately, by what it says.
#[derive(Debug, Default)]
pub(super) struct Memo {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<(u128, Bytes)>,
    bytes: usize,
}

impl Memo {
    /// What was encoded under this key, or what `encode` gives.
    pub(super) fn get(&self, key: u128, encode: impl FnOnce() -> Bytes) -> Bytes {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = inner.entries.iter().rev().find(|(other, _)| *other == key) {
            return known.clone();
        }
        let encoded = encode();
        inner.bytes += encoded.len();
        inner.entries.push_back((key, encoded.clone()));
        while inner.entries.len() > MAX_ENTRIES || inner.bytes > MAX_BYTES {
            let Some((_, oldest)) = inner.entries.pop_front() else { break };
            inner.bytes -= oldest.len();
        }
        encoded
    }
}

/// What a response says, apart from version and nonce: names and versions tell the content.
pub(super) fn delta_key(response: &DeltaResponse) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&[0, response.kind as u8]);
    for raw in &response.resources {
        text(&mut hash, &raw.name);
        text(&mut hash, &raw.version);
    }
    hash.update(&u64::MAX.to_le_bytes());
    response.removed.iter().for_each(|name| text(&mut hash, name));
    hash.digest128()
}

/// The same of a whole, whose version is that of all names and versions, and of a part, whose version is that of its own.
pub(super) fn sotw_key(response: &SotwResponse) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&[1, response.kind as u8]);
    text(&mut hash, &response.version);
    hash.digest128()
}

/// With its length, so that no two lists of texts read the same.
fn text(hash: &mut Xxh3, text: &str) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::model::Kind;
    use crate::protocol::RawResource;

    fn response(set: &[(&str, &str)], removed: &[&str], nonce: &str) -> DeltaResponse {
        let raw = |(name, version): &(&str, &str)| RawResource {
            name: (*name).into(),
            version: (*version).into(),
            type_url: "".into(),
            body: Bytes::new(),
        };
        DeltaResponse {
            kind: Kind::Route,
            version: nonce.into(),
            nonce: nonce.into(),
            resources: set.iter().map(raw).collect(),
            removed: removed.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn the_same_content_is_encoded_once() {
        let memo = Memo::default();
        let key = delta_key(&response(&[("a", "1")], &["b"], "1"));
        assert_eq!(key, delta_key(&response(&[("a", "1")], &["b"], "2")), "version and nonce are not part of it");
        for other in [
            response(&[("a", "1"), ("b", "")], &[], "1"),
            response(&[("a", "2")], &["b"], "1"),
            response(&[("a1", "")], &["b"], "1"),
        ] {
            assert_ne!(key, delta_key(&other), "{other:?}");
        }
        assert_eq!(memo.get(key, || "x".into()), "x");
        assert_eq!(memo.get(key, || panic!("it is known")), "x");
    }

    #[test]
    fn it_is_bounded() {
        let memo = Memo::default();
        (0..200).for_each(|n| drop(memo.get(n, || vec![0; 1024 * 1024].into())));
        let inner = memo.inner.lock().unwrap();
        assert!(inner.entries.len() <= MAX_ENTRIES && inner.bytes <= MAX_BYTES);
        assert_eq!(inner.bytes, inner.entries.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }
}
