//! The filter of `failover`.

use std::sync::Arc;

use serde_json::Value;

use super::super::retry::repeat;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Exchange, Failover};

struct FailingOver(Arc<Failover>);

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let upstream = match &config.upstream_id {
        Some(Value::String(name)) => name.as_str().into(),
        Some(other) => other.to_string().into(),
        None => {
            let why = "an upstream written in place must be named by the control plane".to_owned();
            return Err(vec![check::fault_at("upstream", why)]);
        }
    };
    let after = repeat::compile(
        (&config.statuses, &config.grpc_statuses),
        &config.methods,
        config.on_network_error,
        config.max_body_size,
    );
    Ok(Arc::new(FailingOver(Arc::new(Failover { upstream, after }))))
}

impl Filter for FailingOver {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        x.steer().failover = Some(self.0.clone());
        Flow::Continue
    }
}
