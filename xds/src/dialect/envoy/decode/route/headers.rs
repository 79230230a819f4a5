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
    /// Fields whose value is put together from one of the request: the field, and the one that it shows.
    shows: Vec<(String, String)>,
}

/// One edit of the fields of a name.
#[derive(Debug, Clone, PartialEq)]
enum Edit {
    Add(String, String),
    Set(String, String),
    Remove(String),
}

impl Edit {
    fn name(&self) -> &str {
        let (Edit::Add(name, _) | Edit::Set(name, _) | Edit::Remove(name)) = self;
        name
    }

    /// When Envoy makes it among the others of its level, in whatever order they are listed.
    fn turn(&self) -> u8 {
        match self {
            Edit::Remove(_) => 0,
            Edit::Set(..) => 1,
            Edit::Add(..) => 2,
        }
    }
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
        let mut edits = Edits { edits: removed, ..Edits::default() };
        fields.list(add, |option| change(option, &mut edits))?;
        edits.edits.sort_by_key(Edit::turn);
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

/// That a field of this name may be changed. Of these Envoy refuses what adds and sets, and takes what removes them from its filters, though nobody answers a request
/// that has lost its path or its host.
pub(crate) fn changed(name: &str) -> Result<(), String> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err("is not changed here: use host_rewrite_literal, prefix_rewrite or regex_rewrite".to_owned());
    }
    is_name(name)
}

/// Fields that say how a message is framed, or what becomes of the connection: agents write them as they are, whatever an edit says.
const OF_THE_AGENT: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// That a field of this name may be added, or set.
pub(crate) fn added(name: &str) -> Result<(), String> {
    changed(name)?;
    match OF_THE_AGENT.iter().any(|field| name.eq_ignore_ascii_case(field)) {
        true => Err(format!("{name} is not added here: agents say in it how they send the message")),
        false => Ok(()),
    }
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
    let (key, value, shown) = option.required("header", |header| {
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
        added(&key).map_err(|reason| Fault::new("key", reason))?;
        if action == Some(How::Default) && value == ID {
            return Ok((key, value, Vec::new()));
        }
        let template = template(&value).map_err(|reason| Fault::new(place, reason))?;
        Ok((key, template, shown(&value)))
    })?;
    edits.shows.extend(shown.into_iter().map(|field| (key.clone(), field)));
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

/// The fields of the request that the operators of a text show.
fn shown(value: &str) -> Vec<String> {
    // Between two signs stands an operator, or nothing where they are a plain one.
    let operators = value.split('%').skip(1).step_by(2);
    operators.filter_map(field_of).map(str::to_owned).collect()
}

/// The field of the request that an operator shows.
fn field_of(operator: &str) -> Option<&str> {
    operator.strip_prefix("REQ(").and_then(|rest| rest.strip_suffix(')'))
}

/// A text that means itself in our templates.
pub(crate) fn literal(text: &str) -> String {
    text.replace('$', "\\$")
}

fn operator_of(operator: &str) -> Result<String, String> {
    let name = match (field_of(operator), operator) {
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
    /// The edits of the requests of a route, of its virtual host, then of its configuration, as one: what comes later decides what a field is set to.
    pub(crate) fn of_requests(levels: &[&Edits]) -> Read<Edits> {
        for (at, level) in levels.iter().enumerate() {
            for (name, field) in &level.shows {
                if let Some(other) = at_odds(levels, at, name, field) {
                    let reason = format!(
                        "{name} shows %REQ({field})%, and {other} is edited here or in what stands around: which of its values is \
                         shown depends on the order, so that it is not supported"
                    );
                    return Err(Fault::new("request_headers_to_add", reason));
                }
            }
            let before = || levels.iter().take(at + 1).flat_map(|level| &level.edits);
            if let Some(name) = level.ids.iter().find(|id| before().any(|edit| edit.name().eq_ignore_ascii_case(id))) {
                let reason =
                    format!("{name} is made where it is absent with {ID}, and is edited otherwise, too: that is not supported");
                return Err(Fault::new("request_headers_to_add", reason));
            }
        }
        Ok(Edits::joined(levels))
    }

    /// The same of answers, whose fields no operator shows.
    pub(crate) fn of_answers(levels: &[&Edits]) -> Edits {
        Edits::joined(levels)
    }

    fn joined(levels: &[&Edits]) -> Edits {
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

    /// As our plugins write them, which add, set and remove in this order, where Envoy removes, sets and adds, level by level: what a level removes before it
    /// adds is set, and what was added before a wider level removes it is none.
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
            let name = edit.name();
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

/// The field whose edits are not those of Envoy where `name`, of the level `at`, shows it: Envoy shows what narrower levels have made of it and the level itself
/// has left, our plugin something in between.
fn at_odds<'e>(levels: &[&'e Edits], at: usize, name: &str, field: &str) -> Option<&'e str> {
    let of_it = |level: &&'e Edits| level.edits.iter().filter(|edit| edit.name().eq_ignore_ascii_case(field)).collect::<Vec<_>>();
    let (narrower, rest) = levels.split_at(at);
    let (own, wider) = rest.split_first()?;
    // What shows its own field has seen it before, and what is taken out later has been shown.
    let own = of_it(own).into_iter().filter(|edit| !(edit.name().eq_ignore_ascii_case(name) && of_it(own).len() == 1));
    let wider = wider.iter().flat_map(of_it).filter(|edit| !matches!(edit, Edit::Remove(_)));
    let edited = narrower.iter().flat_map(of_it).chain(own).chain(wider).map(Edit::name).next();
    let made = || rest.iter().flat_map(|level| &level.ids).find(|id| id.eq_ignore_ascii_case(field)).map(String::as_str);
    edited.or_else(made)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A level that does these things, in the order in which they are listed.
    fn edits(list: &[(&str, &str, &str)]) -> Edits {
        let mut edits = Edits::default();
        for (how, name, value) in list {
            let (name, text) = ((*name).to_owned(), template(value).unwrap());
            edits.shows.extend(shown(value).into_iter().map(|field| (name.clone(), field)));
            match *how {
                "id" => edits.ids.push(name),
                "add" => edits.edits.push(Edit::Add(name, text)),
                "set" => edits.edits.push(Edit::Set(name, text)),
                _ => edits.edits.push(Edit::Remove(name)),
            }
        }
        edits.edits.sort_by_key(Edit::turn);
        edits
    }

    #[test]
    fn edits_are_made_in_the_order_of_envoy() {
        let told = |list: &[(&str, &str, &str)]| edits(list).to_plugin();
        let anew = [("remove", "X-User", ""), ("add", "x-user", "edge")];
        assert_eq!(told(&anew), json!({"set": {"X-User": "edge"}}), "the usual way against those who say it themselves");
        assert_eq!(told(&[("add", "a", "1"), ("add", "A", "2")]), json!({"add": ["a: 1", "a: 2"]}));
        assert_eq!(
            told(&[("add", "a", "1"), ("set", "a", "2")]),
            json!({"set": {"a": "2, 1"}}),
            "set first, however it is listed"
        );
        assert_eq!(told(&[("add", "a", "1"), ("set", "a", "2"), ("add", "a", "3")]), json!({"set": {"a": "2, 1, 3"}}));
        let joined = |levels: &[&Edits]| Edits::of_requests(levels).unwrap().to_plugin();
        let route = edits(&[("add", "a", "route")]);
        let host = edits(&[("remove", "b", ""), ("add", "a", "host")]);
        assert_eq!(joined(&[&route, &host]), json!({"add": ["a: route", "a: host"], "remove": ["b"]}));
        let (removing, setting) = (edits(&[("remove", "a", "")]), edits(&[("set", "a", "host")]));
        assert_eq!(joined(&[&route, &removing]), json!({"remove": ["a"]}), "a wider level takes it off again");
        assert_eq!(joined(&[&route, &setting]), json!({"set": {"a": "host"}}));
    }

    #[test]
    fn a_field_that_is_edited_is_not_shown_in_another_one_unless_it_is_clear_which_value_is() {
        let refused = |levels: &[&[(&str, &str, &str)]]| {
            let levels: Vec<_> = levels.iter().map(|level| edits(level)).collect();
            Edits::of_requests(&levels.iter().collect::<Vec<_>>()).err().map(|fault| format!("{}: {}", fault.field, fault.reason))
        };
        let shows = ("add", "x-orig", "was %REQ(X-User)%, 100%%");
        for levels in [
            &[&[("remove", "x-user", ""), shows][..]][..],
            &[&[("set", "x-user", "1"), shows]],
            &[&[("add", "x-user", "1"), shows]],
            &[&[("id", "x-user", ""), shows]],
            &[&[("set", "x-user", "1")], &[shows]],
            &[&[shows], &[("add", "x-user", "1")]],
            &[&[shows], &[("remove", "x-user", ""), ("set", "x-user", "1")]],
            &[&[("set", "x-user", "%REQ(x-user)%, edge"), ("remove", "X-USER", "")]],
        ] {
            let reason = refused(levels).unwrap();
            let names = reason.to_lowercase();
            assert!(names.starts_with("request_headers_to_add") && names.contains("%req(x-user)%"), "{levels:?}: {reason}");
        }
        for levels in [
            &[&[shows, ("set", "x-other", "1")][..]][..],
            &[&[("set", "x-user", "%REQ(x-user)%, edge")]],
            &[&[("id", "x-user", "")], &[shows]],
            &[&[shows], &[("remove", "x-user", "")]],
        ] {
            assert_eq!(refused(levels), None, "{levels:?}");
        }
        let reason = refused(&[&[("set", "x-r", "1"), ("set", "x-z", "%REQ(x-r)%")]]).unwrap();
        assert!(reason.contains("x-z shows %REQ(x-r)%, and x-r is edited"), "{reason}");
        for levels in
            [&[&[("set", "x-id", "1"), ("id", "x-id", "")][..]][..], &[&[("remove", "x-id", "")], &[("id", "X-Id", "")]]]
        {
            assert!(refused(levels).unwrap().contains("is made where it is absent"), "{levels:?}");
        }
        assert_eq!(refused(&[&[("id", "x-id", "")], &[("set", "x-id", "1")]]), None, "made first, and replaced");
    }
}
