//! One Consul: its servers tried in turn, its token, its consistency. What answers mean is told elsewhere.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::ConsulError;
use super::crowd::Crowds;
use super::query::{Query, Scope};
use super::settings::ConsulSettings;
use super::tls;
use super::transport::{Raw, Target};
use crate::config::Secret;

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// A Consul, cheap to clone. Connections and the token are shared among clones.
#[derive(Clone)]
pub struct Consul {
    inner: Arc<Inner>,
}

struct Inner {
    settings: ConsulSettings,
    targets: Vec<Target>,
    /// The server that answered last.
    preferred: AtomicUsize,
    token: Mutex<Option<Secret>>,
    queries: Arc<Semaphore>,
    crowds: Crowds,
    crowded: AtomicBool,
}

impl fmt::Debug for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consul").field("addresses", &self.inner.settings.addresses).finish_non_exhaustive()
    }
}

impl Consul {
    /// A client; nothing is opened yet.
    ///
    /// # Errors
    /// An address is none, or a file of TLS or of the token cannot be read.
    pub fn new(settings: ConsulSettings) -> Result<Consul, ConsulError> {
        let mut shared = None;
        let mut targets = Vec::with_capacity(settings.addresses.len());
        for address in &settings.addresses {
            let connector = || match &shared {
                Some(config) => Ok(Arc::clone(config)),
                None => Ok(shared.insert(tls::config(&settings.tls)?).clone()),
            };
            targets.push(Target::new(address, settings.tls.server_name.as_deref(), connector)?);
        }
        if targets.is_empty() {
            return Err(ConsulError::Settings("Consul: expected at least one address".into()));
        }
        let queries = Arc::new(Semaphore::new(usize::try_from(settings.max_queries).unwrap_or(1)));
        let (preferred, crowded, crowds) = (AtomicUsize::new(0), AtomicBool::new(false), Crowds::default());
        let token = Mutex::default();
        let consul = Consul { inner: Arc::new(Inner { settings, targets, preferred, token, queries, crowds, crowded }) };
        consul.read_token()?;
        Ok(consul)
    }

    /// How it is reached.
    #[must_use]
    pub fn settings(&self) -> &ConsulSettings {
        &self.inner.settings
    }

    /// Where a query goes: what `scope` says, else the settings.
    pub(super) fn scope(&self, scope: &Scope) -> Scope {
        let settings = &self.inner.settings;
        Scope {
            datacenter: scope.datacenter.clone().or_else(|| settings.datacenter.clone()),
            namespace: scope.namespace.clone().or_else(|| settings.namespace.clone()),
        }
    }

    /// The right to hold a blocking query, as long as there is one left.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let permit = self.inner.queries.clone().try_acquire_owned().ok();
        if permit.is_none() && !self.inner.crowded.swap(true, Ordering::Relaxed) {
            tracing::info!(
                max_queries = self.inner.settings.max_queries,
                "more services are watched in Consul than may have a query of their own; the others are asked when something has changed"
            );
        }
        permit
    }

    /// Those that have no query of their own.
    pub(super) fn crowds(&self) -> &Crowds {
        &self.inner.crowds
    }

    /// Asks for JSON; `None` is 404.
    pub(super) async fn get<T: DeserializeOwned>(&self, query: &Query) -> Result<Option<T>, ConsulError> {
        let query = query.clone().consistency(self.inner.settings.consistency);
        let (address, raw) = self.ask(Method::GET, &query, Bytes::new(), self.inner.settings.timeout).await?;
        decode(&address, &query, &raw)
    }

    /// Sends a change; its answer does not matter.
    pub(super) async fn put(&self, query: &Query, body: Bytes) -> Result<(), ConsulError> {
        let (address, raw) = self.ask(Method::PUT, query, body, self.inner.settings.timeout).await?;
        if raw.status >= 300 { Err(ConsulError::of_status(&address, query.text(), raw.status, &raw.body)) } else { Ok(()) }
    }

    /// Sends a request to the servers in turn, beginning with the one that answered last. Answers that are none of the server's fault are returned as they
    /// are, 404 too.
    pub(super) async fn ask(
        &self,
        method: Method,
        query: &Query,
        body: Bytes,
        limit: Duration,
    ) -> Result<(String, Raw), ConsulError> {
        let (inner, count) = (&*self.inner, self.inner.targets.len());
        let first = inner.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for step in 0..count {
            let at = (first + step) % count;
            let target = &inner.targets[at];
            let asked = self.once(target, method.clone(), query, body.clone(), limit).await;
            match asked {
                Ok(raw) => {
                    inner.preferred.store(at, Ordering::Relaxed);
                    return Ok((target.address.clone(), raw));
                }
                Err(error) if error.is_of_server() => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| ConsulError::Settings("Consul: expected at least one address".into())))
    }

    async fn once(
        &self,
        target: &Target,
        method: Method,
        query: &Query,
        body: Bytes,
        limit: Duration,
    ) -> Result<Raw, ConsulError> {
        let malformed = |why: String| ConsulError::Settings(format!("Consul: {}: {why}", query.text()));
        let mut request = Request::builder()
            .method(method)
            .uri(query.text())
            .header(header::HOST, target.authority())
            .header(header::ACCEPT, "application/json");
        let token = self.inner.token.lock().clone();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.reveal())
                .map_err(|_| malformed("the token has characters that no header can have".into()))?;
            value.set_sensitive(true);
            request = request.header(TOKEN, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| malformed(error.to_string()))?;
        let raw = target.exchange(&request, self.inner.settings.timeout, limit).await?;
        match raw.status {
            200..300 | 404 => Ok(raw),
            status => {
                let error = ConsulError::of_status(&target.address, request.uri().path(), status, &raw.body);
                if error.is_denied() {
                    // Whoever rotates tokens writes a new file before the old token ends.
                    self.read_token()?;
                }
                Err(error)
            }
        }
    }

    fn read_token(&self) -> Result<(), ConsulError> {
        let settings = &self.inner.settings;
        let token = match &settings.token_file {
            None => settings.token.clone(),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| ConsulError::Settings(format!("the token file of Consul, {}: {error}", file.display())))?;
                Some(Secret::new(text.trim()))
            }
        };
        *self.inner.token.lock() = token;
        Ok(())
    }
}

/// The value of an answer; `None` is 404.
pub(super) fn decode<T: DeserializeOwned>(address: &str, query: &Query, raw: &Raw) -> Result<Option<T>, ConsulError> {
    if raw.status == 404 {
        return Ok(None);
    }
    let path = query.text().split('?').next().unwrap_or_default().to_owned();
    serde_json::from_slice(&raw.body).map(Some).map_err(|error| ConsulError::Malformed {
        address: address.to_owned(),
        path,
        why: error.to_string(),
    })
}
