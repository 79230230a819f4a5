//! What pages say of fields, from the schemas: the tables between `<!-- fields -->` and `<!-- /fields -->`, and the index. It knows no plugin.

use std::fmt::Write;

use heddle_xds::catalog::{Catalog, Descriptor, Place};
use serde_json::Value;

/// Objects within objects that a table follows.
const DEEPEST: usize = 6;

/// The page with the tables that its plugin's schemas give.
///
/// # Errors
/// The page has no place for them.
pub fn with_fields(page: &str, catalog: &dyn Catalog, descriptor: &Descriptor) -> Result<String, String> {
    between(page, "fields", &tables(catalog, descriptor))
}

/// The index with one line for each plugin, by name; `page` gives the page of one.
///
/// # Errors
/// The index has no place for them.
pub fn with_index(index: &str, catalog: &dyn Catalog, page: impl Fn(&str) -> String) -> Result<String, String> {
    let mut plugins: Vec<&Descriptor> = catalog.descriptors().iter().collect();
    plugins.sort_unstable_by_key(|descriptor| descriptor.name);
    let mut table = "| plugin | priority | does |\n|---|---|---|\n".to_owned();
    for Descriptor { name, priority, .. } in plugins {
        let _ = writeln!(table, "| [{name}]({name}.md) | {priority} | {} |", cell(&summary(&page(name))));
    }
    between(index, "plugins", &table)
}

/// The first sentence of the first paragraph.
fn summary(page: &str) -> String {
    let paragraph: Vec<&str> =
        page.lines().skip(1).skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty()).collect();
    let text = paragraph.join(" ");
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

fn between(text: &str, name: &str, content: &str) -> Result<String, String> {
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&open).and_then(|(before, rest)| Some((before, rest.split_once(&close)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("has no lines `{}` and `{close}`", open.trim_end()))?;
    Ok(format!("{before}{open}{content}{close}{after}"))
}

fn tables(catalog: &dyn Catalog, descriptor: &Descriptor) -> String {
    let name = descriptor.name;
    let places = [
        (Place::Route, String::new()),
        (Place::Consumer, "\nOn a consumer or credential:\n\n".to_owned()),
        (Place::Metadata, format!("\nIn `plugin_metadata/{name}`, for all that use the plugin:\n\n")),
    ];
    let mut out = String::new();
    for (place, title) in places {
        let Some(schema) = catalog.schema(name, place) else { continue };
        let mut rows = Rows { schema: &schema, sealed: descriptor.encrypt_fields, text: String::new() };
        rows.object(&schema, "", 0);
        let body = if rows.text.is_empty() {
            "No fields.\n".to_owned()
        } else {
            format!("| field | default | meaning |\n|---|---|---|\n{}", rows.text)
        };
        out.push_str(&title);
        out.push_str(&body);
    }
    out
}

struct Rows<'a> {
    schema: &'a Value,
    sealed: &'a [&'a str],
    text: String,
}

impl<'a> Rows<'a> {
    /// A row for each property, and for those inside it.
    fn object(&mut self, object: &'a Value, prefix: &str, depth: usize) {
        for part in self.alternatives(object) {
            let required = |name: &str| part["required"].as_array().is_some_and(|list| list.iter().any(|one| one == name));
            for (name, property) in part["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "_meta") {
                let path = format!("{prefix}{name}");
                let default = if required(name) { "required".to_owned() } else { default(property) };
                let sealed = if self.sealed.contains(&path.as_str()) { " Encrypted in the store." } else { "" };
                let meaning = format!("{}{sealed}", self.meaning(property));
                let _ = writeln!(self.text, "| `{path}` | {} | {} |", cell(&default), cell(&meaning));
                if depth < DEEPEST {
                    self.inside(property, &path, depth + 1);
                }
            }
        }
    }

    fn inside(&mut self, property: &'a Value, path: &str, depth: usize) {
        for part in self.alternatives(property) {
            if part["properties"].is_object() {
                self.object(part, &format!("{path}."), depth);
            } else if part["items"].is_object() {
                self.inside(&part["items"], &format!("{path}[]"), depth);
            } else if part["additionalProperties"].is_object() {
                self.inside(&part["additionalProperties"], &format!("{path}.*"), depth);
            }
        }
    }

    /// What a schema may stand for: itself, what it refers to, or one of several.
    fn alternatives(&self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolved(schema);
        let several = ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array()).flatten();
        let several: Vec<&Value> = several.flat_map(|one| self.alternatives(one)).collect();
        if several.is_empty() { vec![schema] } else { several }
    }

    fn resolved(&self, schema: &'a Value) -> &'a Value {
        let target = schema["$ref"].as_str().and_then(|name| self.schema.pointer(name.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    /// Its description, and what the types say beyond it.
    fn meaning(&self, property: &'a Value) -> String {
        let described =
            |schema: &Value| schema["description"].as_str().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
        let mut text = described(property).or_else(|| described(self.resolved(property))).unwrap_or_default();
        let parts = self.alternatives(property);
        let named: Vec<String> = parts
            .iter()
            .filter_map(|part| Some(format!("`{}`: {}", part["const"].as_str()?, lower(&described(part)?).trim_end_matches('.'))))
            .collect();
        let constants = parts.iter().flat_map(|part| part["enum"].as_array().into_iter().flatten().chain(part.get("const")));
        let bare: Vec<String> =
            constants.filter(|value| value.is_string()).map(shown).filter(|value| !text.contains(value.as_str())).collect();
        if !named.is_empty() {
            let _ = write!(text, " {}.", named.join("; "));
        } else if !bare.is_empty() {
            let _ = write!(text, " One of {}.", bare.join(", "));
        }
        text.push_str(&bounds(self.resolved(property)));
        text
    }
}

/// ` 1 to 5.`
fn bounds(schema: &Value) -> String {
    let number = |name: &str| schema[name].as_f64();
    let low =
        number("minimum").filter(|low| *low != 0.0 || schema["format"].as_str().is_none_or(|format| !format.starts_with("uint")));
    let high = number("maximum").filter(|_| !matches!(schema["maximum"].as_u64(), Some(255 | 65535)));
    match (low, high, number("maxItems")) {
        (low, Some(high), _) => format!(" {} to {high}.", low.unwrap_or(0.0)),
        (Some(low), None, _) => format!(" At least {low}."),
        (None, None, Some(most)) => format!(" At most {most} entries."),
        _ => String::new(),
    }
}

fn default(property: &Value) -> String {
    match property.get("default") {
        None | Some(Value::Null) => String::new(),
        Some(value) if value.as_object().is_some_and(serde_json::Map::is_empty) => String::new(),
        Some(value) if value.as_array().is_some_and(Vec::is_empty) || value == "" => String::new(),
        Some(Value::Number(number)) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        Some(value) => shown(value),
    }
}

fn shown(value: &Value) -> String {
    format!("`{}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
