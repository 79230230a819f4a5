//! Edits of header fields, of a route and of all that it stands in. It knows no route.

use serde_json::{Map, Value, json};

use super::super::read::{Fault, Fields, Read, bytes};

/// What is done with fields, of requests or of answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Edits {
    /// In the order in which Envoy makes them.
    edits: Vec<Edit>,
    /// Fields that carry an id of the request, made where the client brings none.
    ids: Vec<String>,
}

/// One edit of the fields of a name.
#[derive(Debug, Clone, PartialEq)]
enum Edit {
    Add(String, String),
    Set(String, String),
    Remove(String),
}

/// Edits of one level: route, virtual host or route configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Level {
    pub(crate) request: Edits,
    pub(crate) response: Edits,
}

/// Reads what a route, a virtual host or a route configuration does with fields.
pub(crate) fn level(fields: &mut Fields<'_>) -> Read<Level> {
    let edits = |fields: &mut Fields<'_>, add: &str, remove: &str| -> Read<Edits> {
        let removed = fields.values(remove, |name| {
            let name = name.as_str().ok_or_else(|| Fault::new("", "expected a text"))?;
            changed(name).map(|()| Edit::Remove(name.to_owned())).map_err(|reason| Fault::new("", reason))
        })?;
        let mut edits = Edits { edits: removed, ids: Vec::new() };
        fields.list(add, |option| change(option, &mut edits))?;
        Ok(edits)
    };
    let request = edits(fields, "request_headers_to_add", "request_headers_to_remove")?;
    let response = edits(fields, "response_headers_to_add", "response_headers_to_remove")?;
    match response.ids.is_empty() {
        true => Ok(Level { request, response }),
        false => Err(Fault::new("response_headers_to_add.append_action", "ADD_IF_ABSENT is for ids of requests")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Add,
    Set,
    Default,
}

/// Longest name of a field that agents change.
const MAX_NAME: usize = 256;

/// That a text is the name of a field (RFC 9110 section 5.1).
pub(crate) fn is_name(name: &str) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match name.len() <= MAX_NAME && !name.is_empty() && name.bytes().all(token) {
        true => Ok(()),
        false => Err(format!("expected the name of a header field, found {name:.100?}")),
    }
}

/// That a field of this name may be changed.
fn changed(name: &str) -> Result<(), String> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err("is not changed here: use host_rewrite_literal, prefix_rewrite or regex_rewrite".to_owned());
    }
    is_name(name)
}

/// That a text may stand in a field: what ends a line there would begin a field of its own.
pub(crate) fn is_plain(text: &str) -> Result<(), String> {
    match text.chars().any(|c| c.is_ascii_control() && c != '\t') {
        true => Err(format!("expected a value without control characters, found {text:.100?}")),
        false => Ok(()),
    }
}

/// The operator that makes an id.
const ID: &str = "%UNIQUE_ID%";

/// Reads a `HeaderValueOption`.
pub(crate) fn change(option: &mut Fields<'_>, edits: &mut Edits) -> Read<()> {
    let actions = [
        ("APPEND_IF_EXISTS_OR_ADD", 0, How::Add),
        ("ADD_IF_ABSENT", 1, How::Default),
        ("OVERWRITE_IF_EXISTS_OR_ADD", 2, How::Set),
    ];
    let action = option.choice("append_action", &actions)?;
    let old = option.flag("append")?.map(|append| if append { How::Add } else { How::Set });
    option.ignore(&["keep_empty_value"]);
    let (key, value) = option.required("header", |header| {
        let raw = header.text("raw_value")?.map(bytes).transpose()?;
        let raw = raw
            .map(String::from_utf8)
            .transpose()
            .map_err(|_| Fault::new("raw_value", "expected text, found bytes that are not UTF-8"))?;
        let (value, place) = match (header.text("value")?, raw) {
            (None, Some(raw)) => (raw, "raw_value"),
            (value, _) => (value.unwrap_or_default().to_owned(), "value"),
        };
        let key = header.name("key")?.to_string();
        changed(&key).map_err(|reason| Fault::new("key", reason))?;
        if action == Some(How::Default) && value == ID {
            return Ok((key, value));
        }
        Ok((key, template(&value).map_err(|reason| Fault::new(place, reason))?))
    })?;
    match action.or(old).unwrap_or(How::Add) {
        How::Add => edits.edits.push(Edit::Add(key, value)),
        How::Set => edits.edits.push(Edit::Set(key, value)),
        How::Default if value == ID => edits.ids.push(key),
        How::Default => {
            return Err(Fault::new("append_action", format!("ADD_IF_ABSENT is not supported but with the value {ID}")));
        }
    }
    Ok(())
}

/// Envoy's command operators as our variables.
pub(crate) fn template(value: &str) -> Result<String, String> {
    is_plain(value)?;
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(&literal(before));
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (operator, after) =
            after.split_once('%').ok_or_else(|| "a `%` is not closed; a plain one is written `%%`".to_owned())?;
        out.push_str(&operator_of(operator)?);
        rest = after;
    }
    out.push_str(&literal(rest));
    Ok(out)
}

/// A text that means itself in our templates.
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "\\$")
}

fn operator_of(operator: &str) -> Result<String, String> {
    let header = operator.strip_prefix("REQ(").and_then(|rest| rest.strip_suffix(')'));
    let name = match (header, operator) {
        (Some(name), _) => super::matching::variable(name)?,
        (None, "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT") => "remote_addr".to_owned(),
        (None, "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT") => "realip_remote_addr".to_owned(),
        (None, "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT") => "server_addr".to_owned(),
        (None, "DOWNSTREAM_LOCAL_PORT") => "server_port".to_owned(),
        (None, "PROTOCOL") => "server_protocol".to_owned(),
        (None, "ROUTE_NAME") => "route_name".to_owned(),
        (None, "HOSTNAME") => "hostname".to_owned(),
        (None, "REQUESTED_SERVER_NAME") => "ssl_server_name".to_owned(),
        _ => return Err(format!("the operator %{operator}% is not supported")),
    };
    Ok(format!("${{{name}}}"))
}

impl Edits {
    /// The edits of a route, then of its virtual host, then of its configuration, as one: what comes later decides what a field is set to.
    pub(crate) fn joined<'e>(levels: impl Iterator<Item = &'e Edits>) -> Edits {
        let mut joined = Edits::default();
        for level in levels {
            joined.edits.extend(level.edits.iter().cloned());
            joined.ids.extend(level.ids.iter().cloned());
        }
        joined
    }

    /// Whether nothing is done.
    pub(crate) fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// Our plugins that make ids of requests.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.ids.iter().map(|name| ("request-id", json!({"header_name": name, "include_in_response": false})))
    }

    /// As our plugins write them, which add, set and remove in this order, where Envoy makes its edits one after the other: what a level removes before it adds
    /// is set, and what was added before it is removed is none.
    pub(crate) fn to_plugin(&self) -> Value {
        let (mut add, mut set, mut remove) = (Vec::new(), Map::new(), Vec::new());
        for (name, values, is_new) in self.settled() {
            match (is_new, values.as_slice()) {
                (true, []) => remove.push(name),
                // Several fields of one name are as good as one with a list (RFC 9110 section 5.3).
                (true, values) => drop(set.insert(name.to_owned(), values.join(", ").into())),
                (false, values) => add.extend(values.iter().map(|value| format!("{name}: {value}"))),
            }
        }
        let mut edits = Map::new();
        if !add.is_empty() {
            edits.insert("add".to_owned(), add.into());
        }
        if !set.is_empty() {
            edits.insert("set".to_owned(), set.into());
        }
        if !remove.is_empty() {
            edits.insert("remove".to_owned(), json!(remove));
        }
        edits.into()
    }

    /// What becomes of each name: what is put there, and whether what was there before is gone.
    fn settled(&self) -> Vec<(&str, Vec<&str>, bool)> {
        let mut settled: Vec<(&str, Vec<&str>, bool)> = Vec::new();
        for edit in &self.edits {
            let (Edit::Add(name, _) | Edit::Set(name, _) | Edit::Remove(name)) = edit;
            let at = settled.iter().position(|(known, ..)| known.eq_ignore_ascii_case(name)).unwrap_or_else(|| {
                settled.push((name, Vec::new(), false));
                settled.len() - 1
            });
            let Some((_, values, is_new)) = settled.get_mut(at) else { continue };
            match edit {
                Edit::Add(_, value) => values.push(value),
                Edit::Set(_, value) => (*values, *is_new) = (vec![value.as_str()], true),
                Edit::Remove(_) => (*values, *is_new) = (Vec::new(), true),
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(list: &[(&str, &str, &str)]) -> Edits {
        let one = |(how, name, value): &(&str, &str, &str)| match *how {
            "add" => Edit::Add((*name).to_owned(), (*value).to_owned()),
            "set" => Edit::Set((*name).to_owned(), (*value).to_owned()),
            _ => Edit::Remove((*name).to_owned()),
        };
        Edits { edits: list.iter().map(one).collect(), ids: Vec::new() }
    }

    #[test]
    fn edits_are_made_in_the_order_of_envoy() {
        let told = |list: &[(&str, &str, &str)]| edits(list).to_plugin();
        let anew = [("remove", "X-User", ""), ("add", "x-user", "edge")];
        assert_eq!(told(&anew), json!({"set": {"X-User": "edge"}}), "the usual way against those who say it themselves");
        assert_eq!(told(&[("add", "a", "1"), ("add", "A", "2")]), json!({"add": ["a: 1", "a: 2"]}));
        assert_eq!(
            told(&[("add", "a", "1"), ("remove", "a", "")]),
            json!({"remove": ["a"]}),
            "an outer level takes it off again"
        );
        assert_eq!(told(&[("add", "a", "1"), ("set", "a", "2"), ("add", "a", "3")]), json!({"set": {"a": "2, 3"}}));
        let route = edits(&[("add", "a", "route")]);
        let host = edits(&[("remove", "b", ""), ("add", "a", "host")]);
        assert_eq!(
            Edits::joined([&route, &host].into_iter()).to_plugin(),
            json!({"add": ["a: route", "a: host"], "remove": ["b"]})
        );
    }
}
