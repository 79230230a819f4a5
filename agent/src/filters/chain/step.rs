//! One filter in its place: its condition, its priority and its error body. It knows no phase.

use std::sync::Arc;

use bytes::Bytes;
use heddle_xds::model::PluginOrigin;
use serde_json::Value;
use smallvec::SmallVec;

use super::super::Filter;
use crate::exchange::{Answer, Exchange, Expr};

/// One filter in its place.
pub(super) struct Step {
    pub(super) name: Arc<str>,
    /// Effective priority, `_meta.priority` taken into account.
    pub(super) priority: i32,
    pub(super) origin: PluginOrigin,
    pub(super) filter: Arc<dyn Filter>,
    /// The filter is for this place alone.
    pub(super) own: bool,
    pub(super) condition: Option<Expr>,
    pub(super) error_body: Option<ErrorBody>,
    /// Runs from global rules only where the route does not have it enabled itself.
    pub(super) prefer_route: bool,
    /// Identifies consumers, which must not happen again once one is known.
    pub(super) auth: bool,
    /// Looks at the body by variables, which must have been kept before.
    pub(super) wants_content: bool,
}

/// What replaces the body of a refusal.
pub(super) struct ErrorBody {
    content_type: &'static str,
    body: Bytes,
}

impl ErrorBody {
    pub(super) fn new(value: &Value) -> ErrorBody {
        match value {
            Value::String(text) => ErrorBody { content_type: "text/plain; charset=utf-8", body: Bytes::from(text.clone()) },
            other => ErrorBody { content_type: "application/json", body: Bytes::from(other.to_string()) },
        }
    }
}

/// Conditions evaluated so far for one request, by the address of their step, which lives as long as the tables of the request.
type Verdicts = SmallVec<[(usize, bool); 4]>;
const VERDICTS: &str = "_meta.filter";

impl Step {
    /// Whether the condition holds; evaluated once per request, so that all phases of a filter run or none.
    #[inline]
    pub(super) fn applies(&self, x: &mut Exchange) -> bool {
        self.condition.is_none() || self.decide(x)
    }

    fn decide(&self, x: &mut Exchange) -> bool {
        if let Some(verdict) = self.verdict(x) {
            return verdict;
        }
        let verdict = self.evaluate(x);
        let entry = (std::ptr::from_ref(self).addr(), verdict);
        match x.slot_mut::<Verdicts>(VERDICTS) {
            Some(verdicts) => verdicts.push(entry),
            None => x.put(VERDICTS, Verdicts::from_iter([entry])),
        }
        verdict
    }

    /// The same where nothing can be written down any more.
    pub(super) fn holds(&self, x: &Exchange) -> bool {
        self.condition.is_none() || self.verdict(x).unwrap_or_else(|| self.evaluate(x))
    }

    fn verdict(&self, x: &Exchange) -> Option<bool> {
        let me = std::ptr::from_ref(self).addr();
        x.slot::<Verdicts>(VERDICTS)?.iter().find(|(step, _)| *step == me).map(|(_, verdict)| *verdict)
    }

    fn evaluate(&self, x: &Exchange) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.matches(x))
    }

    /// The answer, with its body replaced when it is a refusal and the user says so.
    pub(super) fn dressed(&self, mut answer: Box<Answer>) -> Box<Answer> {
        if let (Some(error), 400..) = (&self.error_body, answer.head.status) {
            answer.head.fields.set("content-type", error.content_type);
            answer.body = error.body.clone();
        }
        answer
    }
}
