//! Paths into JSON as `post_arg.*` writes them: `a.b`, and with the signs of JSONPath `a[0].b`, `a[*].b`, `a..b`, which find many. They know no requests.

use serde_json::Value;

/// Most steps of a path.
const MAX_STEPS: usize = 32;
/// Most values that a path finds.
const MAX_FOUND: usize = 1_000;
/// Most values that are looked at.
const MAX_SEEN: usize = 100_000;

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
    /// Whether it is written with signs of JSONPath: what it finds is a list then, of one or of many.
    many: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(Box<str>),
    Index(usize),
    Each,
    /// The value itself and all below.
    Below,
}

impl JsonPath {
    /// Reads a path; `None` when it is none, or one with filters or slices, which are not known.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let many = text.contains(['[', '*']) || text.contains("..");
        let mut steps = Vec::new();
        let mut rest = text;
        let mut first = true;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('[') {
                let (inner, after) = after.split_once(']')?;
                steps.push(bracket(inner)?);
                rest = after;
            } else {
                rest = match rest.strip_prefix("..") {
                    Some(after) => {
                        steps.push(Step::Below);
                        after
                    }
                    None if first => rest,
                    None => rest.strip_prefix('.')?,
                };
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (key, after) = rest.split_at(end);
                match key {
                    "" if steps.last() == Some(&Step::Below) && after.starts_with('[') => {}
                    "" => return None,
                    "*" => steps.push(Step::Each),
                    key => steps.push(Step::Key(key.into())),
                }
                rest = after;
            }
            first = false;
        }
        (!steps.is_empty() && steps.len() <= MAX_STEPS).then_some(JsonPath { steps, many })
    }

    /// Whether what it finds is a list.
    pub fn finds_many(&self) -> bool {
        self.many
    }

    /// What it finds, in order.
    pub fn find<'a>(&self, document: &'a Value) -> Vec<&'a Value> {
        let mut search = Search { found: Vec::new(), seen: 0 };
        search.go(document, &self.steps);
        search.found
    }

    /// Calls `edit` for each value that it finds, which says whether the value stays; gives back whether something was found.
    pub fn edit(&self, document: &mut Value, edit: &mut dyn FnMut(&mut Value) -> bool) -> bool {
        let mut left = MAX_SEEN;
        change(document, &self.steps, edit, &mut left)
    }
}

/// What stands between brackets.
fn bracket(inner: &str) -> Option<Step> {
    let unquoted = |quote: char| inner.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    match inner {
        "*" => Some(Step::Each),
        _ => match unquoted('\'').or_else(|| unquoted('"')) {
            Some(key) => Some(Step::Key(key.into())),
            None => inner.parse().ok().map(Step::Index),
        },
    }
}

struct Search<'a> {
    found: Vec<&'a Value>,
    seen: usize,
}

impl<'a> Search<'a> {
    /// The depth is bounded by that of the document and by the number of steps.
    fn go(&mut self, value: &'a Value, steps: &[Step]) {
        self.seen += 1;
        if self.seen > MAX_SEEN || self.found.len() >= MAX_FOUND {
            return;
        }
        let Some((step, rest)) = steps.split_first() else { return self.found.push(value) };
        match (step, value) {
            (Step::Key(key), Value::Object(object)) => object.get(&**key).into_iter().for_each(|value| self.go(value, rest)),
            (Step::Index(index), Value::Array(items)) => items.get(*index).into_iter().for_each(|value| self.go(value, rest)),
            (Step::Each, Value::Array(items)) => items.iter().for_each(|value| self.go(value, rest)),
            (Step::Each, Value::Object(object)) => object.values().for_each(|value| self.go(value, rest)),
            (Step::Below, value) => {
                self.go(value, rest);
                match value {
                    Value::Array(items) => items.iter().for_each(|value| self.go(value, steps)),
                    Value::Object(object) => object.values().for_each(|value| self.go(value, steps)),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// Changes what the steps lead to; `edit` says whether the value stays.
fn change(value: &mut Value, steps: &[Step], edit: &mut dyn FnMut(&mut Value) -> bool, left: &mut usize) -> bool {
    let Some((step, rest)) = steps.split_first() else { return false };
    if *left == 0 {
        return false;
    }
    *left -= 1;
    let mut found = false;
    let mut one = |value: &mut Value, found: &mut bool, left: &mut usize| -> bool {
        if rest.is_empty() {
            *found = true;
            return edit(value);
        }
        *found |= change(value, rest, edit, left);
        true
    };
    match (step, value) {
        (Step::Key(key), Value::Object(object)) => {
            let goes = object.get_mut(&**key).is_some_and(|value| !one(value, &mut found, left));
            if goes {
                object.shift_remove(&**key);
            }
        }
        (Step::Index(index), Value::Array(items)) => {
            let goes = items.get_mut(*index).is_some_and(|value| !one(value, &mut found, left));
            if goes {
                items.remove(*index);
            }
        }
        (Step::Each, Value::Array(items)) => items.retain_mut(|value| one(value, &mut found, left)),
        (Step::Each, Value::Object(object)) => object.retain(|_, value| one(value, &mut found, left)),
        (Step::Below, value) => {
            // First what lies deeper, which the edit here may take out.
            match value {
                Value::Array(items) => items.iter_mut().for_each(|value| found |= change(value, steps, edit, left)),
                Value::Object(object) => object.values_mut().for_each(|value| found |= change(value, steps, edit, left)),
                _ => {}
            }
            found |= change(value, rest, edit, left);
        }
        _ => {}
    }
    found
}
