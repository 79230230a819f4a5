//! The filter of `retry`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use super::repeat;
use crate::exchange::{Budget, Exchange, Retry};

struct Retrying(Arc<Retry>);

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let (percent, burst) = (config.budget_percent, config.budget_burst);
    let key = format!("retry/{}/{percent}/{burst}", context.origin());
    Ok(Arc::new(Retrying(Arc::new(Retry {
        attempts: config.attempts,
        initial_interval: seconds(config.initial_interval),
        max_interval: seconds(config.max_interval.unwrap_or(2.0 * config.initial_interval)),
        timeout: seconds(config.timeout),
        total_timeout: seconds(config.total_timeout),
        after: repeat::compile(
            (&config.statuses, &config.grpc_statuses),
            &config.methods,
            config.on_network_error,
            config.max_body_size,
        ),
        on_unseen: config.on_unseen,
        attempt_header: config.attempt_header.map(Arc::from),
        budget: context.keep.get_or(&key, || Budget::new(percent, burst)),
    }))))
}

/// Seconds that have been checked to be a few.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

impl Filter for Retrying {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        self.0.budget.earn();
        x.steer().retry = Some(self.0.clone());
        Flow::Continue
    }
}
