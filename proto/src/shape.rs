//! What the messages of Envoy look like, as values: for whoever reads them without knowing them. It holds no message.

/// A message.
#[derive(Debug)]
pub struct Shape {
    /// Its full name, for example `envoy.config.cluster.v3.Cluster`.
    pub name: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether it may be there many times.
    pub repeated: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Yes or no.
    Bool,
    /// A whole number that is not negative.
    Unsigned,
    /// A whole number, or the number of a name of an enumeration.
    Signed,
    /// A whole number whose sign is its last bit.
    ZigZag,
    /// A whole number of fixed size.
    Fixed,
    /// The same, with a sign.
    SignedFixed,
    /// A number with fractions.
    Float,
    /// A text.
    Text,
    /// Bytes.
    Bytes,
    /// A message of this name.
    Message(&'static str),
    /// A map, whose entries are messages of this name.
    Map(&'static str),
}

/// The message of this name. Names begin alike and have many lengths, by which most are told apart.
pub fn find(name: &str) -> Option<&'static Shape> {
    let all = crate::envoy::shapes::SHAPES;
    all.binary_search_by_key(&(name.len(), name), |shape| (shape.name.len(), shape.name)).ok().and_then(|at| all.get(at))
}
