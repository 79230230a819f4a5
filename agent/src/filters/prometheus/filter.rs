//! The filter of `prometheus`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Exchange, MetricLabels};
use crate::http::ResponseHead;

struct Prometheus {
    labels: MetricLabels,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(Prometheus { labels: if config.prefer_name { MetricLabels::Names } else { MetricLabels::Ids } }))
}

impl Filter for Prometheus {
    /// Both, so that requests which another filter answers and requests whose client goes away early are counted in detail too.
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::RESPONSE_HEAD)
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        x.metrics = self.labels;
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, _head: &mut ResponseHead) {
        x.metrics = self.labels;
    }
}
