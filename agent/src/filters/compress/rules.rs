//! Which responses are compressed for whom, and what becomes of their heads. It knows no coder.

use super::super::Offer;
use super::super::fields::vary_by;
use super::Coding;
use super::accept::{Accepted, Wish};
use super::coded::{Coder, coded};
use super::config::{HttpVersion, Types};
use crate::exchange::Exchange;
use crate::http::{Body, FieldName, Method, Name, ResponseHead, Version};

const ETAG: FieldName = FieldName::of("ETag");
const CACHE_CONTROL: FieldName = FieldName::of("Cache-Control");
const ACCEPT_RANGES: FieldName = FieldName::of("Accept-Ranges");
/// Fields that speak of the bytes as they were.
const DIGESTS: [FieldName; 4] =
    [FieldName::of("Content-MD5"), FieldName::of("Digest"), FieldName::of("Content-Digest"), FieldName::of("Repr-Digest")];

/// The preference of a coding that is the default where the client leaves the choice.
const DEFAULT_PREFERENCE: u8 = u8::MAX;

/// More than any preference, so that what stands a place further back goes behind.
const IN_TURN: i32 = 256;

/// Which responses are compressed for whom.
#[derive(Debug)]
pub(in crate::filters) struct Rules {
    coding: Coding,
    /// `None` for all.
    types: Option<Vec<Box<str>>>,
    excluded: Vec<Box<str>>,
    min_length: u64,
    http10: bool,
    vary: bool,
    default: bool,
    preference: u8,
    in_turn: bool,
}

impl Rules {
    /// Rules for a coding.
    pub(in crate::filters) fn new(coding: Coding, types: &Types, excluded: &[String], min_length: u64) -> Rules {
        let lower = |list: &[String]| list.iter().map(|media| media.to_ascii_lowercase().into()).collect();
        let types = match types {
            Types::All(_) => None,
            Types::List(list) => Some(lower(list)),
        };
        let excluded = lower(excluded);
        Rules { coding, types, excluded, min_length, http10: false, vary: false, default: false, preference: 0, in_turn: false }
    }

    /// From which version of the request on, and whether caches are told.
    pub(in crate::filters) fn for_clients(self, version: HttpVersion, vary: bool) -> Rules {
        Rules { http10: version == HttpVersion::Http10, vary, ..self }
    }

    /// Its place among other codings.
    pub(in crate::filters) fn among_others(self, default: bool, preference: u8) -> Rules {
        Rules { default, preference, ..self }
    }

    /// Whether the order counts in which clients name codings that they like equally.
    pub(in crate::filters) fn in_order_of_clients(self, in_turn: bool) -> Rules {
        Rules { in_turn, ..self }
    }

    /// What is offered for a response with a body of this length, where it is known.
    pub(in crate::filters) fn offer(&self, x: &Exchange, head: &mut ResponseHead, length: Option<u64>) -> Option<Offer> {
        if !self.fits(x, head, length) {
            return None;
        }
        if self.vary {
            vary_by(&mut head.fields, "Accept-Encoding");
        }
        if x.request.version == Version::Http10 && !self.http10 {
            return None;
        }
        let preferred = i32::from(if self.default { DEFAULT_PREFERENCE } else { self.preference });
        let accepted = Accepted::of(x);
        let offer = match accepted.wish(self.coding) {
            Wish::Named(weight) => Offer { weight, preference: self.preference.into() },
            Wish::Any(weight) => Offer { weight, preference: preferred },
            Wish::Silent if self.default => Offer { weight: 1000, preference: preferred },
            Wish::Silent | Wish::No => return None,
        };
        if !self.in_turn {
            return Some(offer);
        }
        // What the client names first, or means by `*`, goes before what it names behind that.
        let place = accepted.place(self.coding, offer.weight)?;
        Some(Offer { preference: offer.preference - (1 + i32::from(place)) * IN_TURN, ..offer })
    }

    /// Whether the response may be compressed, whoever asks.
    fn fits(&self, x: &Exchange, head: &ResponseHead, length: Option<u64>) -> bool {
        let has_content = head.status >= 200 && !matches!(head.status, 204 | 205 | 206 | 304) && x.request.method != Method::Head;
        has_content
            && length.is_none_or(|length| length >= self.min_length.max(1))
            && !head.fields.contains_known(Name::ContentEncoding)
            && self.wants_type(head.fields.get_known(Name::ContentType))
            && !head.fields.get_all_named(&CACHE_CONTROL).any(forbids_transforming)
    }

    fn wants_type(&self, content_type: Option<&[u8]>) -> bool {
        let media = content_type.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_in = |list: &[Box<str>]| list.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(media));
        // The messages of gRPC carry their own compression, and its clients take no other.
        let grpc = media.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"));
        !grpc && !is_in(&self.excluded) && self.types.as_deref().is_none_or(is_in)
    }
}

fn forbids_transforming(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// The body of a response on its way through a coder; the head says so from now on.
pub(in crate::filters) fn encoded(coding: Coding, head: &mut ResponseHead, body: Body, coder: Box<dyn Coder>) -> Body {
    let fields = &mut head.fields;
    fields.append_known(Name::ContentEncoding, coding.token());
    fields.remove_known(Name::ContentLength);
    fields.remove_named(&ACCEPT_RANGES);
    for name in &DIGESTS {
        fields.remove_named(name);
    }
    // The bytes are others now, so that they are only equivalent to those of the strong validator (RFC 9110 section 8.8.1).
    let strong = fields.get_named(&ETAG).filter(|etag| !etag.starts_with(b"W/"));
    if let Some(weak) = strong.map(|etag| [b"W/", etag].concat()) {
        fields.set_named(&ETAG, weak);
    }
    coded(body, coder)
}
