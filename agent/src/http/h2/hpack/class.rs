//! What a field is called, found once when it comes in and then kept with it in the table. It knows no values but their characters.

use crate::http::Name;
use crate::http::chars::is_value;
use crate::http::fields::Line;
use crate::http::h1::is_authority;

/// What a field is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `:method`.
    Method,
    /// `:scheme`.
    Scheme,
    /// `:authority`.
    Authority,
    /// `:path`.
    Path,
    /// `:protocol` (RFC 8441).
    Protocol,
    /// `:status`.
    Status,
    /// A field with a valid name.
    Field(Name),
    /// A name that no field may have: empty, with upper case or another bad byte, or an unknown pseudo-field (RFC 9113 sections 8.2.1 and 8.3).
    Bad,
}

/// One field of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// What it is called.
    pub class: Class,
    /// Whether the value has only bytes that a value may have, and no blanks around it (RFC 9113 section 8.2.1); of an authority, whether it is
    /// one in lower case.
    pub clean: bool,
    /// Whether the name holds an underscore.
    pub underscored: bool,
    /// Name as it came.
    pub name: &'a [u8],
    /// Value as it came.
    pub value: &'a [u8],
}

impl<'a> Field<'a> {
    /// The field as a checked line of this value, when it has a valid name.
    pub(in crate::http::h2) fn line(&self, id: Name, value: &'a [u8]) -> Line<'a> {
        Line { id, underscored: self.underscored, name: self.name, value, plain: None }
    }
}

/// Bytes of names in HTTP/2: those of tokens without upper case.
static NAME_BYTE: [bool; 256] = name_bytes();

const fn name_bytes() -> [bool; 256] {
    let mut table = [false; 256];
    let all = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < all.len() {
        table[all[at] as usize] = true;
        at += 1;
    }
    table
}

/// What a name is.
pub(super) fn classify(name: &[u8]) -> Class {
    match name {
        b":method" => Class::Method,
        b":scheme" => Class::Scheme,
        b":authority" => Class::Authority,
        b":path" => Class::Path,
        b":protocol" => Class::Protocol,
        b":status" => Class::Status,
        _ if is_lower_token(name) => Class::Field(Name::find(name)),
        _ => Class::Bad,
    }
}

fn is_lower_token(name: &[u8]) -> bool {
    // Longer names do not fit into `Fields`.
    !name.is_empty() && name.len() <= u16::MAX as usize && name.iter().all(|&byte| NAME_BYTE[byte as usize])
}

/// Whether a value may be one.
pub(super) fn is_clean(class: Class, value: &[u8]) -> bool {
    match class {
        Class::Authority => is_authority(value) && !value.iter().any(u8::is_ascii_uppercase),
        _ => is_trim(value),
    }
}

/// Whether a value has only bytes that it may have, and no blanks around it.
pub(in crate::http::h2) fn is_trim(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last()) && is_value(value)
}
