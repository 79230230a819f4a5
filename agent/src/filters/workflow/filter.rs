//! The filter of `workflow`.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_xds::catalog::ConfigFault;
use serde_json::{Value, json};

use super::super::limits::Acted;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check, jwt_auth, limit_conn, limit_count};
use super::config::{Action, Config, Return};
use crate::exchange::{Answer, Exchange, Expr, Reason};
use crate::http::{FieldName, ResponseHead};

struct Workflow {
    rules: Vec<Rule>,
    /// Some rules say who asks, so that all of them decide before whatever limits.
    identifies: bool,
    /// What those rules tell the upstream in: no request says so itself, whichever of them acts, or none.
    vouched: Vec<FieldName>,
}

struct Rule {
    case: Option<Expr>,
    act: Act,
}

enum Act {
    Return(Box<Answer>),
    Pass,
    Limit(Acted, Arc<dyn Filter>),
    Identify(Arc<dyn Filter>),
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let identifies = config.acts(Action::identifies);
    let acting = config.rules.iter().filter_map(|rule| rule.actions.first()).filter(|action| action.identifies());
    let vouched: BTreeSet<String> = acting.flat_map(|action| jwt_auth::vouched(&action.1)).map(str::to_ascii_lowercase).collect();
    let mut rules = Vec::with_capacity(config.rules.len());
    for (index, rule) in config.rules.into_iter().enumerate() {
        let case = rule.case.as_ref().and_then(|source| Expr::compile(source).ok()).filter(|case| !case.is_trivial());
        // The check has seen to it that there is one.
        let Some(action) = rule.actions.into_iter().next() else { continue };
        rules.push(Rule { case, act: compile(index, &action, context)? });
    }
    Ok(Arc::new(Workflow { rules, identifies, vouched: vouched.into_iter().map(FieldName::new).collect() }))
}

fn compile(index: usize, action: &Action, context: &BuildContext<'_>) -> Result<Act, Vec<ConfigFault>> {
    // Limits with the same configuration count apart in each rule; they have no metadata of their own here.
    let limit = |inner: fn(&Value, &BuildContext<'_>) -> Built| {
        let origin = format!("{}/workflow/{index}", context.origin());
        inner(&action.1, &BuildContext::new(&origin, None, context.keep, context.outbound))
    };
    Ok(match action.0.as_str() {
        "limit-count" => Act::Limit(Acted::Count, limit(limit_count::inner)?),
        "limit-conn" => Act::Limit(Acted::Conn, limit(limit_conn::inner)?),
        "jwt-auth" => Act::Identify(identity(&action.1, context)?),
        "pass" => Act::Pass,
        _ => {
            let answer: Return = check::read(&action.1)?;
            Act::Return(Box::new(Answer::json(answer.code, &json!({"error_msg": "rejected by workflow"}), Reason::Plugin)))
        }
    })
}

/// What identifies knows nothing of its place, so that all routes with equal rules share it; it has no metadata of its own here.
fn identity(config: &Value, context: &BuildContext<'_>) -> Built {
    let inner = BuildContext::new("", None, context.keep, context.outbound);
    let filter = (jwt_auth::PLUGIN.build)(config, &inner)?;
    if inner.is_own() {
        context.own();
    }
    Ok(filter)
}

impl Workflow {
    /// The first rule whose case holds.
    fn act(&self, x: &mut Exchange) -> Flow {
        let fits = |rule: &&Rule| rule.case.as_ref().is_none_or(|case| case.matches(x));
        match self.rules.iter().find(fits).map(|rule| &rule.act) {
            None | Some(Act::Pass) => Flow::Continue,
            Some(Act::Return(answer)) => Flow::Answer(answer.clone()),
            Some(Act::Identify(identity)) => identity.rewrite(x),
            Some(Act::Limit(kind, limit)) => {
                kind.mark(x);
                limit.access(x)
            }
        }
    }
}

impl Filter for Workflow {
    fn phases(&self) -> Phases {
        if self.identifies {
            return Phases::REWRITE;
        }
        let limits = self.rules.iter().any(|rule| matches!(rule.act, Act::Limit(Acted::Count, _)));
        if limits { Phases::ACCESS.and(Phases::RESPONSE_HEAD) } else { Phases::ACCESS }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        for name in &self.vouched {
            x.request.fields.remove_named(name);
        }
        self.act(x)
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        self.act(x)
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        // Only the one that has counted this request has something to tell.
        for rule in &self.rules {
            if let Act::Limit(Acted::Count, limit) = &rule.act {
                limit.response_head(x, head);
            }
        }
    }
}
