//! Texts with variables (`$host`, `${arg_id}`, `\$` for a dollar sign), compiled once. It knows not what they are used for.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Exchange, Variable};

/// A text with variables. What cannot be resolved becomes empty.
#[derive(Debug, Clone, Default)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    Text(Arc<str>),
    Variable(Variable),
    /// `$1` and so on: a capture of the regular expression that goes with the template; `$0` is the whole match.
    Capture(usize),
}

impl Template {
    /// Compiles a text. Every text is a template: a `$` without a name behind it is a dollar sign.
    pub fn new(source: &str) -> Template {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = source;
        while let Some(at) = rest.find(['$', '\\']) {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("\\$") {
                literal.push('$');
                rest = after;
            } else if let Some((name, after)) = name(rest) {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal).into()));
                }
                parts.push(match name.parse() {
                    Ok(number) => Part::Capture(number),
                    Err(_) => Part::Variable(Variable::new(name)),
                });
                rest = after;
            } else {
                literal.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Template { parts }
    }

    /// The text, when there is nothing to resolve in it.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variable, when the template is nothing else.
    pub fn variable(&self) -> Option<&Variable> {
        match self.parts.as_slice() {
            [Part::Variable(variable)] => Some(variable),
            _ => None,
        }
    }

    /// Compiles the replacement text of a regular expression as `ngx.re.sub` writes it: `$1`, `${1}`, `$0`, and `$$` for a dollar sign.
    pub fn replacement(source: &str) -> Template {
        Template::new(&source.replace("$$", "\\$"))
    }

    /// Appends the text for this request and returns how many variables were resolved.
    pub fn render_into(&self, x: &Exchange, out: &mut String) -> usize {
        self.render_with(x, &[], out)
    }

    /// The same with captures; `captures[0]` is the whole match.
    pub fn render_with(&self, x: &Exchange, captures: &[&str], out: &mut String) -> usize {
        self.render_mapped(x, captures, out, |text, out| out.push_str(text))
    }

    /// The same, with `push` appending what variables stand for, so that it can be escaped.
    pub fn render_mapped(&self, x: &Exchange, captures: &[&str], out: &mut String, push: impl Fn(&str, &mut String)) -> usize {
        let mut resolved = 0;
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => {
                    if let Some(text) = variable.get(x) {
                        push(&text, out);
                        resolved += 1;
                    }
                }
                Part::Capture(index) => {
                    if let Some(text) = captures.get(*index) {
                        push(text, out);
                        resolved += 1;
                    }
                }
            }
        }
        resolved
    }

    /// Appends the text of a template that has captures but no request to look at; variables are empty.
    pub fn expand(&self, captures: &regex::bytes::Captures<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Variable(_) => {}
                Part::Capture(index) => out.extend_from_slice(captures.get(*index).map_or(&[][..], |found| found.as_bytes())),
            }
        }
    }

    /// The text for this request.
    pub fn render(&self, x: &Exchange) -> String {
        let mut out = String::new();
        self.render_into(x, &mut out);
        out
    }
}

/// The name behind the `$` that `text` starts with, and what follows it.
fn name(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('$')?;
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let word = |text: &str| text.bytes().position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_')).unwrap_or(text.len());
    let named = inner.strip_prefix("post_arg.").or_else(|| inner.strip_prefix("field_").filter(|_| braced));
    let end = match named {
        // A path, and a name of a field, goes on to the brace; a path without braces from word to word with dots between.
        Some(path) if braced => inner.len() - path.len() + path.find('}')?,
        Some(path) => inner.len() - path.len() + path_end(path, word),
        None => word(inner),
    };
    let (name, after) = inner.split_at(end);
    let after = if braced { after.strip_prefix('}')? } else { after };
    (!name.is_empty()).then_some((name, after))
}

/// Where a path of words with dots between ends.
fn path_end(path: &str, word: impl Fn(&str) -> usize) -> usize {
    let mut end = word(path);
    while let Some(rest) = path[end..].strip_prefix('.') {
        match word(rest) {
            0 => break,
            more => end += 1 + more,
        }
    }
    end
}
