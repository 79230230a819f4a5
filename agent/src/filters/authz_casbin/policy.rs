//! A model with its policy, compiled by Casbin. It knows no requests and no files.

use casbin::{CoreApi, DefaultModel, Enforcer, StringAdapter};
use futures_util::FutureExt;

use super::functions;

/// Longest text of a model.
const MAX_MODEL: usize = 64 * 1024;
/// Most rules. All of them may have to be tried for each request, and a rule costs microseconds: this bounds what a request may hold its worker.
const MAX_RULES: usize = 1000;
/// Longest text of a policy.
pub(super) const MAX_POLICY: usize = 1024 * 1024;

/// A compiled policy.
pub(super) struct Policy(Enforcer);

impl Policy {
    /// Compiles a model and its policy, and tries them once.
    ///
    /// # Errors
    /// The text at fault (`model` or `policy`) and what is wrong with it.
    pub(super) fn compile(model: &str, policy: &str) -> Result<Policy, (&'static str, String)> {
        if model.len() > MAX_MODEL {
            return Err(("model", format!("longer than {MAX_MODEL} bytes")));
        }
        if let Some(name) = forbidden(model) {
            return Err(("model", format!("{name} is not supported: what it does cannot be bounded")));
        }
        let is_rule = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let rules = policy.lines().filter(is_rule).count();
        if policy.len() > MAX_POLICY || rules > MAX_RULES {
            return Err((
                "policy",
                format!("more than {MAX_RULES} rules or {MAX_POLICY} bytes: each rule costs every request time"),
            ));
        }
        // Nothing here waits: both texts are in memory.
        let waits = |field| (field, "reading it must not wait".to_owned());
        let model = DefaultModel::from_str(model).now_or_never().ok_or_else(|| waits("model"))?;
        let model = model.map_err(|error| ("model", error.to_string()))?;
        let made = Enforcer::new(model, StringAdapter::new(policy)).now_or_never().ok_or_else(|| waits("policy"))?;
        let mut enforcer = made.map_err(|error| ("policy", error.to_string()))?;
        functions::install(&mut enforcer);
        let policy = Policy(enforcer);
        // What goes wrong for everybody (another request definition, rules of another length, unknown functions) is told now.
        policy.allows("anonymous", "/", "GET").map_err(|error| ("model", error))?;
        Ok(policy)
    }

    /// Whether the subject may do this.
    ///
    /// # Errors
    /// What Casbin says when the matcher fails.
    pub(super) fn allows(&self, subject: &str, object: &str, action: &str) -> Result<bool, String> {
        functions::take_failure();
        let allowed = self.0.enforce((subject, object, action)).map_err(|error| error.to_string())?;
        // A rule that cannot be understood may have been one that denies.
        if functions::take_failure() { Err("a pattern of the policy is not usable".to_owned()) } else { Ok(allowed) }
    }
}

/// What a matcher may not call: `eval` runs texts of the policy as programs, and the others fail on texts that Casbin does not expect.
fn forbidden(model: &str) -> Option<&'static str> {
    let calls = |name: &str| model.match_indices(name).any(|(at, _)| model[at + name.len()..].trim_start().starts_with('('));
    ["eval", "keyGet2", "keyGet3"].into_iter().find(|name| calls(name))
}
