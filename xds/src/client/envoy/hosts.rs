//! How virtual hosts are called among our routes, which of their domains are found by name, which server names lead to them, and what becomes of ports behind
//! names. It knows no route.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::dialect::envoy::decode::piece::{Deed, VirtualHost};
use crate::dialect::envoy::decode::{AUTHORITY, escaped};

/// What virtual hosts are called among the routes: several may have one name, since only their domains must differ.
pub(super) fn names_of(hosts: &[VirtualHost]) -> Vec<Cow<'_, str>> {
    let mut times: HashMap<&str, usize> = HashMap::new();
    let name = |host: &VirtualHost, time: usize| if time == 1 { None } else { Some(format!("{}#{time}", host.name)) };
    let mut names = Vec::with_capacity(hosts.len());
    for host in hosts {
        let time = times.entry(&host.name).or_default();
        *time += 1;
        names.push(name(host, *time).map_or(Cow::Borrowed(&*host.name), Cow::Owned));
    }
    names
}

/// Whether a domain is one that our tables do not find by name.
pub(super) fn is_open(domain: &str) -> bool {
    domain.ends_with('*')
}

pub(super) fn has_port(domain: &str) -> bool {
    domain.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What says the host of a request with its port, or with some ports.
const WITH_PORT: [&str; 3] = ["${http_host}", "${host_leaving_http}", "${host_leaving_https}"];

/// The host of a request loses its port for all that a route does: where it is sent on, and where the client is sent.
pub(super) fn without_port(plugins: &mut Deed, forwards: bool) {
    let strip = |text: &mut Value| {
        if let Value::String(text) = text {
            *text = WITH_PORT.iter().fold(std::mem::take(text), |text, host| text.replace(host, "${host}"));
        }
    };
    for (_, config) in plugins.iter_mut().filter(|(name, _)| *name == "redirect") {
        config.get_mut("uri").into_iter().for_each(strip);
        config.get_mut("regex_uri").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    }
    for (_, config) in plugins.iter_mut() {
        *config = asked_without_port(config.take());
    }
    if !forwards {
        return;
    }
    match plugins.iter_mut().find(|(name, _)| *name == "proxy-rewrite") {
        Some((_, Value::Object(rewrite))) => drop(rewrite.entry("host").or_insert_with(|| json!("${host}"))),
        _ => plugins.push(("proxy-rewrite", json!({"host": "${host}"}))),
    }
}

/// What conditions on a host ask by.
const ASKING: [&str; 6] = ["==", "~=", "~~", "~*", "!", "between"];

/// What is asked about the host of a request, asked without its port.
pub(super) fn asked_without_port(asked: Value) -> Value {
    match asked {
        Value::Array(mut parts) => {
            if parts.len() > 2 && parts[0] == AUTHORITY && parts[1].as_str().is_some_and(|operator| ASKING.contains(&operator)) {
                parts[0] = "host".into();
                return Value::Array(parts);
            }
            parts.into_iter().map(asked_without_port).collect()
        }
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, asked_without_port(value))).collect(),
        other => other,
    }
}

/// Conditions under which a connection is one of a chain for the names `own`, beside chains for `others`: of all names that fit, the most telling one decides, whatever else
/// its chain is for.
pub(super) fn conditions(own: &[Arc<str>], others: &[&Arc<str>]) -> Vec<Value> {
    let is = |names: &[&Arc<str>]| json!(["ssl_server_name", "~*", pattern(names)]);
    let is_not = |names: &[&Arc<str>]| json!(["ssl_server_name", "!", "~*", pattern(names)]);
    if own.is_empty() {
        return if others.is_empty() { Vec::new() } else { vec![is_not(others)] };
    }
    let told = own.iter().map(|name| (name, others.iter().copied().filter(|other| is_within(other, name)).collect::<Vec<_>>()));
    let (whole, cut): (Vec<_>, Vec<_>) = told.partition(|(_, narrower)| narrower.is_empty());
    let mut ways: Vec<Vec<Value>> = cut.into_iter().map(|(name, narrower)| vec![is(&[name]), is_not(&narrower)]).collect();
    if !whole.is_empty() {
        ways.push(vec![is(&whole.into_iter().map(|(name, _)| name).collect::<Vec<_>>())]);
    }
    if ways.len() == 1 {
        return ways.remove(0);
    }
    vec![std::iter::once(json!("OR")).chain(ways.into_iter().map(Value::from)).collect()]
}

/// Whether a name says more than another one, and is among those that fit it.
fn is_within(narrow: &str, wide: &str) -> bool {
    narrow != wide && wide.strip_prefix('*').is_some_and(|suffix| narrow.len() > suffix.len() && narrow.ends_with(suffix))
}

fn pattern(names: &[&Arc<str>]) -> String {
    let one = |name: &&Arc<str>| match name.strip_prefix('*') {
        Some(suffix) => format!(".+{}", escaped(suffix)),
        None => escaped(name),
    };
    format!("^(?:{})$", names.iter().map(one).collect::<Vec<_>>().join("|"))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What our routes make of conditions on the server name.
    pub(in super::super) fn holds(condition: &Value, name: Option<&str>) -> bool {
        let items = condition.as_array().unwrap();
        let words: Vec<&str> = items.iter().map_while(Value::as_str).collect();
        match words[..] {
            ["ssl_server_name", "~*", pattern] => name.is_some_and(|name| regex::Regex::new(pattern).unwrap().is_match(name)),
            ["ssl_server_name", "!", "~*", pattern] => !holds(&json!(["ssl_server_name", "~*", pattern]), name),
            ["OR"] => items[1..].iter().any(|item| holds(item, name)),
            ["listener", "==", _] => true,
            [] => items.iter().all(|item| holds(item, name)),
            _ => panic!("{condition}"),
        }
    }

    /// The chain of a name as Envoy looks for it: the name itself, then what stands behind each of its dots, then that of no names.
    fn looked_for(chains: &[Vec<Arc<str>>], name: Option<&str>) -> Option<usize> {
        let has = |wanted: &str| chains.iter().position(|names| names.iter().any(|own| **own == *wanted));
        let exact = name.and_then(has);
        let suffixes = name.unwrap_or_default().match_indices('.').map(|(at, _)| format!("*{}", &name.unwrap_or_default()[at..]));
        exact.or_else(|| suffixes.into_iter().find_map(|suffix| has(&suffix))).or_else(|| chains.iter().position(Vec::is_empty))
    }

    fn chosen(chains: &[Vec<Arc<str>>], name: Option<&str>) -> Vec<usize> {
        let fits = |at: &usize| {
            let others: Vec<&Arc<str>> =
                chains.iter().enumerate().filter(|(other, _)| other != at).flat_map(|(_, names)| names).collect();
            holds(&Value::from(conditions(&chains[*at], &others)), name)
        };
        (0..chains.len()).filter(fits).collect()
    }

    fn chains(names: &[&[&str]]) -> Vec<Vec<Arc<str>>> {
        names.iter().map(|names| names.iter().map(|name| Arc::from(*name)).collect()).collect()
    }

    #[test]
    fn a_name_belongs_to_the_chain_that_says_most_about_it_whatever_else_that_is_for() {
        let all = chains(&[
            &["*.b.example", "very-long.other.example"],
            &["a.b.example"],
            &["*.example", "x.a.b.example"],
            &["*.a.b.example"],
            &[],
        ]);
        for (name, chain) in [
            (Some("a.b.example"), 1),
            (Some("c.b.example"), 0),
            (Some("very-long.other.example"), 0),
            (Some("b.example"), 2),
            (Some("x.a.b.example"), 2),
            (Some("y.a.b.example"), 3),
            (Some("example"), 4),
            (None, 4),
        ] {
            assert_eq!(chosen(&all, name), [chain], "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_has_the_chain_that_envoy_finds(
            told in prop::collection::vec(prop::collection::btree_set("(\\*\\.)?([ab]\\.){0,3}[ab]", 0..4), 1..5),
            name in prop::option::of("([ab]\\.){0,4}[ab]"),
        ) {
            let mut known = BTreeSet::new();
            let mut all: Vec<Vec<Arc<str>>> = Vec::new();
            for names in told {
                let own: Vec<Arc<str>> = names.into_iter().filter(|name| known.insert(name.clone())).map(Arc::from).collect();
                // One chain at most fits every name.
                if !own.is_empty() || all.iter().all(|names| !names.is_empty()) {
                    all.push(own);
                }
            }
            prop_assert_eq!(chosen(&all, name.as_deref()), Vec::from_iter(looked_for(&all, name.as_deref())));
        }
    }

    #[test]
    fn conditions_on_a_host_are_asked_without_a_port_and_lists_stay() {
        let asked = json!({"vars": ["AND", ["authority", "==", "a"], ["authority", "!", "~~", "b"]], "audiences": ["authority", "b", "c"]});
        let expected =
            json!({"vars": ["AND", ["host", "==", "a"], ["host", "!", "~~", "b"]], "audiences": ["authority", "b", "c"]});
        assert_eq!(asked_without_port(asked), expected);
    }
}
