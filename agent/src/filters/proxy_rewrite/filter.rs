//! The filter of `proxy-rewrite`.

use std::sync::Arc;

use heddle_xds::model::PathPolicy;
use serde_json::Value;
use smallvec::SmallVec;

use super::super::check::Faults;
use super::super::fields::{FieldValue, HeaderEdits};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::prefix::Prefixes;
use crate::exchange::pattern::Pattern;
use crate::exchange::{Answer, Exchange, Reason, Template, path};
use crate::http::{FieldName, Method};

struct ProxyRewrite {
    prefixes: Prefixes,
    original_path: Option<FieldName>,
    target: Target,
    method: Option<Method>,
    host: Option<FieldValue>,
    headers: HeaderEdits,
}

/// How the path changes.
enum Target {
    Keep,
    /// Always the same path and query.
    Fixed(Box<str>, Option<Box<str>>),
    Template(Template),
    /// The first pattern that is found.
    Regex(Vec<(Pattern, Template)>),
}

/// What variables put into a path keeps its encoding; dot segments are removed all the same.
const POLICY: PathPolicy = PathPolicy { reject_encoded_slashes: false, merge_slashes: false, drop_underscore_headers: false };

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let headers = HeaderEdits::compile(&config.headers, "headers", &mut faults);
    let target = match (config.uri, config.regex_uri) {
        (Some(uri), _) => fixed_or_template(&uri),
        (None, Some(pairs)) => Target::Regex(compile_pairs(&pairs, &mut faults)),
        (None, None) => Target::Keep,
    };
    let prefixes = Prefixes::new(config.strip_prefixes, &config.strip_prefixes_regex, config.add_prefix, &mut faults);
    faults.into_result()?;
    Ok(Arc::new(ProxyRewrite {
        prefixes,
        original_path: config.original_path_header.map(FieldName::new),
        target,
        method: config.method.map(|method| Method::from_token(&method.token())),
        host: config.host.as_deref().map(FieldValue::new),
        headers,
    }))
}

fn fixed_or_template(uri: &str) -> Target {
    let template = Template::new(uri);
    let Some(text) = template.literal() else { return Target::Template(template) };
    let (new_path, query) = split(text);
    match normalised(new_path) {
        Ok(path) => Target::Fixed(path.into(), query.map(Into::into)),
        Err(_) => Target::Template(template),
    }
}

fn compile_pairs(pairs: &[String], faults: &mut Faults) -> Vec<(Pattern, Template)> {
    let mut compiled = Vec::with_capacity(pairs.len() / 2);
    for (index, pair) in pairs.chunks_exact(2).enumerate() {
        match Pattern::new(&pair[0]) {
            Ok(regex) => compiled.push((regex, Template::replacement(&pair[1]))),
            Err(error) => faults.add(format!("regex_uri[{}]", index * 2), error),
        }
    }
    compiled
}

impl Filter for ProxyRewrite {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if let Err(reason) = self.prefixes.strip(x) {
            return Flow::Answer(Box::new(Answer::of(reason)));
        }
        let host = match &self.target {
            Target::Keep => self.headers.apply_to_request(x, &[]),
            target => match self.retarget(target, x) {
                Ok(host) => host,
                Err(reason) => return Flow::Answer(Box::new(Answer::of(reason))),
            },
        };
        if let Err(reason) = self.prefixes.add(x) {
            return Flow::Answer(Box::new(Answer::of(reason)));
        }
        if let Some(method) = &self.method {
            x.request.method = method.clone();
        }
        let host = self.host.as_ref().map(|host| host.get(x, &[])).or(host);
        if let Some(host) = host.filter(|host| !host.is_empty()) {
            x.host_override = Some(host);
        }
        Flow::Continue
    }
}

impl ProxyRewrite {
    /// Changes the path, then the fields, which may show what was captured in the old one; gives the new host, where fields say one.
    fn retarget(&self, target: &Target, x: &mut Exchange) -> Result<Option<String>, Reason> {
        let before = std::mem::take(&mut x.request.path);
        let mut captures: SmallVec<[&str; 10]> = SmallVec::new();
        let set = match target {
            Target::Keep => None,
            Target::Fixed(path, query) => {
                x.request.path.push_str(path);
                add_query(x, query.as_deref());
                Some(Ok(()))
            }
            Target::Template(template) => {
                let mut text = String::new();
                template.render_mapped(x, &[], &mut text, escape);
                Some(set_target(x, text))
            }
            Target::Regex(pairs) => substitute(pairs, &before, &mut captures, x).map(|text| set_target(x, text)),
        };
        if let Some(name) = self.original_path.as_ref().filter(|_| set.is_some()) {
            x.request.fields.set_named(name, &before);
        }
        let host = self.headers.apply_to_request(x, &captures);
        drop(captures);
        match set {
            Some(set) => set?,
            None => x.request.path = before,
        }
        Ok(host)
    }
}

/// The path with the first match of the first pattern found replaced; its captures are kept for the fields.
fn substitute<'a>(
    pairs: &[(Pattern, Template)],
    path: &'a str,
    captures: &mut SmallVec<[&'a str; 10]>,
    x: &Exchange,
) -> Option<String> {
    let (found, template) = pairs.iter().find_map(|(regex, template)| Some((regex.captures(path)?, template)))?;
    captures.extend((0..found.len()).map(|index| found.get(index).map_or("", |capture| capture.as_str())));
    let whole = found.get(0)?;
    let mut text = path[..whole.start()].to_owned();
    template.render_mapped(x, captures, &mut text, escape);
    text.push_str(&path[whole.end()..]);
    Some(text)
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// Takes path and query out of a text that was put together.
fn set_target(x: &mut Exchange, text: String) -> Result<(), Reason> {
    let (new_path, query) = split(&text);
    x.request.path = normalised(new_path)?;
    add_query(x, query);
    Ok(())
}

/// The path as it may go upstream: rooted, encoded, without dot segments.
pub(super) fn normalised(text: &str) -> Result<String, Reason> {
    let mut rooted = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        rooted.push('/');
    }
    escape(text, &mut rooted);
    Ok(path::normalise(&rooted, &POLICY)?.unwrap_or(rooted))
}

/// Puts a query before the client's.
fn add_query(x: &mut Exchange, query: Option<&str>) {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return };
    x.request.query = Some(match x.request.query.take() {
        Some(old) if !old.is_empty() => format!("{query}&{old}"),
        _ => query.to_owned(),
    });
}

/// Keeps what a variable stands for from starting a query or a fragment, or from holding what no path may hold.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            0x21..0x7f if !matches!(byte, b'?' | b'#' | b'\\') => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}
