//! Who may ask, by the page that a browser shows: `cors` and `csrf` as our plugins that do the same. It knows no other filter.

use serde_json::json;

use super::super::piece::Deed;
use super::super::read::{Fault, Fields, Read};
use super::super::route::matching::{self, Text};
use super::filters::always;

/// Reads the policy of a route: which pages may read.
pub(super) fn cors(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    fields.ignore(&["shadow_enabled", "forward_not_matching_preflights"]);
    fields.refuse("allow_private_network_access", "is not supported")?;
    let enabled = if fields.has("filter_enabled") { always(fields, "filter_enabled")? } else { true };
    let credentials = fields.is_on("allow_credentials")?;
    let (mut everybody, mut patterns) = (false, Vec::new());
    for origin in fields.list("allow_origin_string_match", matching::string)? {
        match origin {
            Text::Exact(origin) if origin == "*" => everybody = true,
            // Patterns say nothing to those who are not allowed.
            Text::Exact(origin) => patterns.push(format!("^{}$", matching::escaped(&origin))),
            Text::Pattern(pattern, false) => patterns.push(pattern),
            Text::Pattern(pattern, true) => patterns.push(format!("(?i){pattern}")),
        }
    }
    if !everybody && patterns.is_empty() {
        return Err(Fault::new("allow_origin_string_match", "must not be empty"));
    }
    let mut config = json!({"only_preflights": true, "allow_credential": credentials});
    if everybody {
        config["allow_origins"] = json!("**");
    } else {
        config["allow_origins_by_regex"] = json!(patterns);
    }
    for name in ["allow_methods", "allow_headers", "expose_headers"] {
        // What is not said is not told: the browser allows what it allows by itself.
        config[name] = json!(fields.text(name)?.unwrap_or_default().replace(' ', ""));
    }
    if let Some(age) = fields.text("max_age")? {
        config["max_age"] = json!(age.parse::<i64>().map_err(|_| Fault::new("max_age", "expected a number of seconds"))?);
    }
    Ok(enabled.then(|| vec![("cors", config)]))
}

/// Reads the policy: which pages may change something.
pub(super) fn csrf(fields: &mut Fields<'_>) -> Read<Option<Deed>> {
    fields.ignore(&["shadow_enabled"]);
    let enabled = always(fields, "filter_enabled")?;
    let origins = fields.list("additional_origins", matching::string)?;
    let pattern = |origin: &Text| match origin {
        Text::Exact(origin) => format!("^{}$", matching::escaped(origin)),
        Text::Pattern(pattern, false) => pattern.clone(),
        Text::Pattern(pattern, true) => format!("(?i){pattern}"),
    };
    let additional: Vec<String> = origins.iter().map(pattern).collect();
    Ok(enabled.then(|| vec![("csrf", json!({"by_origin": {"additional": additional}}))]))
}
