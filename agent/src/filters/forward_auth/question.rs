//! What the deciding service is asked: compiled once, put together from a request. It sends nothing.

use bytes::Bytes;
use serde_json::Value;

use super::super::asking::{Names, stays};
use super::super::fields::FieldValue;
use super::config::{Config, RequestMethod};
use super::post_arg;
use crate::exchange::{Exchange, Variable};
use crate::http::{FieldName, Fields, Method, Name};
use crate::outbound::Call;

const METHOD: FieldName = FieldName::of("X-Forwarded-Method");
const URI: FieldName = FieldName::of("X-Forwarded-Uri");

/// What is asked.
pub(super) struct Question {
    method: Method,
    preserve_method: bool,
    pub(super) forward_body: bool,
    trust_forwarded: bool,
    copied: Names,
    extra: Vec<(FieldName, Extra)>,
    uri: Variable,
    address: Variable,
}

/// The value of a field that is made for the service.
enum Extra {
    Value(FieldValue),
    PostArg(String),
}

impl Question {
    /// Compiles it.
    pub(super) fn new(config: &Config) -> Question {
        let method = if config.request_method == RequestMethod::Post { Method::Post } else { Method::Get };
        let extra = |(name, value): (&String, &Value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let extra = match text.strip_prefix("$post_arg.").or_else(|| text.strip_prefix("$post_arg_")) {
                Some(argument) => Extra::PostArg(argument.to_owned()),
                None => Extra::Value(FieldValue::new(&text)),
            };
            (FieldName::new(name.clone()), extra)
        };
        Question {
            forward_body: config.forward_body.unwrap_or(method == Method::Post),
            method,
            preserve_method: config.preserve_request_method,
            trust_forwarded: config.trust_forward_header,
            copied: Names::new(&config.request_headers),
            extra: config.extra_headers.iter().map(extra).collect(),
            uri: Variable::new("request_uri"),
            address: Variable::new("remote_addr"),
        }
    }

    /// Whether the body must be read before it can be asked.
    pub(super) fn wants_body(&self) -> bool {
        self.forward_body || self.extra.iter().any(|(_, extra)| matches!(extra, Extra::PostArg(_)))
    }

    /// Puts it together.
    pub(super) fn ask(&self, x: &Exchange, body: Bytes) -> Call {
        let mut fields = Fields::new();
        self.forwarded(x, &mut fields);
        for (name, extra) in &self.extra {
            let value = match extra {
                Extra::Value(value) => value.get(x, &[]),
                Extra::PostArg(argument) => {
                    let kind = x.request.fields.get_str("content-type").unwrap_or_default();
                    let found = post_arg::find(kind, &body, argument).unwrap_or_default();
                    found.chars().filter(|c| !c.is_control()).collect()
                }
            };
            if !value.is_empty() {
                fields.set_named(name, value);
            }
        }
        self.copy(x, &mut fields);
        let method = if self.preserve_method { x.request.method.clone() } else { self.method.clone() };
        Call { method, target: String::new(), fields, body: if self.forward_body { body } else { Bytes::new() } }
    }

    /// `X-Forwarded-*`: who asks us for what.
    fn forwarded(&self, x: &Exchange, fields: &mut Fields) {
        let uri = self.uri.get(x).unwrap_or_default();
        let address = self.address.get(x).unwrap_or_default();
        let own = [
            (&FieldName::of("X-Forwarded-Proto"), x.scheme()),
            (&METHOD, x.original.method.as_str()),
            (&FieldName::of("X-Forwarded-Host"), x.request.authority.as_str()),
            (&URI, &*uri),
            (&FieldName::of("X-Forwarded-For"), &*address),
        ];
        for (name, value) in own {
            match x.request.fields.get_named(name).filter(|_| self.trust_forwarded) {
                Some(claimed) => fields.append_named(name, claimed),
                None => fields.append_named(name, value),
            }
        }
    }

    /// Fields of the request; what stands there already is ours and stays.
    fn copy(&self, x: &Exchange, fields: &mut Fields) {
        let from = &x.request.fields;
        if self.copied.all {
            let made = fields.clone();
            for field in from.iter().filter(|field| !stays(field.id)) {
                let known = std::str::from_utf8(field.name).is_ok_and(|name| made.get(name).is_some());
                if !known {
                    fields.push(field.id, field.name, field.value);
                }
            }
        }
        for name in &self.copied.listed {
            if name.id() == Name::Host {
                fields.set_known(Name::Host, &x.request.authority);
            } else if !stays(name.id()) && fields.get_named(name).is_none() {
                from.get_all_named(name).for_each(|value| fields.append_named(name, value));
            }
        }
        if self.forward_body {
            for id in [Name::ContentType, Name::ContentEncoding] {
                if let Some(value) = from.get_known(id).filter(|_| !fields.contains_known(id)) {
                    fields.append_known(id, value);
                }
            }
        }
    }
}
