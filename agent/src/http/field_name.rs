//! A field name as code or configuration gives it, looked at once, so that requests need not look again.

use std::borrow::Cow;

use super::Name;
use super::chars::is_token;

/// A field name whose known name is found already.
#[derive(Debug, Clone)]
pub struct FieldName {
    id: Name,
    underscored: bool,
    /// Whether the text is a token, as it should be.
    sound: bool,
    other_bit: u32,
    text: Cow<'static, str>,
}

impl FieldName {
    /// The name of this text, which must be a token (RFC 9110 section 5.1).
    pub fn new(text: impl Into<Cow<'static, str>>) -> FieldName {
        let text = text.into();
        let id = Name::find(text.as_bytes());
        FieldName { id, underscored: text.contains('_'), sound: is_token(text.as_bytes()), other_bit: other_bit(id, &text), text }
    }

    /// A name that stands in the code: a token without underscores.
    pub const fn of(text: &'static str) -> FieldName {
        let id = Name::spelled(text);
        FieldName { id, underscored: false, sound: true, other_bit: other_bit(id, text), text: Cow::Borrowed(text) }
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Known name.
    pub fn id(&self) -> Name {
        self.id
    }

    /// Whether it is a token.
    pub(super) fn is_sound(&self) -> bool {
        self.sound
    }

    /// [`Name::other_bit`], none for a known name.
    pub(super) fn other_bit(&self) -> u32 {
        self.other_bit
    }

    /// Whether the name holds an underscore.
    pub(super) fn is_underscored(&self) -> bool {
        self.underscored
    }
}

const fn other_bit(id: Name, text: &str) -> u32 {
    match id {
        Name::Other => Name::other_bit(text.as_bytes()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fields;

    #[test]
    fn names_found_beforehand_are_those_found_by_text() {
        const VARY: FieldName = FieldName::of("Vary");
        const ORIGIN: FieldName = FieldName::of("Origin");
        assert_eq!((VARY.id(), ORIGIN.id()), (Name::find(b"vary"), Name::Origin));
        for text in ["Origin", "X-Tag", "x_tag"] {
            let (mut fields, name) = (Fields::new(), FieldName::new(text));
            fields.append(text.to_ascii_lowercase(), "1");
            fields.append("Other", "o");
            fields.append(text.to_ascii_uppercase(), "2");
            assert_eq!(fields.get_named(&name), Some(&b"1"[..]));
            fields.set_named(&name, "3");
            assert_eq!((fields.len(), fields.get(text)), (2, Some(&b"3"[..])));
            assert_eq!((fields.remove_named(&name), fields.remove_named(&name)), (1, 0));
        }
    }

    #[test]
    fn an_underscore_is_not_overlooked() {
        let mut fields = Fields::new();
        fields.set_named(&FieldName::new("x_tag"), "1");
        fields.remove_underscored();
        assert!(fields.is_empty());
    }
}
