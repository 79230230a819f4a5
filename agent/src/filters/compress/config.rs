//! Parts of the configurations that are the same for every coding.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::Faults;

/// Media types: a list, or `*` for all.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::filters) enum Types {
    /// `*`.
    All(All),
    /// Types without parameters.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// `*`.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(in crate::filters) enum All {
    /// All types.
    #[serde(rename = "*")]
    All,
}

impl Default for Types {
    fn default() -> Self {
        Types::List(vec!["text/html".to_owned()])
    }
}

/// A version of HTTP, written as a number.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(try_from = "f64")]
#[schemars(with = "f64")]
pub(in crate::filters) enum HttpVersion {
    /// 1.0.
    Http10,
    /// 1.1.
    #[default]
    Http11,
}

impl TryFrom<f64> for HttpVersion {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        match number {
            1.0 => Ok(HttpVersion::Http10),
            1.1 => Ok(HttpVersion::Http11),
            other => Err(format!("expected 1.0 or 1.1, got {other}")),
        }
    }
}

/// Checks lists of media types.
pub(super) fn check_types(path: &str, list: &[String], faults: &mut Faults) {
    for (index, media) in list.iter().enumerate() {
        let parts = media.split_once('/');
        let sound = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"/;,*".contains(&byte));
        if !parts.is_some_and(|(kind, sub)| sound(kind) && sound(sub)) {
            faults.add(format!("{path}[{index}]"), format!("expected a media type such as text/html, got \"{media}\""));
        }
    }
}

impl Types {
    /// Adds what is wrong with them.
    pub(in crate::filters) fn check(&self, excluded: &[String], faults: &mut Faults) {
        if let Types::List(list) = self {
            if list.is_empty() {
                faults.add("types", "expect array to have at least 1 items");
            }
            check_types("types", list, faults);
        }
        check_types("excluded_types", excluded, faults);
    }
}
