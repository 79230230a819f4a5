//! Health checks of an upstream, from the form that users write to the one that agents run. Probing is the agent's.

use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{ActiveCheck, CheckKind, HealthChecks, PassiveCheck, Thresholds};

use crate::model::resources::{Active, CheckType, Checkers, Checks, Passive};
use crate::model::seconds;

/// Translates `checks`. A passive check needs an active one beside it: otherwise nothing would ever bring an endpoint back.
pub(super) fn checks(written: &Checks) -> HealthChecks {
    let active = written.active.as_ref();
    HealthChecks {
        active: active.map(self::active).map(Arc::new),
        passive: active.and(written.passive.as_ref()).map(passive).map(Arc::new),
    }
}

fn active(written: &Active) -> ActiveCheck {
    ActiveCheck {
        kind: match written.kind {
            CheckType::Http => CheckKind::Http,
            CheckType::Https => CheckKind::Https,
            CheckType::Tcp => CheckKind::Tcp,
        },
        timeout: seconds(written.timeout),
        concurrency: written.concurrency,
        host: written.host.as_deref().map(Arc::from),
        port: written.port,
        method: written.http_method.as_str().into(),
        path: written.http_path.as_str().into(),
        body: written.http_req_body.as_str().into(),
        verify_certificate: written.https_verify_certificate,
        headers: written.req_headers.iter().filter_map(|line| header(line)).collect(),
        healthy_interval: Duration::from_secs(written.healthy.interval.into()),
        unhealthy_interval: Duration::from_secs(written.unhealthy.interval.into()),
        thresholds: Thresholds {
            healthy_statuses: written.healthy.http_statuses.clone(),
            successes: written.healthy.successes,
            unhealthy_statuses: written.unhealthy.http_statuses.clone(),
            http_failures: written.unhealthy.http_failures,
            tcp_failures: written.unhealthy.tcp_failures,
            timeouts: written.unhealthy.timeouts,
        },
        checkers: match written.checkers {
            Checkers::Some(count) => count,
            Checkers::All => 0,
        },
    }
}

/// Translates a passive check alone.
pub(super) fn passive(written: &Passive) -> PassiveCheck {
    let thresholds = Thresholds {
        healthy_statuses: written.healthy.http_statuses.clone(),
        successes: written.healthy.successes,
        unhealthy_statuses: written.unhealthy.http_statuses.clone(),
        http_failures: written.unhealthy.http_failures,
        tcp_failures: written.unhealthy.tcp_failures,
        timeouts: written.unhealthy.timeouts,
    };
    PassiveCheck { thresholds }
}

/// `Name: value`.
fn header(line: &str) -> Option<(Arc<str>, Arc<str>)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().into(), value.trim().into()))
}
