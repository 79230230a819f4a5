//! Configurations, header fields and bodies as nobody would write them, drawn from a seed. It knows JSON Schema and the pages, no plugin.

use std::path::Path;

use heddle_xds::catalog::Place;
use serde_json::{Map, Value, json};

/// Texts in which parsers have stumbled before.
const TEXTS: &[&str] = &[
    "",
    " ",
    "/",
    "*",
    "a",
    "a,b, c",
    "remote_addr",
    "$remote_addr",
    "${http_x_a}$$",
    "$",
    "${",
    "uri",
    "GET",
    "text/plain",
    "200-299",
    "http://127.0.0.1:1/x",
    "https://a.example",
    "ldap://127.0.0.1:1",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.0/8",
    "::1",
    "2001:db8::/129",
    "^/(a+)+$",
    "([",
    "(?=a)",
    "(?i)\\d{1,5}",
    "\\",
    "$1$2",
    "aGVsbG8=",
    "not base64!",
    "5s",
    "1h30m",
    "10MiB",
    "-1",
    "1e309",
    "{{name}}",
    "{{#each a}}",
    "{\"a\": [1]}",
    "[",
    "null",
    "é\u{1F600}",
    "\u{0}",
    "\r\nX: y",
    "%41%zz",
    "../..",
    "Basic YTpi",
    "Bearer a.b.c",
    "-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----",
    "0123456789abcdef0123456789abcdef",
    "sha-256",
    "RS256",
    "<a>&amp;</a>",
    "2026-01-01T00:00:00Z",
    "NetworkErrorRatio() > 0.5",
];

const NAMES: &[&str] = &[
    "Authorization",
    "Cookie",
    "Content-Type",
    "Accept-Encoding",
    "Content-Encoding",
    "Accept",
    "Origin",
    "Referer",
    "User-Agent",
    "X-A",
    "X-Forwarded-For",
    "If-None-Match",
    "Range",
    "Cache-Control",
    "Vary",
    "Set-Cookie",
    "apikey",
    "Date",
    "Digest",
    "Location",
    "Age",
];

/// Deepest that a schema is followed.
const DEEPEST: usize = 8;
/// Length of the longest text.
const LONGEST: usize = 3_000;

/// What is random.
pub(super) struct Dice {
    rng: fastrand::Rng,
}

impl Dice {
    pub(super) fn new(rng: fastrand::Rng) -> Dice {
        Dice { rng }
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.usize(..end)
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn text(&mut self) -> String {
        match self.below(12) {
            0 => (0..self.below(20)).map(|_| self.rng.char(..)).collect(),
            1 => "ab/".repeat(self.below(LONGEST / 3)),
            2 => TEXTS[self.below(TEXTS.len())].to_owned() + TEXTS[self.below(TEXTS.len())],
            _ => TEXTS[self.below(TEXTS.len())].to_owned(),
        }
    }

    pub(super) fn field_name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }

    /// What a field may hold after it was read from the wire.
    pub(super) fn field_value(&mut self) -> String {
        let text = match self.below(4) {
            0 => [
                "gzip, br;q=0.5, *;q=0",
                "application/json",
                "a=b; c=\"d",
                "bytes=0-1",
                "max-age=99999999999",
                "public, s-maxage=1",
            ][self.below(6)]
            .to_owned(),
            _ => self.text(),
        };
        text.chars().filter(|c| !c.is_control()).collect()
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        match self.below(5) {
            0 => Vec::new(),
            1 => self.json(4).to_string().into_bytes(),
            2 => "a=1&b=%zz&b=2&=".into(),
            3 => (0..self.below(200)).map(|_| self.rng.u8(..)).collect(),
            _ => self.text().into_bytes(),
        }
    }

    /// Any JSON, `depth` deep at most.
    pub(super) fn json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => json!(self.rng.bool()),
            2 => {
                let whole = self.rng.bool();
                self.number(None, None, whole)
            }
            3 | 4 => json!(self.text()),
            5 | 6 => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
            _ => Value::Object((0..self.below(4)).map(|_| (self.text(), self.json(depth - 1))).collect()),
        }
    }

    /// What the schema allows, mostly.
    pub(super) fn of_schema(&mut self, schema: &Value) -> Value {
        self.of(schema, schema, 0)
    }

    fn of(&mut self, schema: &Value, root: &Value, depth: usize) -> Value {
        if self.one_in(40) || depth > DEEPEST {
            return self.json(2);
        }
        if let Some(target) = schema["$ref"].as_str().and_then(|name| root.pointer(name.trim_start_matches('#'))) {
            return self.of(target, root, depth + 1);
        }
        for word in ["anyOf", "oneOf", "allOf"] {
            if let Some(several) = schema[word].as_array().filter(|several| !several.is_empty()) {
                let one = self.below(several.len());
                return self.of(&several[one], root, depth + 1);
            }
        }
        if let Some(constant) = schema.get("const") {
            return constant.clone();
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
            return values[self.below(values.len())].clone();
        }
        if let Some(default) = schema.get("default").filter(|_| self.one_in(3)) {
            return default.clone();
        }
        let kind = match &schema["type"] {
            Value::Array(several) if !several.is_empty() => several[self.below(several.len())].as_str(),
            one => one.as_str(),
        };
        match kind {
            Some("null") => Value::Null,
            Some("boolean") => json!(self.rng.bool()),
            Some("string") => self.string(schema),
            Some(kind @ ("integer" | "number")) => {
                self.number(schema["minimum"].as_f64(), schema["maximum"].as_f64(), kind == "integer")
            }
            Some("array") => {
                let least = schema["minItems"].as_u64().unwrap_or(0).min(4) as usize;
                let most = schema["maxItems"].as_u64().unwrap_or(3).min(4) as usize;
                let length = least + self.below(most.saturating_sub(least) + 1);
                (0..length).map(|_| self.of(&schema["items"], root, depth + 1)).collect()
            }
            Some("object") => Value::Object(self.object(schema, root, depth)),
            _ => self.json(3),
        }
    }

    fn object(&mut self, schema: &Value, root: &Value, depth: usize) -> Map<String, Value> {
        let mut object = Map::new();
        let required = |name: &str| schema["required"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if required(name) || self.one_in(3) {
                object.insert(name.clone(), self.of(property, root, depth + 1));
            }
        }
        let more = &schema["additionalProperties"];
        if *more != json!(false) && (object.is_empty() || self.one_in(4)) {
            for _ in 0..self.below(3) {
                let value = if more.is_object() { self.of(more, root, depth + 1) } else { json!(self.text()) };
                object.insert(self.text(), value);
            }
        }
        object
    }

    fn string(&mut self, schema: &Value) -> Value {
        let mut text = self.text();
        let least = schema["minLength"].as_u64().unwrap_or(0).min(64) as usize;
        while text.chars().count() < least {
            text.push('x');
        }
        if let Some(most) = schema["maxLength"].as_u64() {
            text = text.chars().take(most as usize).collect();
        }
        json!(text)
    }

    fn number(&mut self, low: Option<f64>, high: Option<f64>, whole: bool) -> Value {
        let low = low.unwrap_or(if self.one_in(10) { -5.0 } else { 0.0 });
        let high = high.unwrap_or([10.0, 600.0, 1e6, 9e15][self.below(4)]).max(low);
        let number = match self.below(4) {
            0 => low,
            1 => high,
            _ => low + self.rng.f64() * (high - low),
        };
        if whole { json!(number as i64) } else { json!(number) }
    }
}

/// The configurations of this plugin that its page shows, at this place.
pub(super) fn examples(name: &str, place: Place) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/plugins/{name}.md"));
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut found = Vec::new();
    for command in page.split("curl http://127.0.0.1:9180/apisix/admin/").skip(1) {
        let credential = command.starts_with("consumers/");
        let body = command.split("\n$ ").next().and_then(|command| command.split('\'').nth(1));
        let Some(Ok(resource)) = body.map(serde_json::from_str::<Value>) else { continue };
        if credential == (place == Place::Consumer)
            && let Some(config) = resource["plugins"].get(name)
        {
            found.push(config.clone());
        }
    }
    found
}
