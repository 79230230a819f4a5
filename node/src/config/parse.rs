//! From text to a tree, bounded against documents made to exhaust memory. It does not know what the values mean.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::expand::{Expansion, expand};
use super::mistake::{Mistake, Mistakes};
use super::scalar;
use super::tree::{Data, Document, Entry, Node, Position};

/// Largest document in bytes; also bounds the text of all values with aliases repeated.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 20;
/// Deepest nesting of lists and maps: far beyond any real resource, far below what could exhaust a stack.
pub const MAX_DEPTH: usize = 64;
/// Most values of one document, aliases counted as often as they are used (100,000 routes of twenty values).
pub const MAX_NODES: usize = 2_000_000;
/// Longest key in characters that does not follow a `?`.
const MAX_KEY: usize = 8_192;
/// From this many keys on, a map looks for repeated keys by hash.
const HASHED_KEYS: usize = 16;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, core schema, merge keys (`<<`) understood.
    Yaml,
    /// JSON (RFC 8259).
    Json,
}

impl Format {
    /// By the extension of a file (`yaml`, `yml`, `json`); `None` for others.
    #[must_use]
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Format::Yaml),
            "json" => Some(Format::Json),
            _ => None,
        }
    }
}

/// Parses a document.
pub(super) fn parse(file: &str, text: &[u8], format: Format, expansion: Expansion<'_>) -> Result<Document, Mistakes> {
    let file: Arc<str> = file.into();
    let fail = |at, message: String| Mistakes::one(Mistake { file: file.clone(), at, path: String::new(), message });
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(fail(start, format!("expected at most {MAX_DOCUMENT_BYTES} bytes, found {}", text.len())));
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let at = position_of(&String::from_utf8_lossy(&text[..error.valid_up_to()]));
            return Err(fail(at, "expected UTF-8 text, found other bytes".into()));
        }
    };
    if format == Format::Json
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        let at = Position { line: small(error.line().max(1)), column: small(error.column().max(1)) };
        return Err(fail(at, format!("expected JSON: {error}")));
    }
    let mut builder = Builder::new(file.clone(), text, expansion);
    match builder.document() {
        Ok(root) => builder.mistakes.or(Document { file, root }),
        Err(Stop { at, message }) => Err(fail(at, message)),
    }
}

/// The place after `text`.
fn position_of(text: &str) -> Position {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position { line: small(line), column: small(column) }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Parsing cannot go on.
struct Stop {
    at: Position,
    message: String,
}

impl Stop {
    fn new(at: Position, message: impl Into<String>) -> Stop {
        Stop { at, message: message.into() }
    }
}

struct Builder<'t> {
    file: Arc<str>,
    text: &'t str,
    events: Parser<'t, StrInput<'t>>,
    expansion: Expansion<'t>,
    anchors: HashMap<usize, Node>,
    nodes_left: usize,
    bytes_left: usize,
    /// Faulty variables: the parser goes on, so that all are found.
    mistakes: Mistakes,
}

impl<'t> Builder<'t> {
    fn new(file: Arc<str>, text: &'t str, expansion: Expansion<'t>) -> Builder<'t> {
        let options = granit_parser::options! {
            emit_comments: false,
            simple_key_max_lookahead: MAX_KEY,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        Builder {
            file,
            text,
            events: Parser::new_from_str_with_options(text, options),
            expansion,
            anchors: HashMap::new(),
            nodes_left: MAX_NODES,
            bytes_left: MAX_DOCUMENT_BYTES,
            mistakes: Mistakes::default(),
        }
    }

    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    return Err(Stop::new(at, "expected one document, found another after `---`"));
                }
                Event::DocumentStart(..) => root = Some(Node { at, data: Data::Null }),
                event => root = Some(self.node(event, at, 0)?),
            }
        }
        Ok(root.unwrap_or(Node { at: Position { line: 1, column: 1 }, data: Data::Null }))
    }

    fn next(&mut self) -> Result<(Event<'t>, Position), Stop> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, start_of(&span))),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Position::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Stop {
        let mark = error.marker();
        let line = self.text.lines().nth(mark.line().saturating_sub(1)).unwrap_or_default();
        let hint = if line.contains("${") { "; inside { } and [ ] a variable must be quoted: \"${NAME}\"" } else { "" };
        let at = Position { line: small(mark.line().max(1)), column: small(mark.col() + 1) };
        Stop::new(at, format!("expected YAML: {}{hint}", error.info()))
    }

    fn node(&mut self, event: Event<'t>, at: Position, depth: usize) -> Result<Node, Stop> {
        self.charge(at, 1, 0)?;
        let (data, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(at, 0, text.len())?;
                let tag = tag.as_deref().map(|tag| tag.core_suffix().ok_or_else(|| tag.original()));
                (self.scalar(&text, style, tag, at)?, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", at)?;
                (self.list(at, depth + 1)?, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                collection_tag(tag.as_deref(), "map", at)?;
                (self.map(at, depth + 1)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, at),
            _ => return Err(Stop::new(at, "expected a value")),
        };
        let node = Node { at, data };
        if anchor != 0 {
            self.charge_copy(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<Node, Stop> {
        let Some(node) = self.anchors.remove(&anchor) else {
            return Err(Stop::new(at, "expected an alias of an earlier value, found one that contains itself"));
        };
        self.charge_copy(&node)?;
        let copy = Node { at, data: node.data.clone() };
        self.anchors.insert(anchor, node);
        Ok(copy)
    }

    fn list(&mut self, at: Position, depth: usize) -> Result<Data, Stop> {
        deep(at, depth)?;
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Data::List(items));
            }
            items.push(self.node(event, at, depth)?);
        }
    }

    fn map(&mut self, at: Position, depth: usize) -> Result<Data, Stop> {
        deep(at, depth)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let (event, key_at) = self.next()?;
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event, key_at)?;
            let (event, at) = self.next()?;
            let node = self.node(event, at, depth)?;
            if is_merge {
                merge_sources(node, &mut merged)?;
                continue;
            }
            if let Some(first) = repeated(&entries, &mut seen, &key) {
                return Err(Stop::new(key_at, format!("the key `{key}` is given twice, first at line {}", first.key_at.line)));
            }
            entries.push(Entry { key, key_at, node });
        }
        if !merged.is_empty() {
            let mut have: HashSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            entries.extend(merged.into_iter().filter(|entry| have.insert(entry.key.clone())));
        }
        Ok(Data::Map(entries))
    }

    fn key(&mut self, event: Event<'t>, at: Position) -> Result<String, Stop> {
        self.charge(at, 1, 0)?;
        let text = match event {
            Event::Scalar(text, ..) => text.into_owned(),
            Event::Alias(anchor) => match self.alias(anchor, at)?.data {
                Data::String(text) => text,
                _ => return Err(Stop::new(at, "expected a string as key, found an alias of something else")),
            },
            _ => return Err(Stop::new(at, "expected a string as key, found a list or map")),
        };
        self.charge(at, 0, text.len())?;
        Ok(self.expanded(&text, at)?.into_owned())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<Result<&str, String>>, at: Position) -> Result<Data, Stop> {
        let text = self.expanded(text, at)?;
        let plain = match tag {
            None => style == ScalarStyle::Plain,
            Some(Ok("str")) => false,
            Some(Ok("int" | "float" | "bool" | "null")) => true,
            Some(Ok(tag)) => return Err(Stop::new(at, format!("expected a value that fits its tag `!!{tag}`"))),
            Some(Err(tag)) => return Err(Stop::new(at, format!("expected no tag of that name, found `{tag}`"))),
        };
        if !plain {
            return Ok(Data::String(text.into_owned()));
        }
        let unspeakable = || Stop::new(at, format!("expected a finite number, found `{text}`"));
        scalar::resolve(&text).ok_or_else(unspeakable)
    }

    fn expanded<'s>(&mut self, text: &'s str, at: Position) -> Result<std::borrow::Cow<'s, str>, Stop> {
        match expand(text, self.expansion) {
            Ok(expanded) => {
                self.charge(at, 0, expanded.len().saturating_sub(text.len()))?;
                Ok(expanded)
            }
            Err(message) => {
                self.mistakes.push(Mistake { file: self.file.clone(), at, path: String::new(), message });
                Ok(text.into())
            }
        }
    }

    fn charge(&mut self, at: Position, nodes: usize, bytes: usize) -> Result<(), Stop> {
        let left = self.nodes_left.checked_sub(nodes).zip(self.bytes_left.checked_sub(bytes));
        let Some((nodes_left, bytes_left)) = left else {
            let limit =
                format!("{MAX_NODES} values and {MAX_DOCUMENT_BYTES} bytes of text, aliases counted as often as they are used");
            return Err(Stop::new(at, format!("expected at most {limit}, found more")));
        };
        (self.nodes_left, self.bytes_left) = (nodes_left, bytes_left);
        Ok(())
    }

    /// Charges a copy of `node` before it is made.
    fn charge_copy(&mut self, node: &Node) -> Result<(), Stop> {
        match &node.data {
            Data::String(text) => self.charge(node.at, 1, text.len()),
            Data::List(items) => {
                self.charge(node.at, 1, 0)?;
                items.iter().try_for_each(|item| self.charge_copy(item))
            }
            Data::Map(entries) => {
                self.charge(node.at, 1, 0)?;
                entries.iter().try_for_each(|entry| {
                    self.charge(entry.key_at, 1, entry.key.len())?;
                    self.charge_copy(&entry.node)
                })
            }
            Data::Null | Data::Bool(_) | Data::Number(_) => self.charge(node.at, 1, 0),
        }
    }
}

fn start_of(span: &Span) -> Position {
    Position { line: small(span.start.line().max(1)), column: small(span.start.col() + 1) }
}

fn deep(at: Position, depth: usize) -> Result<(), Stop> {
    if depth > MAX_DEPTH {
        Err(Stop::new(at, format!("expected at most {MAX_DEPTH} levels of nesting, found more")))
    } else {
        Ok(())
    }
}

fn collection_tag(tag: Option<&granit_parser::Tag>, expected: &str, at: Position) -> Result<(), Stop> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(expected) => {
            Err(Stop::new(at, format!("expected no tag of that name, found `{}`", tag.original())))
        }
        _ => Ok(()),
    }
}

/// What `<<` brings in: the entries of a map, or of several maps, the earlier ones first.
fn merge_sources(node: Node, merged: &mut Vec<Entry>) -> Result<(), Stop> {
    match node.data {
        Data::Map(entries) => merged.extend(entries),
        Data::List(items) if items.iter().all(|item| matches!(item.data, Data::Map(_))) => {
            items.into_iter().try_for_each(|item| merge_sources(item, merged))?;
        }
        _ => return Err(Stop::new(node.at, "expected a map or a list of maps after `<<`")),
    }
    Ok(())
}

/// The entry that has `key` already.
fn repeated<'e>(entries: &'e [Entry], seen: &mut HashSet<String>, key: &str) -> Option<&'e Entry> {
    if entries.len() >= HASHED_KEYS {
        if seen.is_empty() {
            seen.extend(entries.iter().map(|entry| entry.key.clone()));
        }
        if seen.insert(key.to_owned()) {
            return None;
        }
    }
    entries.iter().find(|entry| entry.key == key)
}
