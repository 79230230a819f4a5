//! What is stored as the bytes of a file, and back; what is damaged is nothing. It opens no files.
//!
//! `HDLCACH1`, then xxh3-64 of all behind it, then the key, a kind, and what that kind holds; numbers are little-endian.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::super::entry::{Entry, Stored};
use super::super::key::Key;
use super::super::rules::Terms;
use crate::http::{FieldName, Fields};

const MAGIC: &[u8; 8] = b"HDLCACH1";
/// Before what is summed up.
const HEAD: usize = 16;
const ANSWER: u8 = 1;
const VARIES: u8 = 2;

/// The file of what is stored; `None` for what is not worth one.
pub(super) fn encode(key: &Key, stored: &Stored) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(stored.weight() as usize);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(key);
    match stored {
        Stored::Pass(_) => return None,
        Stored::Varies { names, nonce } => {
            out.push(VARIES);
            out.extend_from_slice(&nonce.to_le_bytes());
            names.iter().for_each(|name| put(&mut out, name.as_str().as_bytes()));
        }
        Stored::Answer(entry) => {
            out.push(ANSWER);
            let Terms { initial_age, lifetime, stale_while_revalidate, stale_if_error, must_revalidate, no_cache } = entry.terms;
            for number in [entry.stored_ms, initial_age, lifetime, stale_while_revalidate, stale_if_error] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[u8::from(must_revalidate), u8::from(no_cache)]);
            out.extend_from_slice(&entry.status.to_le_bytes());
            out.extend_from_slice(&(entry.fields.len() as u32).to_le_bytes());
            for field in entry.fields.iter() {
                put(&mut out, field.name);
                put(&mut out, field.value);
            }
            out.extend_from_slice(&entry.body);
        }
    }
    let sum = xxh3_64(&out[HEAD..]);
    out[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    Some(out)
}

/// What a file holds; `None` when it is not what was written under this key.
pub(super) fn decode(key: &Key, file: Vec<u8>) -> Option<Stored> {
    let sum = u64::from_le_bytes(file.get(8..HEAD)?.try_into().ok()?);
    if !file.starts_with(MAGIC) || sum != xxh3_64(file.get(HEAD..)?) {
        return None;
    }
    let file = Bytes::from(file);
    let mut rest = Rest { bytes: &file, at: HEAD };
    if rest.take(key.len())? != key {
        return None;
    }
    match rest.take(1)? {
        [VARIES] => {
            let nonce = rest.number()?;
            let mut names = Vec::new();
            while rest.at < file.len() {
                names.push(FieldName::new(String::from_utf8(rest.text()?.to_vec()).ok()?));
            }
            Some(Stored::Varies { names: names.into(), nonce })
        }
        [ANSWER] => rest.entry().map(|entry| Stored::Answer(Entry { body: file.slice(rest.at..), ..entry })),
        _ => None,
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What of a file has not been read yet.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn short(&mut self) -> Option<usize> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?) as usize)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.short()?;
        self.take(length)
    }

    /// All of an answer but its body.
    fn entry(&mut self) -> Option<Entry> {
        let stored_ms = self.number()?;
        let [initial_age, lifetime, stale_while_revalidate, stale_if_error] =
            [self.number()?, self.number()?, self.number()?, self.number()?];
        let [must_revalidate, no_cache] = *self.take(2)? else { return None };
        let terms = Terms {
            initial_age,
            lifetime,
            stale_while_revalidate,
            stale_if_error,
            must_revalidate: must_revalidate != 0,
            no_cache: no_cache != 0,
        };
        let status = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        let mut fields = Fields::new();
        for _ in 0..self.short()? {
            fields.append(self.text()?, self.text()?);
        }
        Some(Entry { status, fields: Arc::new(fields.laid_out()), body: Bytes::new(), stored_ms, terms })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const KEY: Key = [7; 32];

    fn entry(body: Vec<u8>) -> Stored {
        let mut fields = Fields::new();
        fields.append("Content-Type", "text/plain");
        fields.append("X-Odd", b"a: \xff".as_slice());
        let terms = Terms {
            initial_age: 1,
            lifetime: 2,
            stale_if_error: 3,
            stale_while_revalidate: 4,
            must_revalidate: true,
            no_cache: false,
        };
        Stored::Answer(Entry { status: 404, fields: Arc::new(fields.laid_out()), body: body.into(), stored_ms: 5, terms })
    }

    #[test]
    fn markers_come_back_and_passes_are_not_written() {
        let names: Box<[FieldName]> = [FieldName::new("Accept"), FieldName::new("X-Tag")].into();
        let file = encode(&KEY, &Stored::Varies { names, nonce: 9 }).unwrap();
        let Some(Stored::Varies { names, nonce }) = decode(&KEY, file) else { unreachable!("a marker") };
        assert_eq!((names.iter().map(FieldName::as_str).collect::<Vec<_>>(), nonce), (vec!["Accept", "X-Tag"], 9));
        assert!(encode(&KEY, &Stored::Pass(1)).is_none());
    }

    #[test]
    fn a_file_of_another_key_is_nothing() {
        assert!(decode(&[8; 32], encode(&KEY, &entry(vec![1])).unwrap()).is_none());
    }

    proptest! {
        #[test]
        fn answers_come_back(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let Some(Stored::Answer(back)) = decode(&KEY, encode(&KEY, &entry(body.clone())).unwrap()) else { unreachable!("an answer") };
            let Stored::Answer(before) = entry(body) else { unreachable!("an answer") };
            prop_assert_eq!((back.status, back.body, back.stored_ms, back.terms), (before.status, before.body, before.stored_ms, before.terms));
            prop_assert!(back.fields.iter().eq(before.fields.iter()));
        }

        #[test]
        fn damage_is_noticed(at in 0usize..160, bit in 0u32..8, cut in 0usize..160) {
            let file = encode(&KEY, &entry(vec![42; 40])).unwrap();
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            prop_assert!(decode(&KEY, damaged).is_none());
            prop_assert!(decode(&KEY, file[..cut].to_vec()).is_none());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = [&MAGIC[..], &[0; 8], &KEY, &bytes].concat();
            let sum = xxh3_64(&file[HEAD..]);
            file[8..HEAD].copy_from_slice(&sum.to_le_bytes());
            let _ = decode(&KEY, file);
        }
    }
}
