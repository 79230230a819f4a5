//! Header and trailer fields in their order, in one text buffer that is used again for the next message.

use super::Name;

/// Header or trailer fields in the order received.
///
/// All names and values lie in one growing buffer and a field is a pair of spans into it, so that parsing, looking up and forwarding a message
/// allocates nothing once the buffer has grown to the size of a usual message. Removed text stays in the buffer until [`Fields::clear`].
#[derive(Debug, Clone, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
}

/// Room made at the first field, so that a usual message grows nothing. The list lies behind a pointer because heads are moved from hand to hand.
const USUAL_FIELDS: usize = 16;
/// Names and values of a usual message in bytes.
const USUAL_TEXT: usize = 512;

#[derive(Debug, Clone, Copy)]
struct Field {
    id: Name,
    name_len: u16,
    at: u32,
    value_len: u32,
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

    /// Adds a field whose known name has been found already.
    pub(crate) fn push(&mut self, id: Name, name: &[u8], value: &[u8]) {
        debug_assert!(name.len() <= u16::MAX as usize);
        if self.list.capacity() == 0 {
            self.list.reserve(USUAL_FIELDS);
            self.text.reserve(USUAL_TEXT);
        }
        let at = self.text.len() as u32;
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.list.push(Field { id, name_len: name.len() as u16, at, value_len: value.len() as u32 });
    }

    /// Replaces all fields of this name by one.
    pub fn set(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let name = name.as_ref();
        self.remove(name);
        self.push(Name::find(name), name, value.as_ref());
    }

    /// Replaces all fields of this known name by one.
    pub fn set_known(&mut self, name: Name, value: impl AsRef<[u8]>) {
        self.remove_known(name);
        self.append_known(name, value);
    }

    /// Removes all fields of this name and says how many there were.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> usize {
        let name = name.as_ref();
        let before = self.list.len();
        let text = &self.text;
        self.list.retain(|field| !field.name(text).eq_ignore_ascii_case(name));
        before - self.list.len()
    }

    /// Removes all fields of this known name and says how many there were.
    pub fn remove_known(&mut self, name: Name) -> usize {
        let before = self.list.len();
        self.list.retain(|field| field.id != name);
        before - self.list.len()
    }

    /// Keeps the fields for which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        let text = &self.text;
        self.list.retain(|field| keep(field.view(text)));
    }

    /// Value of the first field of this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.list
            .iter()
            .find(|field| field.name(&self.text).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value(&self.text))
    }

    /// Value of the first field of this name, when it is UTF-8.
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Value of the first field of this known name.
    pub fn get_known(&self, name: Name) -> Option<&[u8]> {
        self.list.iter().find(|field| field.id == name).map(|field| field.value(&self.text))
    }

    /// Values of all fields of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// Values of all fields of this known name, in order.
    pub fn get_all_known(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |field| field.id == name).map(|field| field.value(&self.text))
    }

    /// Whether there is a field of this known name.
    pub fn contains_known(&self, name: Name) -> bool {
        self.list.iter().any(|field| field.id == name)
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = FieldRef<'_>> {
        self.list.iter().map(|field| field.view(&self.text))
    }
}

impl Field {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.at as usize..][..self.name_len as usize]
    }

    fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.at as usize + self.name_len as usize..][..self.value_len as usize]
    }

    fn view<'a>(&self, text: &'a [u8]) -> FieldRef<'a> {
        FieldRef { id: self.id, name: self.name(text), value: self.value(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        let mut fields = Fields::new();
        fields.append("Host", "a.example");
        fields.append("X-Tag", "1");
        fields.append("x-tag", "2");
        fields
    }

    #[test]
    fn names_are_found_in_any_case_and_order_is_kept() {
        let fields = sample();
        assert_eq!(fields.get("HOST"), Some(&b"a.example"[..]));
        assert_eq!(fields.get_known(Name::Host), Some(&b"a.example"[..]));
        assert_eq!(fields.get_all("X-TAG").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn set_replaces_all_and_remove_counts() {
        let mut fields = sample();
        fields.set("x-Tag", "3");
        assert_eq!(fields.get_all("x-tag").collect::<Vec<_>>(), [b"3"]);
        assert_eq!(fields.remove("x-tag"), 1);
        assert_eq!(fields.remove("x-tag"), 0);
        assert_eq!(fields.len(), 1);
    }
}
