//! Prefixes that are cut off the path or put in front of it. It knows no fields but the one that tells what was cut off.

use heddle_xds::model::canonical_path;
use regex::Regex;

use super::super::check::Faults;
use super::filter::normalised;
use crate::exchange::{Exchange, Reason, pattern};
use crate::http::FieldName;

const FORWARDED_PREFIX: FieldName = FieldName::of("X-Forwarded-Prefix");

/// What happens at the start of the path.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    plain: Vec<String>,
    patterns: Vec<Regex>,
    added: Option<String>,
}

impl Prefixes {
    pub(super) fn new(plain: Vec<String>, patterns: &[String], added: Option<String>, faults: &mut Faults) -> Prefixes {
        let mut compiled = Vec::with_capacity(patterns.len());
        for (index, source) in patterns.iter().enumerate() {
            match pattern::compile(source, "") {
                Ok(regex) => compiled.push(regex),
                Err(error) => faults.add(format!("strip_prefixes_regex[{index}]"), error),
            }
        }
        let plain = plain.iter().map(|prefix| canonical_path(prefix)).collect();
        Prefixes { plain, patterns: compiled, added: added.map(|added| added.trim_end_matches('/').to_owned()) }
    }

    /// Cuts off the first that fits and tells the upstream.
    pub(super) fn strip(&self, x: &mut Exchange) -> Result<(), Reason> {
        let path = &x.request.path;
        let plain = self.plain.iter().find(|prefix| path.starts_with(prefix.as_str())).map(String::len);
        let by_pattern = || self.patterns.iter().find_map(|regex| regex.find(path).filter(|found| found.start() == 0));
        let Some(cut) = plain.or_else(|| by_pattern().map(|found| found.end())).filter(|cut| *cut > 0) else { return Ok(()) };
        let rest = normalised(&path[cut..])?;
        x.request.fields.set_named(&FORWARDED_PREFIX, &path[..cut]);
        x.request.path = rest;
        Ok(())
    }

    /// Puts the prefix in front.
    pub(super) fn add(&self, x: &mut Exchange) -> Result<(), Reason> {
        if let Some(added) = &self.added {
            x.request.path = normalised(&[added.as_str(), &x.request.path].concat())?;
        }
        Ok(())
    }
}
