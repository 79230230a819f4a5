//! Names of header fields by patterns. It knows no message.

use crate::exchange::pattern::Patterns;

/// Some names of fields, in any case.
#[derive(Debug)]
pub(super) struct Matching(Option<Patterns>);

impl Matching {
    /// Compiles patterns, each of which covers a whole name.
    ///
    /// # Errors
    /// What is wrong, and at which place of the list.
    pub(super) fn new(patterns: &[String]) -> Result<Matching, (Option<usize>, String)> {
        if patterns.is_empty() {
            return Ok(Matching(None));
        }
        let whole: Vec<String> = patterns.iter().map(|pattern| format!("^(?:{pattern})$")).collect();
        Patterns::new(&whole, "i").map(|patterns| Matching(Some(patterns)))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether this name is one of them.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|patterns| patterns.found_in(name))
    }
}
