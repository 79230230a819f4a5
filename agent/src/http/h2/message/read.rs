//! What is judged alike in every block: bounds, names, values and what has no place in HTTP/2. It knows no pseudo-fields.

use super::BlockFault;
use crate::http::Name;
use crate::http::chars::is_value;
use crate::http::h1::{Fault, HeadLimits};
use crate::http::h2::hpack::{Class, Field};

/// The judgement on a block so far.
#[derive(Debug)]
pub(super) struct Judge {
    limits: HeadLimits,
    fields: usize,
    bytes: usize,
    malformed: Option<&'static str>,
    refused: Option<Fault>,
    /// Whether pseudo-fields may no longer come.
    begun: bool,
    seen: u8,
    /// Announced length of the content.
    pub(super) length: Option<u64>,
}

impl Judge {
    pub(super) fn new(limits: &HeadLimits) -> Judge {
        Judge { limits: *limits, fields: 0, bytes: 0, malformed: None, refused: None, begun: false, seen: 0, length: None }
    }

    /// The message is malformed.
    pub(super) fn malformed(&mut self, detail: &'static str) {
        self.malformed.get_or_insert(detail);
    }

    /// The message is refused, unless it turns out to be malformed.
    pub(super) fn refuse(&mut self, fault: Fault) {
        self.refused.get_or_insert(fault);
    }

    /// Takes in that a pseudo-field has come: whether it may be looked at (section 8.3).
    pub(super) fn admit_pseudo(&mut self, field: &Field<'_>) -> bool {
        let bit = 1
            << match field.class {
                Class::Method => 0,
                Class::Scheme => 1,
                Class::Authority => 2,
                Class::Path => 3,
                Class::Protocol => 4,
                _ => 5,
            };
        if self.begun {
            self.malformed("a pseudo-field behind other fields");
        }
        if self.seen & bit != 0 {
            self.malformed("a pseudo-field came twice");
        }
        self.seen |= bit;
        self.malformed.is_none()
    }

    /// Takes in that a field has come: its known name when it may be looked at. Connection-level fields have no place (section 8.2.2).
    pub(super) fn admit(&mut self, field: &Field<'_>) -> Option<Name> {
        self.begun = true;
        let Class::Field(id) = field.class else {
            self.malformed("a name that no field may have");
            return None;
        };
        let bytes = field.name.len() + field.value.len();
        self.fields += 1;
        self.bytes += bytes;
        if self.fields > self.limits.max_fields || bytes > self.limits.max_field || self.bytes > self.limits.max_bytes {
            self.refuse(Fault::TooLarge);
        }
        match id {
            Name::Connection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Http2Settings => self.malformed("a field that speaks to the connection"),
            Name::Te if !field.value.eq_ignore_ascii_case(b"trailers") => self.malformed("`te` is not `trailers`"),
            Name::ContentLength => self.take_length(field.value),
            _ => {}
        }
        (self.malformed.is_none() && self.refused != Some(Fault::TooLarge)).then_some(id)
    }

    /// Digits only, and once.
    fn take_length(&mut self, value: &[u8]) {
        if self.length.is_some() || value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return self.malformed("bad content-length");
        }
        self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    }

    /// The judgement.
    pub(super) fn verdict(&self) -> Result<(), BlockFault> {
        match (self.malformed, self.refused) {
            (Some(detail), _) => Err(BlockFault::Malformed(detail)),
            (None, Some(fault)) => Err(BlockFault::Refused(fault)),
            (None, None) => Ok(()),
        }
    }
}

/// A value of a server: blanks around it mean nothing and go, since many add them; control bytes are malformed.
pub(super) fn lenient<'a>(field: &Field<'a>) -> Option<&'a [u8]> {
    if field.clean { Some(field.value) } else { is_value(field.value).then(|| field.value.trim_ascii()) }
}
