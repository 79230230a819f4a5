//! The filters of one place in the order in which they run, split by phase when tables are compiled. It knows no single plugin.

mod compile;
mod step;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use smallvec::SmallVec;

use super::{BodyEdit, Filter, Flow, Offer, Phases, WithBody};
use crate::exchange::{Answer, Exchange};
use crate::http::{Body, ResponseHead};

pub use compile::Parts;
use step::Step;

/// Filters in the order in which they run. Immutable and shared; the steps themselves are shared between merged chains.
#[derive(Default, Clone)]
pub struct Chain {
    /// All steps, by descending priority.
    steps: Vec<Arc<Step>>,
    /// Plugins that are switched off here, which in a consumer's chain switches the route's off.
    off: Vec<Arc<str>>,
    phases: [Box<[Arc<Step>]>; 10],
    /// Steps of `REWRITE` that a consumer has brought.
    added: Box<[Arc<Step>]>,
    /// Whether some filter looks at the body by variables.
    wants_content: bool,
}

/// Edits of one body, in the order in which they apply.
pub type BodyEdits = SmallVec<[BodyEdit; 1]>;

type Act = fn(&dyn Filter, &mut Exchange) -> Flow;

impl Chain {
    /// Whether there are no filters at all.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether it may serve all routes with equal configurations: none of its filters is for one place alone.
    pub fn serves_others(&self) -> bool {
        self.steps.iter().all(|step| !step.own)
    }

    /// Whether nothing comes of merging this chain, as that of a consumer, into another one: it brings no filters and switches none off.
    pub fn changes_nothing(&self) -> bool {
        self.steps.is_empty() && self.off.is_empty()
    }

    /// Whether some filter takes part in one of these phases.
    pub fn has(&self, phases: Phases) -> bool {
        Phases::ALL.iter().zip(&self.phases).any(|(phase, steps)| phases.has(*phase) && !steps.is_empty())
    }

    /// Whether some filter takes part in this single phase.
    pub fn acts_in(&self, phase: Phases) -> bool {
        !self.of(phase).is_empty()
    }

    /// Whether some filter looks at the body by variables, which must have been kept before it goes upstream.
    pub fn wants_content(&self) -> bool {
        self.wants_content
    }

    /// Whether the plugin is enabled here.
    pub fn has_plugin(&self, name: &str) -> bool {
        self.steps.iter().any(|step| *step.name == *name)
    }

    /// Plugin names, effective priorities and origins, in the order in which they run; for people.
    pub fn describe(&self) -> impl Iterator<Item = (&str, i32, &str)> {
        self.steps.iter().map(|step| (&*step.name, step.priority, &*step.origin.0))
    }

    /// What its filters have counted: plugin, origin, event and sum.
    pub fn counters(&self) -> impl Iterator<Item = (&str, &str, &'static str, u64)> {
        let of = |step: &'_ Arc<Step>| step.filter.counters();
        self.steps
            .iter()
            .flat_map(move |step| of(step).into_iter().map(|(event, sum)| (&*step.name, &*step.origin.0, event, sum)))
    }

    /// Phase `REWRITE`; an answer ends the request.
    pub fn rewrite<'a>(&'a self, x: &'a mut Exchange) -> impl Future<Output = Option<Box<Answer>>> + 'a {
        run(self.of(Phases::REWRITE), |filter, x| filter.rewrite(x), x)
    }

    /// Phase `REWRITE` of what a consumer has brought into a merged chain; run once, after authentication.
    pub fn rewrite_added<'a>(&'a self, x: &'a mut Exchange) -> impl Future<Output = Option<Box<Answer>>> + 'a {
        run(&self.added, |filter, x| filter.rewrite(x), x)
    }

    /// Phase `ACCESS`; an answer ends the request.
    pub fn access<'a>(&'a self, x: &'a mut Exchange) -> impl Future<Output = Option<Box<Answer>>> + 'a {
        run(self.of(Phases::ACCESS), |filter, x| filter.access(x), x)
    }

    /// Phase `BEFORE_PROXY`; an answer ends the request.
    pub fn before_proxy<'a>(&'a self, x: &'a mut Exchange) -> impl Future<Output = Option<Box<Answer>>> + 'a {
        run(self.of(Phases::BEFORE_PROXY), |filter, x| filter.before_proxy(x), x)
    }

    /// Phase `AFTER_PROXY`; an answer replaces what was served.
    pub async fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Option<Box<Answer>> {
        for step in self.of(Phases::AFTER_PROXY) {
            if !step.applies(x) {
                continue;
            }
            let mut flow = step.filter.after_proxy(x, head, body);
            while let Flow::Wait(future) = flow {
                flow = future.await(x);
            }
            if let Flow::Answer(answer) = flow {
                return Some(step.dressed(answer));
            }
        }
        None
    }

    /// Phase `REQUEST_BODY`: adds its edits.
    pub fn request_body(&self, x: &mut Exchange, edits: &mut BodyEdits) {
        for step in self.of(Phases::REQUEST_BODY) {
            if step.applies(x) {
                edits.extend(step.filter.request_body(x));
            }
        }
    }

    /// Phase `RESPONSE_HEAD`.
    pub fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        for step in self.of(Phases::RESPONSE_HEAD) {
            if step.applies(x) {
                step.filter.response_head(x, head);
            }
        }
    }

    /// Phase `RESPONSE_BODY`: adds its edits.
    pub fn response_body(&self, x: &mut Exchange, head: &mut ResponseHead, edits: &mut BodyEdits) {
        for step in self.of(Phases::RESPONSE_BODY) {
            if step.applies(x) {
                edits.extend(step.filter.response_body(x, head));
            }
        }
    }

    /// Phase `ENCODE`: looks for an offer that is at least as good as the best so far.
    pub fn offers<'a>(
        &'a self,
        x: &mut Exchange,
        head: &mut ResponseHead,
        length: Option<u64>,
        best: &mut Option<(Offer, &'a dyn Filter)>,
    ) {
        for step in self.of(Phases::ENCODE) {
            if step.applies(x)
                && let Some(offer) = step.filter.offer(x, head, length)
                && best.as_ref().is_none_or(|(other, _)| offer >= *other)
            {
                *best = Some((offer, &*step.filter));
            }
        }
    }

    /// Phase `REDACT`.
    pub fn redact(&self, x: &mut Exchange) {
        for step in self.of(Phases::REDACT) {
            if step.applies(x) {
                step.filter.redact(x);
            }
        }
    }

    /// Phase `LOG`.
    pub fn log(&self, x: &Exchange) {
        for step in self.of(Phases::LOG) {
            if step.holds(x) {
                step.filter.log(x);
            }
        }
    }

    fn of(&self, phase: Phases) -> &[Arc<Step>] {
        &self.phases[phase.number()]
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.describe()).finish()
    }
}

/// Runs one phase in order until a filter answers.
async fn run(steps: &[Arc<Step>], act: Act, x: &mut Exchange) -> Option<Box<Answer>> {
    for step in steps {
        if step.wants_content
            && let Err(answer) = keep_content(x).await
        {
            return Some(answer);
        }
        if !step.applies(x) {
            continue;
        }
        let mut flow = act(&*step.filter, x);
        loop {
            match flow {
                Flow::Continue => break,
                Flow::Answer(answer) => return Some(step.dressed(answer)),
                Flow::Wait(future) => flow = future.await(x),
                Flow::Body { limit, then } => flow = with_body(x, limit, then).await,
            }
        }
    }
    None
}

/// Keeps the request body for variables. A future of its own and boxed, since few requests need it.
pub fn keep_content(x: &mut Exchange) -> Pin<Box<dyn Future<Output = Result<(), Box<Answer>>> + '_>> {
    Box::pin(async move { x.keep_content().await.map_err(|reason| Box::new(Answer::of(reason))) })
}

/// Reads the request body for a filter that needs it whole. A future of its own and boxed, since few requests need it.
fn with_body(x: &mut Exchange, limit: u64, then: WithBody) -> Pin<Box<dyn Future<Output = Flow> + '_>> {
    Box::pin(async move {
        match x.read_body(limit).await {
            Ok(bytes) => then(x, bytes),
            Err(reason) => Flow::Answer(Box::new(Answer::of(reason))),
        }
    })
}
