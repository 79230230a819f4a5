//! Questions to the application, asked for as long as somebody wants to know. What follows from the answers it does not know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{ActiveCheck, CheckKind, Thresholds};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::standing::Asked;
use crate::health::Probe;
use crate::net::client_config;
use crate::settings::{ApplicationCheck, CheckProtocol};

/// The questions at work; they end with their drop.
pub(super) struct Checks {
    /// What is known of each.
    pub(super) seen: watch::Receiver<Vec<Asked>>,
    _asking: JoinSet<()>,
}

impl Checks {
    /// Begins to ask.
    pub(super) fn begin(checks: &[ApplicationCheck]) -> Checks {
        let asked = checks.iter().map(|check| Asked::new(name(check), check.failures)).collect();
        let (told, seen) = watch::channel(asked);
        let told = Arc::new(told);
        let mut asking = JoinSet::new();
        for (number, check) in checks.iter().enumerate() {
            asking.spawn(ask(number, probe(check), check.interval, told.clone()));
        }
        Checks { seen, _asking: asking }
    }
}

async fn ask(number: usize, probe: Probe, interval: Duration, told: Arc<watch::Sender<Vec<Asked>>>) {
    loop {
        let finding = probe.run().await;
        told.send_if_modified(|all| {
            // One task for each, and none is ever taken away.
            let Some(one) = all.get_mut(number) else { return false };
            let before = one.clone();
            one.note(finding);
            *one != before
        });
        tokio::time::sleep(interval).await;
    }
}

fn name(check: &ApplicationCheck) -> String {
    match check.protocol {
        CheckProtocol::Http => format!("GET http://{}{}", check.address, check.path),
        CheckProtocol::Https => format!("GET https://{}{}", check.address, check.path),
        CheckProtocol::Tcp => format!("connect to {}", check.address),
    }
}

fn probe(check: &ApplicationCheck) -> Probe {
    let kind = match check.protocol {
        CheckProtocol::Http => CheckKind::Http,
        CheckProtocol::Https => CheckKind::Https,
        CheckProtocol::Tcp => CheckKind::Tcp,
    };
    let address: SocketAddr = check.address;
    let tls = (kind == CheckKind::Https)
        .then(|| client_config(&Arc::new(aws_lc_rs::default_provider()), None, None, &[]).ok().map(Arc::new))
        .flatten();
    // They are judged by whoever asks.
    let (healthy_statuses, unhealthy_statuses) = (Vec::new(), Vec::new());
    let thresholds =
        Thresholds { healthy_statuses, successes: 0, unhealthy_statuses, http_failures: 0, tcp_failures: 0, timeouts: 0 };
    let active = ActiveCheck {
        kind,
        timeout: check.timeout,
        concurrency: 1,
        host: None,
        port: None,
        method: "GET".into(),
        path: check.path.as_str().into(),
        body: "".into(),
        verify_certificate: false,
        headers: Vec::new(),
        healthy_interval: check.interval,
        unhealthy_interval: check.interval,
        thresholds,
        checkers: 0,
    };
    let server_name = Some(ServerName::IpAddress(address.ip().into()));
    Probe { address, host: address.to_string().into(), server_name, tls, check: Arc::new(active) }
}
