//! A server to ask: its options, and a call from its place in line to its answer. It reads no bytes itself.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use super::connect::{Wire, connect};
use super::lane::{self, Lane};
use super::message::{self, Call, CallError, Failed, Reply};
use super::{Outbound, Url, next_id};
use crate::net;

/// How a server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteOptions {
    /// A call takes at most this long, from the question of the name to the last byte of the answer.
    pub timeout: Duration,
    /// Whether the server's certificate must be one that is trusted, for its name.
    pub verify: bool,
    /// PEM of the authorities that are trusted instead of the system's.
    pub ca: Option<String>,
    /// PEM of the certificate chain and of the key that are shown to servers that ask for them.
    pub identity: Option<(String, String)>,
    /// Whether connections are used again.
    pub keepalive: bool,
    /// A connection rests at most this long.
    pub keepalive_timeout: Duration,
    /// Most connections that rest, on each worker.
    pub keepalive_pool: usize,
    /// Most bytes of content in an answer.
    pub max_body: u64,
    /// Most calls in flight, on each worker; one more is refused at once.
    pub max_in_flight: usize,
}

impl Default for RemoteOptions {
    /// What APISIX's plugins have: 3 s, 5 connections that rest for a minute; and bounds of ours that an honest decision never meets.
    fn default() -> RemoteOptions {
        RemoteOptions {
            timeout: Duration::from_secs(3),
            verify: true,
            ca: None,
            identity: None,
            keepalive: true,
            keepalive_timeout: Duration::from_secs(60),
            keepalive_pool: 5,
            max_body: 1024 * 1024,
            max_in_flight: 1024,
        }
    }
}

/// What makes two remotes the same.
#[derive(PartialEq, Eq)]
pub(super) struct Key {
    pub(super) https: bool,
    pub(super) authority: String,
    pub(super) options: RemoteOptions,
}

/// What all remotes of one server with the same options share.
pub(super) struct Core {
    pub(super) id: u64,
    pub(super) outbound: Outbound,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Tls>,
    authority: String,
    timeout: Duration,
    max_body: u64,
    max_in_flight: usize,
    pub(super) keepalive_timeout: Duration,
    /// Zero when connections are not used again.
    pub(super) keepalive_pool: usize,
}

impl Core {
    pub(super) fn new(outbound: Outbound, url: &Url, options: &RemoteOptions) -> Result<Core, String> {
        Core::speaking(outbound, url, options, &[b"http/1.1"])
    }

    /// One whose connections carry another protocol than HTTP.
    pub(super) fn speaking(outbound: Outbound, url: &Url, options: &RemoteOptions, alpn: &[&[u8]]) -> Result<Core, String> {
        let tls = if url.https { Some(tls(&outbound, url, options, alpn)?) } else { None };
        Ok(Core {
            id: next_id(),
            outbound,
            host: url.host.clone(),
            port: url.port,
            tls,
            authority: url.authority.clone(),
            timeout: options.timeout,
            max_body: options.max_body,
            max_in_flight: options.max_in_flight,
            keepalive_timeout: options.keepalive_timeout,
            keepalive_pool: if options.keepalive { options.keepalive_pool } else { 0 },
        })
    }
}

type Tls = (Arc<ClientConfig>, ServerName<'static>);

fn tls(outbound: &Outbound, url: &Url, options: &RemoteOptions, alpn: &[&[u8]]) -> Result<Tls, String> {
    let shared = &outbound.shared;
    let roots = match (&options.ca, options.verify) {
        (_, false) => None,
        (Some(pem), true) => Some(Arc::new(net::roots_of_pem(pem).map_err(|error| format!("CA: {error}"))?)),
        (None, true) => Some(shared.system_roots.get()?),
    };
    let identity = options.identity.as_ref().map(|(chain, key)| net::key_pair_of_pem(chain, key));
    let identity = identity.transpose().map_err(|error| format!("client certificate: {error}"))?;
    let config = net::client_config(&shared.provider, roots, identity, alpn)?;
    let name = net::server_name(&url.authority).ok_or_else(|| format!("`{}` is no server name", url.host))?;
    Ok((Arc::new(config), name))
}

/// A server to ask and the target that it is asked by default; cheap to clone.
#[derive(Clone)]
pub struct Remote {
    core: Arc<Core>,
    target: Arc<str>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({}{})", self.core.authority, self.target)
    }
}

impl Remote {
    pub(super) fn new(core: Arc<Core>, target: String) -> Remote {
        Remote { core, target: target.into() }
    }

    /// Path and query of the URL.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Host and port of the URL, as `Host` says them.
    pub fn authority(&self) -> &str {
        &self.core.authority
    }

    /// Asks. Dropping the future ends the call and closes its connection.
    ///
    /// A connection that rested may have been closed by the server just when the question was sent; when it dies before a byte of an answer, the call is made
    /// once more on a fresh one, whatever its method: whoever must not be asked twice turns `keepalive` off.
    ///
    /// # Errors
    /// Why there is no answer. Every status is an answer.
    pub async fn send(&self, call: Call) -> Result<Reply, CallError> {
        let core = &self.core;
        let target: &str = if call.target.is_empty() { &self.target } else { &call.target };
        if !message::is_target(target) {
            return Err(CallError::Malformed("the target of the request".to_owned()));
        }
        let lane = lane::of(core);
        let _seat = lane.sit(core.max_in_flight)?;
        let now = clock::now();
        let end = now + core.timeout;
        match timeout_at(end, self.answer(&lane, &call, target, end, now)).await {
            Ok(answered) => answered,
            Err(_) => Err(CallError::Timeout(core.timeout)),
        }
    }

    async fn answer(&self, lane: &Arc<Lane>, call: &Call, target: &str, end: Instant, now: Instant) -> Result<Reply, CallError> {
        if let Some(wire) = lane.take(now) {
            match self.try_on(wire, lane, call, target).await {
                Ok(reply) => return Ok(reply),
                Err(failed) if !failed.silent => return Err(failed.error),
                Err(_) => {}
            }
        }
        let wire = connect(&self.core, lane, end, now).await?;
        self.try_on(wire, lane, call, target).await.map_err(|failed| failed.error)
    }

    async fn try_on(&self, mut wire: Box<dyn Wire>, lane: &Arc<Lane>, call: &Call, target: &str) -> Result<Reply, Failed> {
        let core = &self.core;
        let (reply, reusable) = message::ask(&mut *wire, call, target, &core.authority, core.max_body).await?;
        if reusable {
            lane.put(wire, core, clock::now());
        }
        Ok(reply)
    }
}
