//! The filter of `fault-injection`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::super::check::Faults;
use super::super::fields::HeaderEdits;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange, Expr, Reason, Template};

struct FaultInjection {
    delay: Option<(Share, Duration)>,
    abort: Option<(Share, Arc<Abort>)>,
}

/// Which requests are met.
struct Share {
    /// Out of a hundred.
    percentage: u32,
    /// One must hold, unless there are none.
    conditions: Vec<Expr>,
}

struct Abort {
    status: u16,
    body: Template,
    headers: HeaderEdits,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut faults = Faults::default();
    let delay = config.delay.map(|delay| {
        let duration = Duration::try_from_secs_f64(delay.duration).unwrap_or(Duration::MAX);
        (Share::new(delay.percentage, delay.vars), duration)
    });
    let abort = config.abort.map(|abort| {
        let headers = HeaderEdits::compile(&abort.headers, "abort.headers", &mut faults);
        let compiled = Abort { status: abort.http_status, body: Template::new(&abort.body), headers };
        (Share::new(abort.percentage, abort.vars), Arc::new(compiled))
    });
    faults.into_result()?;
    Ok(Arc::new(FaultInjection { delay, abort }))
}

impl Filter for FaultInjection {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let delay = self.delay.as_ref().filter(|(share, _)| share.meets(x)).map(|(_, duration)| *duration);
        let abort = self.abort.as_ref().filter(|(share, _)| share.meets(x)).map(|(_, abort)| abort.clone());
        match delay {
            None => finish(abort, x),
            Some(duration) => Flow::Wait(Box::pin(async move {
                tokio::time::sleep(duration).await;
                Box::new(move |x: &mut Exchange| finish(abort, x)) as super::super::Resume
            })),
        }
    }
}

fn finish(abort: Option<Arc<Abort>>, x: &mut Exchange) -> Flow {
    match abort {
        Some(abort) => Flow::Answer(Box::new(abort.answer(x))),
        None => Flow::Continue,
    }
}

impl Share {
    fn new(percentage: Option<u32>, vars: Option<Vec<Value>>) -> Share {
        let conditions = vars.iter().flatten().filter_map(|source| Expr::compile(source).ok()).collect();
        Share { percentage: percentage.unwrap_or(100), conditions }
    }

    fn meets(&self, x: &mut Exchange) -> bool {
        let holds = self.conditions.is_empty() || self.conditions.iter().any(|condition| condition.matches(x));
        holds && (self.percentage >= 100 || x.dice.u32(..100) < self.percentage)
    }
}

impl Abort {
    fn answer(&self, x: &Exchange) -> Answer {
        let mut answer = Answer::empty(self.status, Reason::Answered);
        answer.body = Bytes::from(self.body.render(x));
        if !answer.body.is_empty() {
            answer.head.fields.append("content-type", "text/plain; charset=utf-8");
        }
        self.headers.apply_to_response(x, &mut answer.head.fields);
        answer
    }
}
