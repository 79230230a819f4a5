//! A JSON Schema, compiled once: bounded in size and depth, with patterns that are matched in linear time, and without anything from elsewhere.

use std::collections::BTreeMap;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

/// Largest schema, as JSON.
const MAX_BYTES: usize = 256 * 1024;
/// Deepest nesting of a schema.
const MAX_DEPTH: usize = 64;
/// Most memory of one compiled pattern.
const MAX_PATTERN: usize = 1024 * 1024;
/// Longest message about what is wrong.
const MAX_MESSAGE: usize = 512;
/// Most places of a schema with its references followed. A validator remembers what it has seen only where references lead in circles, so that ones
/// which double again and again without a circle would take for ever.
const MAX_PLACES: usize = 100_000;
/// Most places for which it is looked what is wrong and not only whether something is: errors are gathered from all branches.
const MAX_EXPLAINED: usize = 10_000;
/// Deepest properties that are given their default.
const MAX_DEFAULTS: usize = 16;
/// Keywords that mean nothing to draft 7, which schemas without `$schema` are read by: whoever writes them must say what he means.
const LATER: &[&str] = &[
    "prefixItems",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "minContains",
    "maxContains",
];

/// Keywords whose value is data.
const DATA: &[&str] = &["enum", "const", "default", "examples"];
/// Keywords whose value is schemas by names that users choose.
const NAMED: &[&str] = &["properties", "patternProperties", "definitions", "$defs", "dependencies", "dependentSchemas"];

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    /// Whether it is cheap to say what is wrong.
    explains: bool,
    defaults: Option<Defaults>,
}

/// What is put where nothing stands, by property.
#[derive(Debug)]
struct Defaults(Vec<(String, Option<Value>, Option<Defaults>)>);

impl Schema {
    /// Compiles a schema by the draft that its `$schema` names, draft 7 without one.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn compile(source: &Map<String, Value>) -> Result<Schema, String> {
        let source = Value::Object(source.clone());
        if depth(&source) > MAX_DEPTH {
            return Err(format!("the schema is nested deeper than {MAX_DEPTH}"));
        }
        if source.to_string().len() > MAX_BYTES {
            return Err(format!("the schema is longer than {MAX_BYTES} bytes"));
        }
        let draft = draft(&source)?;
        let places = Places::of(&source)?;
        let mut options = jsonschema::options().offline().with_draft(draft).should_validate_formats(true);
        options = options.with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN).dfa_size_limit(MAX_PATTERN));
        let validator = options.build(&source).map_err(|error| {
            let place = error.instance_path().as_str();
            clipped(format!("bad schema{}{place}: {error}", if place.is_empty() { "" } else { " at " }))
        })?;
        let explains = !places.circles && places.count <= MAX_EXPLAINED;
        Ok(Schema { validator, explains, defaults: Defaults::of(&source, 0) })
    }

    /// What is wrong with a value. Says nothing of its content, which may be secret or long.
    pub(super) fn fault(&self, value: &Value) -> Option<String> {
        if self.validator.is_valid(value) {
            return None;
        }
        if !self.explains {
            return Some("value does not fit the schema".to_owned());
        }
        let error = self.validator.validate(value).err()?;
        let place = error.instance_path().as_str();
        Some(clipped(if place.is_empty() { error.masked().to_string() } else { format!("{place}: {}", error.masked()) }))
    }

    /// Puts defaults where properties are missing, and says whether it did.
    pub(super) fn complete(&self, value: &mut Value) -> bool {
        self.defaults.as_ref().is_some_and(|defaults| defaults.put(value))
    }
}

impl Defaults {
    /// Those of the properties of a schema, and of theirs.
    fn of(schema: &Value, depth: usize) -> Option<Defaults> {
        let properties = schema.get("properties")?.as_object()?;
        let below = |schema| if depth < MAX_DEFAULTS { Defaults::of(schema, depth + 1) } else { None };
        let all = properties.iter().map(|(name, schema)| (name.clone(), schema.get("default").cloned(), below(schema)));
        let all: Vec<_> = all.filter(|(_, default, below)| default.is_some() || below.is_some()).collect();
        (!all.is_empty()).then_some(Defaults(all))
    }

    fn put(&self, value: &mut Value) -> bool {
        let Some(object) = value.as_object_mut() else { return false };
        let mut changed = false;
        for (name, default, below) in &self.0 {
            if let (None, Some(default)) = (object.get(name), default) {
                object.insert(name.clone(), default.clone());
                changed = true;
            }
            if let (Some(value), Some(below)) = (object.get_mut(name), below) {
                changed |= below.put(value);
            }
        }
        changed
    }
}

/// The places of a schema with its references followed.
struct Places {
    count: usize,
    /// Whether references lead in circles.
    circles: bool,
}

impl Places {
    /// Counts them.
    ///
    /// # Errors
    /// There are too many, or a reference leads elsewhere or nowhere.
    fn of(schema: &Value) -> Result<Places, String> {
        let mut counter = Counter { root: schema, circles: false, targets: BTreeMap::new() };
        let count = counter.count(schema, true)?;
        if count > MAX_PLACES {
            return Err(format!("with its references followed the schema has more than {MAX_PLACES} places"));
        }
        Ok(Places { count, circles: counter.circles })
    }
}

struct Counter<'a> {
    root: &'a Value,
    circles: bool,
    /// Places behind a reference; none while they are being counted.
    targets: BTreeMap<&'a str, Option<usize>>,
}

impl<'a> Counter<'a> {
    fn count(&mut self, schema: &'a Value, is_root: bool) -> Result<usize, String> {
        let mut sum = 1usize;
        let mut add = |more: usize| sum = sum.saturating_add(more);
        match schema {
            Value::Array(items) => {
                for item in items {
                    add(self.count(item, false)?);
                }
            }
            Value::Object(object) => {
                for (key, value) in object {
                    match (key.as_str(), value) {
                        (word, _) if DATA.contains(&word) => {}
                        (word, Value::Object(named)) if NAMED.contains(&word) => {
                            for schema in named.values() {
                                add(self.count(schema, false)?);
                            }
                        }
                        ("$ref", Value::String(reference)) => add(self.follow(reference)?),
                        ("$dynamicRef" | "$recursiveRef", _) => return Err(format!("`{key}` is not supported; use $ref")),
                        ("$id" | "id", Value::String(_)) if !is_root => {
                            return Err(format!("`{key}` may stand at the top of a schema only"));
                        }
                        (_, value) => add(self.count(value, false)?),
                    }
                }
            }
            _ => {}
        }
        Ok(sum)
    }

    fn follow(&mut self, reference: &'a str) -> Result<usize, String> {
        match self.targets.get(reference) {
            Some(Some(count)) => return Ok(*count),
            Some(None) => {
                self.circles = true;
                return Ok(1);
            }
            None => {}
        }
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        let Some(target) = target else {
            return Err(format!(
                "the reference {reference:?} does not stay within the schema; expected one such as #/definitions/name"
            ));
        };
        self.targets.insert(reference, None);
        let count = self.count(target, true)?;
        self.targets.insert(reference, Some(count));
        Ok(count)
    }
}

fn draft(schema: &Value) -> Result<Draft, String> {
    let Some(name) = schema.get("$schema") else {
        return match later(schema) {
            Some(word) => Err(format!(
                "`{word}` is not of draft 7, which a schema without $schema is read by; \
                 say \"$schema\": \"https://json-schema.org/draft/2020-12/schema\""
            )),
            None => Ok(Draft::Draft7),
        };
    };
    let text = name.as_str().unwrap_or_default();
    let bare = text.trim_end_matches('#').trim_start_matches("https://").trim_start_matches("http://");
    match bare {
        "json-schema.org/draft-04/schema" => Ok(Draft::Draft4),
        "json-schema.org/draft-06/schema" => Ok(Draft::Draft6),
        "json-schema.org/draft-07/schema" => Ok(Draft::Draft7),
        "json-schema.org/draft/2019-09/schema" => Ok(Draft::Draft201909),
        "json-schema.org/draft/2020-12/schema" => Ok(Draft::Draft202012),
        _ => {
            Err(format!("unknown $schema {name}; known are draft-04, draft-06, draft-07, 2019-09 and 2020-12 of json-schema.org"))
        }
    }
}

/// A keyword of a later draft that stands where a keyword may stand.
fn later(schema: &Value) -> Option<&'static str> {
    match schema {
        Value::Array(items) => items.iter().find_map(later),
        Value::Object(object) => object.iter().find_map(|(key, value)| match key.as_str() {
            word if DATA.contains(&word) => None,
            word if NAMED.contains(&word) => value.as_object().into_iter().flatten().find_map(|(_, schema)| later(schema)),
            key => LATER.iter().find(|word| **word == key).copied().or_else(|| later(value)),
        }),
        _ => None,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn compile(schema: Value) -> Result<Schema, String> {
        Schema::compile(schema.as_object().unwrap())
    }

    fn fits(schema: &Value, value: &Value) -> bool {
        compile(schema.clone()).unwrap().fault(value).is_none()
    }

    #[test]
    fn a_schema_is_read_by_the_draft_that_it_names() {
        let exclusive = json!({"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 1, "exclusiveMinimum": true});
        assert!(fits(&exclusive, &json!(2)) && !fits(&exclusive, &json!(1)));
        for schema in ["http://json-schema.org/draft-06/schema#", "http://json-schema.org/draft-07/schema", ""] {
            let mut tuple = json!({"items": [{"type": "string"}], "additionalItems": false});
            if !schema.is_empty() {
                tuple["$schema"] = json!(schema);
            }
            assert!(fits(&tuple, &json!(["a"])) && !fits(&tuple, &json!(["a", 1])), "{schema}");
        }
        let tuple = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "string"}], "items": false});
        assert!(fits(&tuple, &json!(["a"])) && !fits(&tuple, &json!(["a", 1])));
        let dependent = json!({"$schema": "https://json-schema.org/draft/2019-09/schema", "dependentRequired": {"a": ["b"]}});
        assert!(fits(&dependent, &json!({"b": 1})) && !fits(&dependent, &json!({"a": 1})));
    }

    #[test]
    fn what_cannot_be_compiled_is_refused() {
        let fault = |schema: Value| compile(schema).unwrap_err();
        assert!(fault(json!({"$schema": "urn:mine"})).contains("2020-12"));
        assert!(fault(json!({"prefixItems": []})).contains("$schema"));
        assert!(fault(json!({"properties": {"a": {"allOf": [{"unevaluatedItems": false}]}}})).contains("unevaluatedItems"));
        assert!(fault(json!({"type": "strin"})).contains("/type"));
        assert!(fault(json!({"$ref": "https://example.com/schema.json"})).contains("example.com"));
        assert!(fault(json!({"$ref": "file:///etc/passwd"})).contains("within the schema"));
        assert!(fault(json!({"pattern": "a(?=b)"})).contains("bad schema"));
        assert!(fault(json!({"pattern": "(a{900}){900}"})).contains("bad schema"));
        assert!(fault(json!({"description": "x".repeat(MAX_BYTES)})).contains("longer"));
        let deep = (0..MAX_DEPTH + 1).fold(json!({}), |schema, _| json!({"not": schema}));
        assert!(fault(deep).contains("deeper"));
        assert!(
            compile(json!({"properties": {"prefixItems": {"const": {"minContains": 1}}}})).is_ok(),
            "names and data are no keywords"
        );
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let value = (0..60).fold(json!(1), |value, _| json!({"a": value}));
        let again = || json!({"properties": {"a": {"$ref": "#"}}, "type": "object"});
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"properties": {"id": {"type": "string"}, "a": {"$ref": "#"}}}),
            json!({"definitions": {"a": {"anyOf": [{"$ref": "#/definitions/a"}, {"type": "null"}]}}, "allOf": [{"$ref": "#/definitions/a"}]}),
            json!({"anyOf": [again(), again()]}),
            json!({"oneOf": [again(), again()]}),
            json!({"allOf": [again(), again()]}),
        ] {
            let fault = compile(schema.clone()).unwrap().fault(&value);
            assert!(fault.as_deref().is_none_or(|fault| fault == "value does not fit the schema"), "{schema} {fault:?}");
        }
    }

    /// Each level of the document goes through all levels of the schema.
    #[test]
    fn a_deep_schema_for_a_deep_document_exhausts_no_stack() {
        let levels = MAX_DEPTH - 4;
        for word in ["not", "allOf", "if"] {
            let wrapped = (0..levels / 2).fold(json!({"properties": {"a": {"$ref": "#"}}}), |schema, _| match word {
                "not" => json!({"not": {"not": schema}}),
                "if" => json!({"if": schema.clone(), "then": true}),
                word => json!({ word: [schema] }),
            });
            let value = (0..126).fold(json!(1), |value, _| json!({"a": value}));
            let _ = compile(wrapped).unwrap().fault(&value);
        }
    }

    #[test]
    fn references_that_double_again_and_again_are_refused() {
        let mut definitions = Map::new();
        for n in 0..40 {
            let next = json!({"$ref": format!("#/definitions/d{}", n + 1)});
            definitions.insert(format!("d{n}"), json!({"anyOf": [next.clone(), next]}));
        }
        definitions.insert("d40".to_owned(), json!({"type": "null"}));
        let fault = compile(json!({"definitions": definitions, "allOf": [{"$ref": "#/definitions/d0"}]})).unwrap_err();
        assert!(fault.contains("places"), "{fault}");
    }

    #[test]
    fn defaults_are_put_where_nothing_stands() {
        let schema = compile(json!({"properties": {
            "a": {"default": 1}, "b": {"properties": {"c": {"default": [2]}}}, "d": {"default": {}, "properties": {"e": {"default": null}}}
        }}))
        .unwrap();
        let mut value = json!({"b": {}});
        assert!(schema.complete(&mut value));
        assert_eq!(value, json!({"b": {"c": [2]}, "a": 1, "d": {"e": null}}));
        assert!(!schema.complete(&mut value) && !schema.complete(&mut json!([])));
    }

    #[test]
    fn a_fault_names_its_place_and_not_the_value() {
        let schema = compile(json!({"properties": {"a": {"items": {"type": "integer"}}}, "required": ["b"]})).unwrap();
        assert_eq!(schema.fault(&json!({"b": 1, "a": [1, "secret"]})).unwrap(), "/a/1: value is not of type \"integer\"");
        assert_eq!(schema.fault(&json!({})).unwrap(), "\"b\" is a required property");
    }
}
