//! `_meta`, which every plugin configuration may hold: switch off, order, condition, error body. It knows no plugin.

use heddle_xds::catalog::ConfigFault;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::check::{self, Config, Faults};
use crate::exchange::Expr;

/// `_meta` of a plugin configuration.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    /// Switches the plugin off; its configuration is kept but not used.
    #[serde(default)]
    pub(crate) disable: bool,
    /// Replaces the body when the plugin answers with 400 or above: a text, or an object sent as JSON.
    #[serde(default)]
    pub(crate) error_response: Option<Value>,
    /// Replaces the plugin's place in the order; higher runs first.
    #[serde(default)]
    pub(crate) priority: Option<i32>,
    /// The plugin runs only for requests for which this expression holds.
    #[serde(default)]
    pub(crate) filter: Option<Value>,
    /// Refused: there is no Lua here.
    #[serde(default)]
    #[schemars(skip)]
    pre_function: Option<Value>,
}

impl Config for Meta {
    fn validate(&self, faults: &mut Faults) {
        if self.pre_function.is_some() {
            faults.add("pre_function", "pre_function is not supported: Heddle runs no Lua");
        }
        if self.error_response.as_ref().is_some_and(|body| !body.is_string() && !body.is_object()) {
            faults.add("error_response", "expected a string or an object");
        }
        if let Some(Err(error)) = self.filter.as_ref().map(Expr::compile) {
            faults.add(format!("filter{}", error.path), error.message);
        }
    }
}

impl Meta {
    /// Reads `_meta` out of a whole plugin configuration.
    ///
    /// # Errors
    /// All faults, with paths that start with `_meta`.
    pub(crate) fn of(config: &Value) -> Result<Meta, Vec<ConfigFault>> {
        let Some(meta) = config.get("_meta") else { return Ok(Meta::default()) };
        check::read::<Meta>(meta).map_err(|faults| faults.into_iter().map(under_meta).collect())
    }

    /// The condition, compiled; one that always holds is none.
    pub(crate) fn condition(&self) -> Option<Expr> {
        self.filter.as_ref().and_then(|source| Expr::compile(source).ok()).filter(|expr| !expr.is_trivial())
    }
}

fn under_meta(fault: ConfigFault) -> ConfigFault {
    let path = if fault.path.is_empty() { "_meta".to_owned() } else { format!("_meta.{}", fault.path) };
    ConfigFault { path, ..fault }
}
