//! What a plugin may know while its configuration is compiled, and whether it has made use of what sets its place apart. It compiles nothing.

use std::cell::Cell;

use serde_json::Value;

use super::Keep;
use crate::outbound::Outbound;

/// What a plugin may know while its configuration is compiled.
///
/// What is compiled here serves all routes that have the plugin with an equal configuration, unless the plugin asks for [`BuildContext::origin`] or
/// says that the filter is its [own](BuildContext::own).
pub struct BuildContext<'a> {
    origin: &'a str,
    own: Cell<bool>,
    /// `plugin_metadata/<name>`, when there is one.
    pub metadata: Option<&'a Value>,
    /// Run-time state that outlives a change of tables (counters, buckets).
    pub keep: &'a Keep,
    /// Other services that must be asked over HTTP.
    pub outbound: &'a Outbound,
}

impl<'a> BuildContext<'a> {
    /// A context of the user resource that contributes the configuration, for example `route/r1`.
    pub fn new(origin: &'a str, metadata: Option<&'a Value>, keep: &'a Keep, outbound: &'a Outbound) -> BuildContext<'a> {
        BuildContext { origin, own: Cell::new(false), metadata, keep, outbound }
    }

    /// The user resource that contributed the configuration, for example `route/r1`. Who asks is compiled for that resource alone.
    pub fn origin(&self) -> &'a str {
        self.own();
        self.origin
    }

    /// Says that the filter is for this place alone: it holds state that is not [kept](BuildContext::keep), or comes of more than its configuration
    /// and metadata, as files.
    pub fn own(&self) {
        self.own.set(true);
    }

    /// Whether the filter is for this place alone.
    pub(super) fn is_own(&self) -> bool {
        self.own.get()
    }
}
