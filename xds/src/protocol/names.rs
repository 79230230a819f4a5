//! The names of a state-of-the-world request as they came. Each ACK has all of them anew, thousands where clusters are many, and nearly always the same: they are
//! compared as bytes, and read where they differ.

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

use super::wire::MAX_NAME;
use super::{BadRequest, MAX_NAMES};
use heddle_proto::envoy::service::discovery::v3::DiscoveryRequest;

/// The number of `resource_names` in a `DiscoveryRequest`.
const TAG: u32 = 3;

/// Names in the order of a request.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    text: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Names {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each of them.
    ///
    /// # Errors
    /// They are too many or too long, or no UTF-8.
    pub fn read(&self) -> Result<Vec<Arc<str>>, BadRequest> {
        const WHAT: &str = "resource_names";
        if self.len() > MAX_NAMES {
            return Err(BadRequest::TooMuch { what: WHAT, found: self.len(), most: MAX_NAMES });
        }
        let one = |name: &[u8]| match std::str::from_utf8(name) {
            _ if name.len() > MAX_NAME => Err(BadRequest::TooMuch { what: WHAT, found: name.len(), most: MAX_NAME }),
            Ok(name) => Ok(name.into()),
            Err(_) => Err(BadRequest::Malformed(WHAT)),
        };
        self.iter().map(one).collect()
    }

    /// The same as text, for who writes them.
    pub fn texts(&self) -> Vec<String> {
        self.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| self.text.get(start..*end).unwrap_or_default())
    }

    fn push(&mut self, name: &[u8]) {
        self.text.extend_from_slice(name);
        self.ends.push(self.text.len());
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(all: I) -> Names {
        let mut names = Names::default();
        all.into_iter().for_each(|name| names.push(name.as_ref().as_bytes()));
        names
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

/// A `DiscoveryRequest` whose names stay as they came.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ask {
    /// Everything but the names.
    pub(crate) rest: DiscoveryRequest,
    pub(crate) names: Names,
    /// Where one name is put together; it may come in pieces.
    one: Vec<u8>,
}

impl Message for Ask {
    fn encode_raw(&self, out: &mut impl BufMut) {
        self.rest.encode_raw(out);
        for name in self.names.iter() {
            prost::encoding::bytes::encode(TAG, &name.to_vec(), out);
        }
    }

    fn merge_field(&mut self, tag: u32, wire: WireType, from: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
        if tag != TAG {
            return self.rest.merge_field(tag, wire, from, context);
        }
        prost::encoding::bytes::merge(wire, &mut self.one, from, context)?;
        self.names.push(&self.one);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let names = self.names.iter().map(|name| prost::encoding::bytes::encoded_len(TAG, &name.to_vec()));
        self.rest.encoded_len() + names.sum::<usize>()
    }

    fn clear(&mut self) {
        *self = Ask::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn request(names: &[String]) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: "7".into(),
            resource_names: names.to_vec(),
            type_url: "t".into(),
            response_nonce: "n".into(),
            ..Default::default()
        }
    }

    proptest! {
        /// What generated code reads, and what is written is what generated code writes.
        #[test]
        fn names_are_those_of_the_message(names in proptest::collection::vec(".{0,40}", 0..20)) {
            let whole = request(&names);
            let ask = Ask::decode(whole.encode_to_vec().as_slice()).unwrap();
            prop_assert_eq!(&ask.names, &names.iter().collect::<Names>());
            let read: Vec<String> = ask.names.read().unwrap().iter().map(|name| name.to_string()).collect();
            prop_assert_eq!(&read, &names);
            prop_assert_eq!(&ask.rest, &request(&[]));
            prop_assert_eq!(ask.encoded_len(), ask.encode_to_vec().len());
            prop_assert_eq!(DiscoveryRequest::decode(ask.encode_to_vec().as_slice()).unwrap(), whole);
        }

        /// Whatever comes, it is no more than a mistake.
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Ask::decode(bytes.as_slice()).map(|ask| ask.names.read());
        }
    }

    #[test]
    fn other_names_are_told_apart_and_what_is_no_name_is_refused() {
        let names = |names: &[&str]| names.iter().collect::<Names>();
        assert_ne!(names(&["ab", "c"]), names(&["a", "bc"]));
        assert_ne!(names(&["", "a"]), names(&["a", ""]));
        assert_eq!(
            names(&["x".repeat(MAX_NAME + 1).as_str()]).read().unwrap_err().to_string().split(' ').next(),
            Some("resource_names")
        );
        assert!(matches!(vec!["a"; MAX_NAMES + 1].into_iter().collect::<Names>().read(), Err(BadRequest::TooMuch { .. })));
        let odd = Ask::decode(&b"\x1a\x01\xff"[..]).unwrap();
        assert_eq!(odd.names.read(), Err(BadRequest::Malformed("resource_names")));
    }
}
