//! A document as a tree in which every value knows its place. It does not know what the values mean.

use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::expand::Expansion;
use super::mistake::Mistakes;
use super::parse::{self, Format};
use super::section::Section;

/// A place in a file, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub at: Position,
    /// What it is.
    pub data: Data,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A finite number.
    Number(Number),
    /// Text.
    String(String),
    /// Values in order.
    List(Vec<Node>),
    /// Keys with values in the order of the file; no key twice.
    Map(Vec<Entry>),
}

/// One key of a map with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key starts.
    pub key_at: Position,
    /// The value.
    pub node: Node,
}

/// A parsed file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// The outermost value; `Null` for an empty file.
    pub root: Node,
}

impl Document {
    /// Parses one document with its variables expanded, bounded in bytes, depth and number of values (aliases counted as often as they are used).
    ///
    /// # Errors
    /// The first syntax error, or all faulty variables.
    pub fn parse(file: &str, text: impl AsRef<[u8]>, format: Format, expansion: Expansion<'_>) -> Result<Document, Mistakes> {
        parse::parse(file, text.as_ref(), format, expansion)
    }

    /// Reads the document by `read`; keys that it did not ask for are mistakes.
    ///
    /// # Errors
    /// All mistakes found.
    pub fn read<T>(&self, read: impl FnOnce(&mut Section<'_>) -> T) -> Result<T, Mistakes> {
        Section::whole(self, read)
    }

    /// The document as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.root.to_json()
    }

    /// Where `path` (`routes[3].plugins.limit-count.count`) stands, or the nearest of its parents that exists.
    #[must_use]
    pub fn locate(&self, path: &str) -> Position {
        self.root.locate(path)
    }
}

impl Node {
    /// The value of a key, when this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The key and value of a key, when this is a map that has it.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let Data::Map(entries) = &self.data else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(value) => Value::Number(value.clone()),
            Data::String(value) => Value::String(value.clone()),
            Data::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Map(entries) => Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect()),
        }
    }

    /// Where `path` below this node stands, or the nearest of its parents that exists. Keys with dots may be written `["a.b"]`; of plain ones the longest
    /// that fits is taken.
    #[must_use]
    pub fn locate(&self, path: &str) -> Position {
        let (mut node, mut at, mut rest) = (self, self.at, path);
        loop {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let Some((next, next_at, after)) = node.step(rest) else { return at };
            (node, at, rest) = (next, next_at, after);
        }
    }

    /// One step down `path`: the child, its place and the rest of the path.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<(&'n Node, Position, &'p str)> {
        match &self.data {
            Data::List(items) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, item.at, after))
            }
            Data::Map(entries) if path.starts_with("[\"") => {
                let (key, after) = path.strip_prefix("[\"")?.split_once("\"]")?;
                let entry = entries.iter().find(|entry| entry.key == key)?;
                Some((&entry.node, entry.place(), after))
            }
            Data::Map(entries) => {
                let fits = |entry: &&Entry| {
                    path.strip_prefix(entry.key.as_str()).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
                };
                let entry = entries.iter().filter(fits).max_by_key(|entry| entry.key.len())?;
                Some((&entry.node, entry.place(), &path[entry.key.len()..]))
            }
            _ => None,
        }
    }

    /// What it is, for messages: values are not shown, as they may be secret.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "a boolean",
            Data::Number(_) => "a number",
            Data::String(_) => "a string",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

impl Entry {
    /// Where an editor should go: the value when it starts on the line of its key, otherwise the key.
    #[must_use]
    pub fn place(&self) -> Position {
        if self.node.at.line == self.key_at.line { self.node.at } else { self.key_at }
    }
}
