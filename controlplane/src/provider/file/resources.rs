//! From a document to user resources with their keys: Heddle's own files and APISIX's `apisix.yaml`. It judges the frame, not the resources.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use heddle_node::config::{Data, Document, Entry, Environment, Expansion, Format, Mistake, Mistakes, Node, Position, suggest};
use serde_json::{Map, Value};

use crate::model::{Key, ResourceKind};
use crate::state::Locate;

/// Longest id; ids become metric labels and URLs.
const MAX_ID: usize = 256;
/// Collections of APISIX that are refused with a reason unless they are empty.
const LATER: [&str; 2] = ["stream_routes", "protos"];

/// What a file holds.
pub(super) struct Found {
    /// Resources under their keys as written.
    pub(super) resources: Vec<(Key, Value)>,
    /// Where each stands.
    pub(super) paths: Vec<(Key, String)>,
}

/// Reads the resources of `document`, which become resources of `provider`.
///
/// # Errors
/// All mistakes of the frame: unknown collections, missing or repeated ids, values that are no maps.
pub(super) fn read(document: &Document, provider: &str) -> Result<Found, Mistakes> {
    let mut reader = Reader {
        document,
        provider,
        stem: stem(&document.file),
        found: Found { resources: Vec::new(), paths: Vec::new() },
        seen: HashMap::new(),
        mistakes: Mistakes::default(),
    };
    match &document.root.data {
        Data::Null => {}
        Data::Map(entries) => entries.iter().for_each(|entry| reader.collection(entry)),
        _ => reader.mistake(
            document.root.at,
            "",
            format!("expected a map of collections (routes, upstreams, …), found {}", document.root.kind()),
        ),
    }
    let Reader { found, mistakes, .. } = reader;
    mistakes.or(found)
}

/// The name of the file without folders and extension, in characters that an id may have.
fn stem(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or_default();
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' }).collect()
}

struct Reader<'d> {
    document: &'d Document,
    provider: &'d str,
    stem: String,
    found: Found,
    seen: HashMap<Key, Position>,
    mistakes: Mistakes,
}

/// One resource with what its surroundings say about its id.
struct Item<'d> {
    node: &'d Node,
    at: Position,
    path: String,
    /// The key of the map it stands in.
    name: Option<&'d str>,
    /// Its number in the list it stands in, from one.
    number: usize,
}

impl<'d> Reader<'d> {
    fn mistake(&mut self, at: Position, path: &str, message: impl Into<String>) {
        let file = self.document.file.clone();
        self.mistakes.push(Mistake { file, at, path: path.to_owned(), message: message.into() });
    }

    fn collection(&mut self, entry: &'d Entry) {
        let name = entry.key.as_str();
        let empty = match &entry.node.data {
            Data::Null => true,
            Data::List(items) => items.is_empty(),
            Data::Map(entries) => entries.is_empty(),
            _ => false,
        };
        if let Some(kind) = ResourceKind::from_plural(name) {
            for item in self.items(&entry.node, name, entry.place()) {
                self.resource(kind, item, None);
            }
        } else if LATER.contains(&name) {
            if !empty {
                self.mistake(entry.key_at, name, format!("`{name}` are not supported yet; remove them"));
            }
        } else if name == "plugins" && matches!(entry.node.data, Data::Null | Data::List(_)) {
            // APISIX: which plugins to load. Every plugin of this build is there without asking.
        } else if name.strip_suffix("_conf_version").is_some_and(known) {
            // APISIX: a counter that guards its standalone API. Here every accepted change is a new generation.
        } else {
            let collections = ResourceKind::ALL.map(ResourceKind::plural);
            let meant = match suggest(name, collections) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("expected one of: {}", collections.join(", ")),
            };
            self.mistake(entry.key_at, name, format!("unknown collection; {meant}"));
        }
    }

    /// The members of a collection: a list, or a map by id.
    fn items(&mut self, node: &'d Node, path: &str, at: Position) -> Vec<Item<'d>> {
        match &node.data {
            Data::Null => Vec::new(),
            Data::List(items) => {
                let item = |(i, node): (usize, &'d Node)| Item {
                    node,
                    at: node.at,
                    path: format!("{path}[{i}]"),
                    name: None,
                    number: i + 1,
                };
                items.iter().enumerate().map(item).collect()
            }
            Data::Map(entries) => {
                let item = |(i, entry): (usize, &'d Entry)| Item {
                    node: &entry.node,
                    at: entry.place(),
                    path: format!("{path}[\"{}\"]", entry.key),
                    name: Some(&entry.key),
                    number: i + 1,
                };
                entries.iter().enumerate().map(item).collect()
            }
            _ => {
                self.mistake(
                    at,
                    path,
                    format!("expected a list of resources or a map from id to resource, found {}", node.kind()),
                );
                Vec::new()
            }
        }
    }

    /// Takes one resource. `owner` is the consumer that a nested credential belongs to.
    fn resource(&mut self, kind: ResourceKind, item: Item<'d>, owner: Option<&str>) {
        let Data::Map(entries) = &item.node.data else {
            self.mistake(item.at, &item.path, format!("expected a {} (a map), found {}", kind.singular(), item.node.kind()));
            return;
        };
        let Some(id) = self.id(kind, &item, owner) else { return };
        let credential = kind == ResourceKind::Consumer && id.contains("/credentials/");
        let kind = if credential { ResourceKind::Credential } else { kind };
        let key = Key::new(kind, id.as_str());
        if let Some(first) = self.seen.insert(key.clone(), item.at) {
            self.mistake(item.at, &item.path, format!("{key} is defined twice, first at line {}", first.line));
            return;
        }
        let mut value: Map<String, Value> =
            entries.iter().filter(|entry| entry.key != "id").map(|entry| (entry.key.clone(), entry.node.to_json())).collect();
        if kind == ResourceKind::Consumer {
            self.consumer(&item, &id, &mut value);
        } else {
            let last = id.rsplit('/').next().unwrap_or_default();
            value.insert("id".into(), format!("{last}@{}", self.provider).into());
        }
        self.found.paths.push((key.clone(), item.path));
        self.found.resources.push((key, Value::Object(value)));
    }

    /// A consumer is named by `username`; its credentials may stand inside it.
    fn consumer(&mut self, item: &Item<'d>, id: &str, value: &mut Map<String, Value>) {
        value.entry("username").or_insert_with(|| id.into());
        value.shift_remove("credentials");
        if let Some(entry) = item.node.entry("credentials") {
            let path = format!("{}.credentials", item.path);
            for nested in self.items(&entry.node, &path, entry.place()) {
                self.resource(ResourceKind::Credential, nested, Some(id));
            }
        }
    }

    /// The id: as written, from the map around it, or made up for a resource that needs none.
    fn id(&mut self, kind: ResourceKind, item: &Item<'d>, owner: Option<&str>) -> Option<String> {
        let naming = match kind {
            ResourceKind::Consumer if item.node.get("username").is_some() && !names_credential(item.node) => "username",
            ResourceKind::Listener if item.node.get("id").is_none() => "name",
            _ => "id",
        };
        let written = match item.node.get(naming) {
            Some(node) => match id_text(node) {
                Some(text) => Some(text),
                None => {
                    let path = format!("{}.{naming}", item.path);
                    self.mistake(node.at, &path, format!("expected a string or a whole number, found {}", node.kind()));
                    return None;
                }
            },
            None => None,
        };
        let id = match (written, item.name) {
            (Some(written), Some(name)) if written != name => {
                let message = format!("expected `{naming}` to be the key it stands under (`{name}`), found `{written}`");
                self.mistake(item.at, &item.path, message);
                return None;
            }
            (Some(id), _) => id,
            (None, Some(name)) => name.to_owned(),
            (None, None) if anonymous(kind) => format!("{}-{}-{}", self.stem, kind.plural(), item.number),
            (None, None) => {
                self.mistake(
                    item.at,
                    &item.path,
                    format!("the key `{}` is missing", if kind == ResourceKind::Consumer { "username" } else { naming }),
                );
                return None;
            }
        };
        let id = match owner {
            Some(owner) if !id.contains('/') => format!("{owner}/credentials/{id}"),
            _ => id,
        };
        if let Err(expected) = fits(kind, &id, owner) {
            self.mistake(item.at, &item.path, format!("expected {expected}, found the id `{}`", id.escape_debug()));
            return None;
        }
        Some(id)
    }
}

/// Whether a member of `consumers` is a credential, as APISIX writes it there.
fn names_credential(node: &Node) -> bool {
    node.get("id").and_then(id_text).is_some_and(|id| id.contains("/credentials/"))
}

fn id_text(node: &Node) -> Option<String> {
    match &node.data {
        Data::String(text) => Some(text.clone()),
        Data::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    }
}

/// Kinds that APISIX gives a number when they have no id, as nothing needs to refer to them.
fn anonymous(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Route | ResourceKind::Service | ResourceKind::Upstream | ResourceKind::Ssl | ResourceKind::GlobalRule
    )
}

/// Whether an id has the form that its kind demands, or what that form is.
fn fits(kind: ResourceKind, id: &str, owner: Option<&str>) -> Result<(), String> {
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= MAX_ID
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let parts: Vec<&str> = id.split('/').collect();
    let credential = matches!(&parts[..], [user, "credentials", id] if plain(user) && plain(id));
    match (kind, &parts[..]) {
        (ResourceKind::Credential, [user, ..]) if credential && owner.is_none_or(|owner| owner == *user) => Ok(()),
        (ResourceKind::Credential, _) => Err("an id `USERNAME/credentials/ID`".into()),
        (ResourceKind::Consumer, _) if credential => Ok(()),
        (ResourceKind::Secret, [manager, id]) if plain(manager) && plain(id) => Ok(()),
        (ResourceKind::Secret, _) => Err("an id `MANAGER/ID` (vault/1)".into()),
        (_, [id]) if plain(id) => Ok(()),
        _ => Err(format!(
            "an id of at most {MAX_ID} letters, digits, `-`, `_` and `.` (`@` and the provider are added by themselves)"
        )),
    }
}

fn known(name: &str) -> bool {
    ResourceKind::from_plural(name).is_some() || LATER.contains(&name) || name == "plugins"
}

/// The places of a file's resources. Only its text is kept, which is parsed again in the rare case that somebody asks: the tree with all its
/// positions is many times as large, and most files have no faults.
pub(super) struct FilePlaces {
    source: Source,
    parsed: OnceLock<Option<Parsed>>,
}

/// A file as it was read.
pub(super) struct Source {
    /// Its name, for messages.
    pub(super) file: String,
    /// Its bytes.
    pub(super) text: Vec<u8>,
    /// How to read them.
    pub(super) format: Format,
    /// Variables.
    pub(super) environment: Arc<dyn Environment + Send + Sync>,
    /// Name of the provider.
    pub(super) provider: Arc<str>,
}

struct Parsed {
    document: Document,
    paths: HashMap<Key, String>,
}

impl Source {
    /// The document and what it holds.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub(super) fn parse(&self) -> Result<(Document, Found), Mistakes> {
        let document = Document::parse(&self.file, &self.text, self.format, Expansion::DoubleBraces(&*self.environment))?;
        let found = read(&document, &self.provider)?;
        Ok((document, found))
    }
}

impl FilePlaces {
    pub(super) fn new(source: Source) -> Arc<FilePlaces> {
        Arc::new(FilePlaces { source, parsed: OnceLock::new() })
    }

    fn parsed(&self) -> Option<&Parsed> {
        let parse =
            || self.source.parse().ok().map(|(document, found)| Parsed { document, paths: found.paths.into_iter().collect() });
        self.parsed.get_or_init(parse).as_ref()
    }
}

impl Locate for FilePlaces {
    fn place(&self, key: &Key, path: &str) -> Option<String> {
        let Parsed { document, paths } = self.parsed()?;
        let prefix = paths.get(key)?;
        let joint = if path.is_empty() || path.starts_with('[') { "" } else { "." };
        Some(format!("{}:{}", document.file, document.locate(&format!("{prefix}{joint}{path}"))))
    }
}
