//! Replacing text in a body. It knows no responses.

use std::borrow::Cow;

use bytes::Bytes;
use regex::bytes::{Captures, Regex};

use super::config::{Replace, Scope};
use crate::exchange::{Template, pattern};

/// A compiled replacement.
#[derive(Debug)]
pub(super) struct Replacement {
    regex: Regex,
    text: Template,
    scope: Scope,
}

impl Replacement {
    pub(super) fn new(config: &Replace) -> Result<Replacement, String> {
        let regex = pattern::compile_bytes(&config.regex, &config.options)?;
        Ok(Replacement { regex, text: Template::replacement(&config.replace), scope: config.scope })
    }

    fn apply<'a>(&self, body: &'a [u8]) -> Cow<'a, [u8]> {
        let limit = if self.scope == Scope::Once { 1 } else { 0 };
        self.regex.replacen(body, limit, |captures: &Captures<'_>| {
            let mut out = Vec::new();
            self.text.expand(captures, &mut out);
            out
        })
    }
}

/// Applies replacements one after the other.
pub(super) fn replace_all(replacements: &[Replacement], mut body: Bytes) -> Bytes {
    for replacement in replacements {
        if let Cow::Owned(changed) = replacement.apply(&body) {
            body = Bytes::from(changed);
        }
    }
    body
}
