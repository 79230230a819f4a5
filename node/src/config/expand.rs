//! Variables in configuration text. It does not know where their values come from.

use std::borrow::Cow;

use super::mistake::excerpt;

/// Largest value of one variable in bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// Where the values of variables come from; the binary hands over the process environment.
pub trait Environment {
    /// The value of a variable, `None` when it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Which variables are replaced. A value is only text: a plain `${PORT}` may become a number, but never structure. In `{ }` and `[ ]` YAML wants quotes around it.
#[derive(Clone, Copy)]
pub enum Expansion<'a> {
    /// None.
    Off,
    /// `${{NAME}}` and `${{NAME:=default}}` (APISIX): for resources, in which `${host}` is a variable of the request.
    DoubleBraces(&'a dyn Environment),
    /// Also `${NAME}` and `${NAME:-default}`, and `$${` for a literal `${`: for Heddle's own settings.
    All(&'a dyn Environment),
}

/// `text` with its variables replaced.
///
/// # Errors
/// What was expected and what was found.
pub(super) fn expand<'t>(text: &'t str, expansion: Expansion<'_>) -> Result<Cow<'t, str>, String> {
    let (environment, single) = match expansion {
        Expansion::Off => return Ok(Cow::Borrowed(text)),
        Expansion::DoubleBraces(environment) => (environment, false),
        Expansion::All(environment) => (environment, true),
    };
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, reference) = rest.split_at(start);
        let double = reference.starts_with("${{");
        if single && before.ends_with('$') {
            out.push_str(&before[..before.len() - 1]);
            out.push_str("${");
            rest = &reference[2..];
        } else if double || single {
            out.push_str(before);
            let (open, separator, close) = if double { (3, ":=", "}}") } else { (2, ":-", "}") };
            let inside = &reference[open..];
            let Some(end) = inside.find(close) else {
                return Err(format!("expected `{close}` after `{}`", &reference[..open]));
            };
            out.push_str(&value(&inside[..end], separator, environment)?);
            rest = &inside[end + close.len()..];
        } else {
            out.push_str(before);
            out.push_str("${");
            rest = &reference[2..];
        }
    }
    if out.is_empty() && rest.len() == text.len() {
        return Ok(Cow::Borrowed(text));
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

fn value(reference: &str, separator: &str, environment: &dyn Environment) -> Result<String, String> {
    let (name, default) = match reference.split_once(separator) {
        Some((name, default)) => (name.trim(), Some(default)),
        None => (reference.trim(), None),
    };
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("expected the name of an environment variable, found `{}`", excerpt(name)));
    }
    // An empty value counts as unset where there is a default, as in a shell's `:-`.
    match (environment.get(name), default) {
        (Some(value), _) if value.len() > MAX_VALUE_BYTES => {
            Err(format!("environment variable {name} is longer than {MAX_VALUE_BYTES} bytes"))
        }
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(format!("environment variable {name} is not set; set it, or give a default: `${{{name}{separator}…}}`"))
        }
    }
}
