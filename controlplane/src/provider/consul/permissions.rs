//! Rules by request of one intention: a list of which the first that fits counts, as what is allowed and what is denied whatever the order. It knows no caller.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Permissions of one intention.
const MOST: usize = 100;
/// Operations that one permission may become when earlier ones are taken out of it.
const MOST_PARTS: usize = 100;

/// What is allowed and what is denied, as operations of policies.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Permitted {
    pub(super) allowed: Vec<Part>,
    pub(super) denied: Vec<Part>,
}

/// Requests of one sort.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Part {
    path: Option<Path>,
    methods: Option<BTreeSet<String>>,
    headers: BTreeMap<String, Option<String>>,
    not_paths: Vec<Path>,
    not_methods: BTreeSet<String>,
}

/// A path, or all that begin with one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Path {
    text: String,
    is_prefix: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    action: String,
    #[serde(rename = "HTTP")]
    http: Option<Http>,
    #[serde(rename = "JWT")]
    jwt: Option<Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Http {
    path_exact: String,
    path_prefix: String,
    path_regex: String,
    header: Option<Vec<Header>>,
    methods: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
struct Header {
    name: String,
    present: bool,
    exact: String,
    prefix: String,
    contains: String,
    suffix: String,
    regex: String,
    invert: bool,
    ignore_case: bool,
}

impl Permitted {
    /// Reads permissions as Consul writes them.
    ///
    /// # Errors
    /// In words: what no policy can say.
    pub(super) fn read(permissions: &Value) -> Result<Permitted, String> {
        let written: Vec<Written> =
            serde_json::from_value(permissions.clone()).map_err(|error| format!("permissions: {error}"))?;
        if written.len() > MOST {
            return Err(format!("it has {} permissions, at most {MOST} are taken", written.len()));
        }
        let mut permitted = Permitted::default();
        for (number, one) in written.into_iter().enumerate() {
            let told = |why: String| format!("permission {}: {why}", number + 1);
            if one.jwt.is_some_and(|jwt| !jwt.is_null()) {
                return Err(told(
                    "conditions on JWTs are not taken from intentions; write an authorization policy or use a plugin".into(),
                ));
            }
            let part = Part::read(one.http.unwrap_or_default()).map_err(told)?;
            match one.action.as_str() {
                "allow" => permitted.allowed.push(part),
                // Denials are asked first here, so what an earlier permission allows is taken out of a later denial.
                "deny" => {
                    let denied = without(vec![part], &permitted.allowed).map_err(told)?;
                    permitted.denied.extend(denied);
                }
                other => return Err(told(format!("expected allow or deny, found {other}"))),
            }
        }
        Ok(permitted)
    }

    /// All that nothing allows.
    ///
    /// # Errors
    /// In words: no policy can say it.
    pub(super) fn rest(&self) -> Result<Vec<Part>, String> {
        without(vec![Part::default()], &self.allowed)
    }
}

/// What is left of `parts` without all that `taken` stand for.
fn without(mut parts: Vec<Part>, taken: &[Part]) -> Result<Vec<Part>, String> {
    for one in taken {
        let mut left = Vec::new();
        for part in parts {
            part.less(one, &mut left)?;
        }
        if left.len() > MOST_PARTS {
            return Err(format!("its permissions interlock in more than {MOST_PARTS} ways; put those that deny first"));
        }
        parts = left;
    }
    Ok(parts)
}

impl Part {
    fn read(http: Http) -> Result<Part, String> {
        let path = match (http.path_exact.as_str(), http.path_prefix.as_str(), http.path_regex.as_str()) {
            ("", "", "") => None,
            (text, "", "") => Some(Path::new(text, false)?),
            ("", text, "") => Some(Path::new(text, true)?),
            _ => return Err("paths by regular expression are not taken; use PathExact or PathPrefix, one of both".into()),
        };
        let methods = http.methods.filter(|methods| !methods.is_empty());
        let methods = methods.map(|methods| methods.iter().map(|method| method.to_ascii_uppercase()).collect());
        let mut headers = BTreeMap::new();
        for header in http.header.unwrap_or_default() {
            let (name, value) = header.read()?;
            if headers.insert(name.clone(), value).is_some() {
                return Err(format!("two conditions on the header {name}"));
            }
        }
        Ok(Part { path, methods, headers, ..Part::default() })
    }

    /// Adds to `left` what is left of it without `taken`, which has no exceptions of its own.
    fn less(self, taken: &Part, left: &mut Vec<Part>) -> Result<(), String> {
        if self.is_apart_from(taken) {
            left.push(self);
            return Ok(());
        }
        if !taken.headers.is_empty() {
            return Err(
                "what it allows by a header cannot be taken out of what it denies; put the permissions that deny first".into()
            );
        }
        if let Some(path) = &taken.path
            && !self.path.as_ref().is_some_and(|own| path.covers(own))
        {
            let mut part = self.clone();
            part.not_paths.push(path.clone());
            left.push(part);
        }
        if let Some(methods) = &taken.methods {
            let mut part = self;
            match &mut part.methods {
                Some(own) => own.retain(|method| !methods.contains(method)),
                None => part.not_methods.extend(methods.iter().cloned()),
            }
            if part.methods.as_ref().is_none_or(|own| !own.is_empty()) {
                left.push(part);
            }
        }
        Ok(())
    }

    fn is_apart_from(&self, other: &Part) -> bool {
        let paths = match (&self.path, &other.path) {
            (Some(own), Some(other)) => !own.covers(other) && !other.covers(own),
            _ => false,
        };
        let methods = other.methods.as_ref().is_some_and(|others| {
            let has = |method: &String| {
                self.methods.as_ref().is_none_or(|own| own.contains(method)) && !self.not_methods.contains(method)
            };
            !others.iter().any(has)
        });
        let excepted = other.path.as_ref().is_some_and(|path| self.not_paths.iter().any(|not| not.covers(path)));
        paths || methods || excepted
    }

    /// As an item of `to`; `None` where it says nothing, which a rule says without `to`.
    pub(super) fn operation(&self) -> Option<Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, items: Vec<String>| {
            if !items.is_empty() {
                fields.insert(name.to_owned(), items.into());
            }
        };
        put("paths", self.path.iter().map(Path::pattern).collect());
        put("methods", self.methods.iter().flatten().cloned().collect());
        put("not_paths", self.not_paths.iter().map(Path::pattern).collect());
        put("not_methods", self.not_methods.iter().cloned().collect());
        if !self.headers.is_empty() {
            let values = |value: &Option<String>| value.as_ref().map_or_else(|| json!([]), |value| value.as_str().into());
            let headers: Map<String, Value> = self.headers.iter().map(|(name, value)| (name.clone(), values(value))).collect();
            fields.insert("headers".to_owned(), headers.into());
        }
        (!fields.is_empty()).then(|| fields.into())
    }
}

impl Header {
    /// Its name, and the pattern of its value; `None` is any.
    fn read(self) -> Result<(String, Option<String>), String> {
        let Header { name, present, exact, prefix, contains, suffix, regex, invert, ignore_case } = self;
        let told =
            format!("the header {name}: only Present, Exact and Prefix are taken, one of them, without *, Invert and IgnoreCase");
        let unknown = [&contains, &suffix, &regex].iter().any(|text| !text.is_empty());
        if unknown || invert || ignore_case || exact.contains('*') || prefix.contains('*') {
            return Err(told);
        }
        let value = match (present, exact.as_str(), prefix.as_str()) {
            (true, "", "") => None,
            (false, "", text) if !text.is_empty() => Some(format!("{text}*")),
            (false, text, "") if !text.is_empty() => Some(text.to_owned()),
            _ => return Err(told),
        };
        Ok((name.to_ascii_lowercase(), value))
    }
}

impl Path {
    fn new(text: &str, is_prefix: bool) -> Result<Path, String> {
        let plain = text.starts_with('/') && !text.bytes().any(|byte| byte <= b' ' || matches!(byte, b'?' | b'#' | b'*'));
        if !plain {
            return Err(format!("expected a path that begins with / and has no query and no *, found `{text}`"));
        }
        Ok(Path { text: text.to_owned(), is_prefix })
    }

    /// Whether all that `other` stands for is among what this one stands for.
    fn covers(&self, other: &Path) -> bool {
        if self.is_prefix { other.text.starts_with(&self.text) } else { !other.is_prefix && self.text == other.text }
    }

    fn pattern(&self) -> String {
        format!("{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    impl Part {
        fn fits(&self, method: &str, path: &str) -> bool {
            let on = |pattern: &Path| if pattern.is_prefix { path.starts_with(&pattern.text) } else { path == pattern.text };
            self.path.as_ref().is_none_or(on)
                && self.methods.as_ref().is_none_or(|methods| methods.contains(method))
                && !self.not_paths.iter().any(on)
                && !self.not_methods.contains(method)
        }
    }

    fn permission() -> impl Strategy<Value = Value> {
        let path = prop_oneof![
            Just(json!({})),
            prop::sample::select(vec!["/", "/a", "/a/b"]).prop_map(|path| json!({ "PathPrefix": path })),
            prop::sample::select(vec!["/a", "/a/b", "/c"]).prop_map(|path| json!({ "PathExact": path })),
        ];
        (path, prop::sample::subsequence(vec!["GET", "PUT"], 0..=2), any::<bool>()).prop_map(|(mut http, methods, allow)| {
            http["Methods"] = methods.into();
            json!({ "Action": if allow { "allow" } else { "deny" }, "HTTP": http })
        })
    }

    proptest! {
        /// Whatever the order of permissions, what is allowed and not denied is what the first one that fits says, and what is denied or among the rest is
        /// everything else.
        #[test]
        fn the_first_that_fits_counts(all in prop::collection::vec(permission(), 0..6)) {
            let permitted = Permitted::read(&Value::from(all.clone())).unwrap();
            let rest = permitted.rest().unwrap();
            for method in ["GET", "PUT", "POST"] {
                for path in ["/", "/a", "/a/b", "/a/b/c", "/ab", "/c", "/d"] {
                    let first = all.iter().find(|one| Part::read(serde_json::from_value(one["HTTP"].clone()).unwrap()).unwrap().fits(method, path));
                    let fits = |parts: &[Part]| parts.iter().any(|part| part.fits(method, path));
                    let allowed = fits(&permitted.allowed) && !fits(&permitted.denied);
                    prop_assert_eq!(allowed, first.is_some_and(|one| one["Action"] == "allow"), "{} {}", method, path);
                    let denied = fits(&permitted.denied);
                    if first.is_some_and(|one| one["Action"] == "deny") {
                        prop_assert!(denied);
                    }
                    prop_assert!(!(allowed && denied));
                    prop_assert_eq!(fits(&rest), !fits(&permitted.allowed));
                }
            }
        }
    }

    #[test]
    fn what_no_policy_can_say_is_refused() {
        let header = |header: Value| json!([{ "Action": "allow", "HTTP": { "Header": [header] } }, { "Action": "deny" }]);
        for (wrong, part) in [
            (json!([{ "Action": "allow", "HTTP": { "PathRegex": ".*" } }]), "regular expression"),
            (json!([{ "Action": "allow", "HTTP": { "PathPrefix": "a" } }]), "begins with /"),
            (json!([{ "Action": "allow", "JWT": { "Providers": [] } }]), "JWT"),
            (json!([{ "Action": "maybe" }]), "allow or deny"),
            (json!([{ "Action": "allow", "HTTP": { "Body": "x" } }]), "unknown field"),
            (header(json!({ "Name": "x", "Exact": "a", "Invert": true })), "Invert"),
            (header(json!({ "Name": "x", "Suffix": "a" })), "only Present"),
            (header(json!({ "Name": "x" })), "only Present"),
            (header(json!({ "Name": "x", "Exact": "a" })), "put the permissions that deny first"),
        ] {
            let told = Permitted::read(&wrong).unwrap_err();
            assert!(told.contains(part), "{wrong}: {told}");
        }
        let fine = json!([{ "Action": "deny" }, { "Action": "allow", "HTTP": { "Header": [{ "Name": "X-A", "Present": true }, { "Name": "b", "Prefix": "v" }] } }]);
        let fine = Permitted::read(&fine).unwrap();
        assert_eq!(fine.allowed[0].operation(), Some(json!({ "headers": { "x-a": [], "b": "v*" } })));
        assert_eq!(fine.denied[0].operation(), None);
    }
}
