//! What the body of a request says, for variables (`post_arg_*`, `post_arg.*`, `graphql_*`): kept when a filter needs it, and parsed when it is asked
//! about. It knows no filters.

mod form;
mod graphql;
mod multipart;
mod path;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;

use bytes::Bytes;
use serde_json::Value;

use super::{Exchange, Reason};
use crate::http::{Method, Name, RequestHead};

pub use form::{decoded, form};
pub use graphql::Operation;
pub use path::JsonPath;

/// Most bytes of a body that variables are taken from (413 above). Bodies of other types than those that variables know are not read.
pub const LIMIT: u64 = 1024 * 1024;
/// Most arguments of a form, and parts of a multipart body.
pub const MAX_ARGS: usize = 10_000;

const SLOT: &str = "content";

/// The body of a request as variables see it.
pub struct Content {
    kind: Kind,
    bytes: Bytes,
    document: OnceCell<Option<Value>>,
    operation: OnceCell<Option<Operation>>,
}

/// The types of bodies that variables know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None of them, or no body.
    Other,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`, or a type that ends in `+json`.
    Json,
    /// `multipart/form-data`.
    Multipart,
    /// `application/graphql`.
    Graphql,
}

impl Kind {
    /// The type that `Content-Type` names.
    pub fn of(head: &RequestHead) -> Kind {
        let Some(text) = head.fields.get_known(Name::ContentType) else { return Kind::Other };
        let essence = text.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| essence.eq_ignore_ascii_case(name.as_bytes());
        let ends = |end: &[u8]| essence.len().checked_sub(end.len()).is_some_and(|at| essence[at..].eq_ignore_ascii_case(end));
        if is("application/x-www-form-urlencoded") {
            Kind::Form
        } else if is("application/json") || ends(b"+json") {
            Kind::Json
        } else if is("multipart/form-data") {
            Kind::Multipart
        } else if is("application/graphql") {
            Kind::Graphql
        } else {
            Kind::Other
        }
    }
}

/// Whether a variable of this name, without `$`, is taken from the body.
pub fn is_named(name: &str) -> bool {
    name.starts_with("post_arg_") || name.starts_with("post_arg.") || Operation::is_named(name)
}

/// Whether a configuration mentions a variable that is taken from the body: as a text of its own or behind a `$`.
pub fn is_mentioned(config: &Value) -> bool {
    match config {
        Value::String(text) => {
            let behind = |part: &str| is_named(part.strip_prefix('{').unwrap_or(part));
            is_named(text) || text.split('$').skip(1).any(behind)
        }
        Value::Array(items) => items.iter().any(is_mentioned),
        Value::Object(object) => object.values().any(is_mentioned),
        _ => false,
    }
}

impl Content {
    /// The document that the body is: that of JSON, an object of texts for a form.
    pub fn document(&self) -> Option<&Value> {
        let parse = || match self.kind {
            Kind::Json => serde_json::from_slice(&self.bytes).ok(),
            Kind::Form => form(&self.bytes).ok(),
            Kind::Multipart => multipart::parse(&self.bytes),
            Kind::Graphql | Kind::Other => None,
        };
        self.document.get_or_init(parse).as_ref()
    }

    /// The document of a body that is a form.
    pub fn form(&self) -> Option<&Value> {
        if self.kind == Kind::Form { self.document() } else { None }
    }

    /// The document, to change what is told about it later.
    pub fn document_mut(&mut self) -> Option<&mut Value> {
        self.document();
        self.operation.take();
        self.document.get_mut()?.as_mut()
    }

    /// The type of the body.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets the body.
    pub fn forget(&mut self) {
        *self = Content::new(Kind::Other, Bytes::new());
    }

    fn new(kind: Kind, bytes: Bytes) -> Content {
        Content { kind, bytes, document: OnceCell::new(), operation: OnceCell::new() }
    }

    fn operation(&self, head: &RequestHead) -> Option<&Operation> {
        let parse = || match self.kind {
            _ if head.method != Method::Post => Operation::parse(&decoded(head.query_arg("query")?.as_bytes())),
            Kind::Json => Operation::parse(self.document()?.get("query")?.as_str()?),
            Kind::Graphql => Operation::parse(std::str::from_utf8(&self.bytes).ok()?),
            Kind::Form | Kind::Multipart | Kind::Other => None,
        };
        self.operation.get_or_init(parse).as_ref()
    }
}

impl Exchange {
    /// Reads the body and keeps it for variables, once, when it is of a type that they know; it still goes upstream.
    ///
    /// # Errors
    /// Why the request ends.
    pub async fn keep_content(&mut self) -> Result<(), Reason> {
        if self.content().is_some() {
            return Ok(());
        }
        let kind = if self.body.is_empty() { Kind::Other } else { Kind::of(&self.request) };
        let bytes = if kind == Kind::Other { Bytes::new() } else { self.read_body(LIMIT).await? };
        self.put(SLOT, Content::new(kind, bytes));
        Ok(())
    }

    /// The body, when it has been kept.
    pub fn content(&self) -> Option<&Content> {
        self.slot(SLOT)
    }

    /// The body, when it has been kept, to change what is told about it.
    pub fn content_mut(&mut self) -> Option<&mut Content> {
        self.slot_mut(SLOT)
    }

    /// The GraphQL operation that the request asks for, when its body has been kept.
    pub fn operation(&self) -> Option<&Operation> {
        self.content()?.operation(&self.request)
    }
}
