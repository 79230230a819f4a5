//! Header and trailer fields in their order, as lines in one text buffer that is used again for the next message.

#[cfg(test)]
mod tests;

use super::chars::{is_same_name, is_token, is_value};
use super::{FieldName, Name};

/// Header or trailer fields in the order received.
///
/// All of them lie as lines (`name: value` with CRLF) in one growing buffer and a field is a span of it, so that parsing, looking up and forwarding a message
/// allocates nothing once the buffer has grown to the size of a usual message, and fields that nobody touched are written again by one copy.
/// Removed text stays in the buffer until [`Fields::clear`].
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    /// The known names that are here, by [`Name::bit`]; may hold some that are gone.
    names: u64,
    /// The same for all other names, by [`Name::other_bit`], which several names share.
    others: u32,
    /// Whether a name may hold an underscore.
    pub(crate) underscored: bool,
}

/// Room made at the first field, so that a usual message grows nothing. The list lies behind a pointer because heads are moved from hand to hand.
const USUAL_FIELDS: usize = 16;
/// Lines of a usual message in bytes.
const USUAL_TEXT: usize = 768;

#[derive(Debug, Clone, Copy)]
struct Field {
    id: Name,
    /// Whether a codec has checked name and value.
    checked: bool,
    name_len: u16,
    at: u32,
    value_len: u32,
}

/// A field line as it was received, its parts found and checked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// Known name.
    pub id: Name,
    /// Whether the name holds an underscore.
    pub underscored: bool,
    /// Name.
    pub name: &'a [u8],
    /// Value without blanks around it.
    pub value: &'a [u8],
    /// The whole line with its CRLF when it reads `name: value`, with one blank.
    pub plain: Option<&'a [u8]>,
}

/// One field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldRef<'a> {
    /// Known name, `Name::Other` for all others.
    pub id: Name,
    /// Name as received or set (HTTP/1 keeps its case).
    pub name: &'a [u8],
    /// Value without surrounding blanks.
    pub value: &'a [u8],
}

impl FieldRef<'_> {
    /// Whether the name is `name` in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether name and value can stand in a line without breaking it.
    fn is_sound(&self) -> bool {
        (self.id != Name::Other || is_token(self.name)) && is_value(self.value)
    }
}

impl Fields {
    /// No fields.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// Forgets all fields and keeps the buffer.
    pub fn clear(&mut self) {
        self.text.clear();
        self.list.clear();
        self.names = 0;
        self.others = 0;
        self.underscored = false;
    }

    /// Bytes that the buffers hold on to, full or not.
    pub fn capacity(&self) -> usize {
        self.text.capacity() + self.list.capacity() * size_of::<Field>()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a field behind the others. Name and value must be valid already (RFC 9110 section 5); the codecs and filters check what they take in.
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        self.push(Name::find(name), name, value.as_ref());
    }

    /// Adds a field with a known name behind the others.
    pub fn append_known(&mut self, name: Name, value: impl AsRef<[u8]>) {
        self.push(name, name.as_str().as_bytes(), value.as_ref());
    }

    /// Replaces all fields of this known name by one whose value we made ourselves, of parts that have been checked.
    pub(crate) fn set_own(&mut self, name: Name, value: &[u8]) {
        self.remove_known(name);
        self.add(name, name.as_str().as_bytes(), value, true);
    }

    /// Adds a field whose known name has been found already.
    pub(crate) fn push(&mut self, id: Name, name: &[u8], value: &[u8]) {
        self.underscored |= id == Name::Other && name.contains(&b'_');
        self.add(id, name, value, false);
    }

    /// Adds a field that a codec has checked.
    pub(crate) fn push_line(&mut self, line: &Line<'_>) {
        self.underscored |= line.underscored;
        let Some(plain) = line.plain else { return self.add(line.id, line.name, line.value, true) };
        let at = self.begin(line.id, line.name, plain.len());
        self.text.extend_from_slice(plain);
        self.note(line.id, at, line.name.len(), line.value.len(), true);
    }

    fn add(&mut self, id: Name, name: &[u8], value: &[u8], checked: bool) {
        self.begin(id, name, name.len() + value.len() + 4);
        self.write(id, name, value, checked);
    }

    fn write(&mut self, id: Name, name: &[u8], value: &[u8], checked: bool) {
        let at = self.text.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        self.note(id, at, name.len(), value.len(), checked);
    }

    #[inline(always)]
    fn begin(&mut self, id: Name, name: &[u8], len: usize) -> usize {
        self.make_room(len);
        self.names |= id.bit();
        if id == Name::Other {
            self.others |= Name::other_bit(name);
        }
        self.text.len()
    }

    /// Makes room for some more bytes, and for a usual message when there is none at all.
    #[inline(always)]
    fn make_room(&mut self, len: usize) {
        if self.list.capacity() == 0 {
            self.make_usual_room();
        }
        self.text.reserve(len);
    }

    #[cold]
    fn make_usual_room(&mut self) {
        self.list.reserve(USUAL_FIELDS);
        self.text.reserve(USUAL_TEXT);
    }

    #[inline(always)]
    fn note(&mut self, id: Name, at: usize, name: usize, value: usize, checked: bool) {
        debug_assert!(name <= u16::MAX as usize);
        self.list.push(Field { id, checked, name_len: name as u16, at: at as u32, value_len: value as u32 });
    }

    /// Adds to the value of the last field when it is this one; says whether it is.
    pub(crate) fn extend_last(&mut self, name: Name, separator: &[u8], value: &[u8]) -> bool {
        let Some(field) = self.list.last_mut().filter(|field| field.id == name) else { return false };
        let end = field.at as usize + field.len();
        debug_assert_eq!(end, self.text.len());
        field.value_len += (separator.len() + value.len()) as u32;
        self.text.truncate(end - 2);
        self.text.extend_from_slice(separator);
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        true
    }

    /// Replaces all fields of this name by one.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let id = Name::find(name);
        self.remove_all(id, name);
        self.push(id, name, value);
    }

    /// Replaces all fields of this known name by one.
    pub fn set_known(&mut self, name: Name, value: impl AsRef<[u8]>) {
        self.remove_known(name);
        self.append_known(name, value);
    }

    /// Removes all fields of this name and says how many there were.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> usize {
        let name = name.as_ref();
        self.remove_all(Name::find(name), name)
    }

    fn remove_all(&mut self, id: Name, name: &[u8]) -> usize {
        match id {
            Name::Other if self.others & Name::other_bit(name) == 0 => 0,
            Name::Other => self.remove_other(name),
            known => self.remove_known(known),
        }
    }

    fn remove_other(&mut self, name: &[u8]) -> usize {
        let (mut at, before) = (0, self.list.len());
        while let Some(next) = self.list[at..].iter().position(|field| field.is_other(&self.text, name)) {
            at += next;
            self.list.remove(at);
        }
        before - self.list.len()
    }

    /// Adds a field behind the others.
    pub fn append_named(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        self.push_named(name, value.as_ref(), false);
    }

    /// Replaces all fields of this name by one.
    pub fn set_named(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        self.remove_named(name);
        self.append_named(name, value);
    }

    /// Replaces all fields of this name by one whose value we made ourselves, of parts that have been checked.
    pub(crate) fn set_own_named(&mut self, name: &FieldName, value: &[u8]) {
        self.remove_named(name);
        self.push_named(name, value, name.is_sound());
    }

    fn push_named(&mut self, name: &FieldName, value: &[u8], checked: bool) {
        let text = name.as_str().as_bytes();
        self.make_room(text.len() + value.len() + 4);
        self.names |= name.id().bit();
        self.others |= name.other_bit();
        self.underscored |= name.is_underscored();
        self.write(name.id(), text, value, checked);
    }

    /// Removes all fields of this name and says how many there were.
    pub fn remove_named(&mut self, name: &FieldName) -> usize {
        match name.id() {
            _ if !self.may_have(name) => 0,
            Name::Other => self.remove_other(name.as_str().as_bytes()),
            known => self.remove_known(known),
        }
    }

    /// Adds the fields of a list that was laid out once behind the others.
    pub fn append_all(&mut self, other: &Fields) {
        self.make_room(other.text.len());
        let at = self.text.len() as u32;
        self.text.extend_from_slice(&other.text);
        self.list.extend(other.list.iter().map(|field| Field { at: field.at + at, ..*field }));
        self.names |= other.names;
        self.others |= other.others;
        self.underscored |= other.underscored;
    }

    /// Replaces all fields of the names of such a list by those of the list.
    pub fn set_all(&mut self, other: &Fields) {
        if self.names & other.names & !Name::Other.bit() != 0 || self.others & other.others != 0 {
            for field in &other.list {
                self.remove_all(field.id, field.name(&other.text));
            }
        }
        self.append_all(other);
    }

    /// The same fields laid out to be copied into messages: without gaps, and those that cannot stand in a message left out now instead of later.
    #[must_use]
    pub fn laid_out(&self) -> Fields {
        let mut tight = Fields::default();
        self.each_sound(|field| {
            tight.underscored |= field.id == Name::Other && field.name.contains(&b'_');
            tight.add(field.id, field.name, field.value, true);
        });
        tight.text.shrink_to_fit();
        tight.list.shrink_to_fit();
        tight
    }

    /// Value of the first field of this name.
    pub fn get_named(&self, name: &FieldName) -> Option<&[u8]> {
        let field = self.candidates(name).iter().find(|field| field.is_named(&self.text, name))?;
        Some(field.value(&self.text))
    }

    /// Values of all fields of this name, in order.
    pub fn get_all_named<'a>(&'a self, name: &FieldName) -> impl Iterator<Item = &'a [u8]> {
        let named = self.candidates(name).iter().filter(|field| field.is_named(&self.text, name));
        named.map(|field| field.value(&self.text))
    }

    /// Values of all fields of this name, in order, where underscores in names count as hyphens, as they do for CGI and its like.
    pub(crate) fn get_all_loosely<'a>(&'a self, name: &FieldName) -> impl Iterator<Item = &'a [u8]> {
        let list = if self.underscored { &self.list[..] } else { self.candidates(name) };
        let spelled =
            |field: &&Field| field.is_named(&self.text, name) || (self.underscored && field.is_loosely(&self.text, name));
        list.iter().filter(spelled).map(|field| field.value(&self.text))
    }

    /// The fields among which one of this name may be.
    fn candidates(&self, name: &FieldName) -> &[Field] {
        if self.may_have(name) { &self.list } else { &[] }
    }

    /// Whether there may be a field of this name: never wrong when it says no.
    fn may_have(&self, name: &FieldName) -> bool {
        match name.id() {
            Name::Other => self.others & name.other_bit() != 0,
            known => self.names & known.bit() != 0,
        }
    }

    /// Removes all fields of this known name and says how many there were.
    pub fn remove_known(&mut self, name: Name) -> usize {
        if self.names & name.bit() == 0 {
            return 0;
        }
        self.names &= !name.bit();
        let before = self.list.len();
        self.list.retain(|field| field.id != name);
        before - self.list.len()
    }

    /// Removes all fields of these known names, given as a set of [`Name::bit`]s.
    pub(crate) fn remove_set(&mut self, names: u64) {
        if self.names & names != 0 {
            self.list.retain(|field| field.id.bit() & names == 0);
            self.names &= !names;
        }
    }

    /// Removes fields whose name holds an underscore: what CGI and its like cannot tell from a hyphen.
    pub fn remove_underscored(&mut self) {
        if self.underscored {
            self.retain(|field| field.id != Name::Other || memchr::memchr(b'_', field.name).is_none());
            self.underscored = false;
        }
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        let text = &self.text;
        self.list.retain(|field| keep(field.view(text)));
    }

    /// Lets `spell` write the letters of each name in another case, in order.
    pub(in crate::http) fn respell(&mut self, mut spell: impl FnMut(&mut [u8])) {
        for field in &self.list {
            spell(&mut self.text[field.at as usize..][..usize::from(field.name_len)]);
        }
    }

    /// Value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let bytes = name.as_bytes();
        match Name::find(bytes) {
            Name::Other if self.others & Name::other_bit(bytes) == 0 => None,
            Name::Other => self.list.iter().find(|field| field.is_other(&self.text, bytes)).map(|field| field.value(&self.text)),
            known => self.get_known(known),
        }
    }

    /// Value of the first field of this name, when it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Value of the first field of this known name.
    pub fn get_known(&self, name: Name) -> Option<&[u8]> {
        if !self.contains_known(name) {
            return None;
        }
        self.list.iter().find(|field| field.id == name).map(|field| field.value(&self.text))
    }

    /// Values of all fields of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// Values of all fields of this known name, in order.
    pub fn get_all_known(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let list = if self.contains_known(name) { &self.list[..] } else { &[] };
        list.iter().filter(move |field| field.id == name).map(|field| field.value(&self.text))
    }

    /// Whether there is a field of this known name.
    pub fn contains_known(&self, name: Name) -> bool {
        self.names & name.bit() != 0 && self.list.iter().any(|field| field.id == name)
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.list.iter().map(|field| field.view(&self.text))
    }

    /// Shows all fields that can stand in a message, in order: one that nobody has checked and that is none is left out.
    pub(super) fn each_sound(&self, mut show: impl FnMut(FieldRef<'_>)) {
        for field in &self.list {
            let view = field.view(&self.text);
            if field.checked || view.is_sound() {
                show(view);
            }
        }
    }

    /// Appends the lines of all fields but those `without` to a message, and gives back which were written; both are sets of [`Name::bit`]s. Neighbours go
    /// in one copy. A field that nobody has checked and that would break the line structure is left out: nobody splits a response, whatever a filter was
    /// told to set.
    pub(super) fn write_lines(&self, out: &mut Vec<u8>, without: u64) -> u64 {
        let (mut start, mut end, mut written) = (0, 0, 0);
        for field in &self.list {
            if field.id.bit() & without != 0 || !(field.checked || field.view(&self.text).is_sound()) {
                continue;
            }
            written |= field.id.bit();
            let at = field.at as usize;
            if at != end {
                out.extend_from_slice(&self.text[start..end]);
                start = at;
            }
            end = at + field.len();
        }
        out.extend_from_slice(&self.text[start..end]);
        written
    }
}

impl Field {
    /// Length of the line.
    fn len(&self) -> usize {
        self.name_len as usize + self.value_len as usize + 4
    }

    /// Whether this is no known name and spells `name` in any case.
    #[inline(always)]
    fn is_other(&self, text: &[u8], name: &[u8]) -> bool {
        self.id == Name::Other && usize::from(self.name_len) == name.len() && self.spells(text, name)
    }

    /// Apart from [`Field::is_other`], whose first looks tell most fields.
    #[inline(never)]
    fn spells(&self, text: &[u8], name: &[u8]) -> bool {
        is_same_name(self.name(text), name)
    }

    fn is_named(&self, text: &[u8], name: &FieldName) -> bool {
        match name.id() {
            Name::Other => self.is_other(text, name.as_str().as_bytes()),
            known => self.id == known,
        }
    }

    /// Whether this is no known name and spells `name`, which has hyphens alone, in any case and with hyphens or underscores.
    fn is_loosely(&self, text: &[u8], name: &FieldName) -> bool {
        let (known, name) = (name.id() != Name::Other, name.as_str().as_bytes());
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
        !known && self.id == Name::Other && usize::from(self.name_len) == name.len() && self.name(text).iter().zip(name).all(same)
    }

    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.at as usize..][..self.name_len as usize]
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.at as usize + self.name_len as usize + 2..][..self.value_len as usize]
    }

    fn view<'a>(&self, text: &'a [u8]) -> FieldRef<'a> {
        FieldRef { id: self.id, name: self.name(text), value: self.value(text) }
    }
}
