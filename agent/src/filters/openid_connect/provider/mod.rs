//! A provider: its documents, kept and fetched, and the calls that it answers. It knows no sessions and no requests of clients.

mod client;
mod metadata;
mod slot;
mod tokens;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::filters::jose::{Algorithm, KeySet};
use crate::http::{Fields, Method};
use crate::outbound::{Call, Outbound, Remote, RemoteOptions, Reply};

pub(crate) use client::{Client, Signer};
pub(crate) use metadata::Metadata;
pub(crate) use tokens::{Issued, Trouble, introspected, pushed};

use slot::Slot;

/// Most bytes of an answer: key sets and discovery documents are a few KiB.
const MAX_ANSWER: u64 = 256 * 1024;
/// Most calls in flight on each worker.
const MAX_CALLS: usize = 256;

/// A provider, shared by all configurations that name the same one.
pub(crate) struct Provider {
    discovery: String,
    outbound: Outbound,
    options: RemoteOptions,
    /// Kept, so that its connections are.
    remote: Remote,
    metadata: Slot<Metadata>,
    keys: Slot<KeySet>,
}

/// How a provider is asked.
pub(crate) struct Manners {
    /// A call takes at most this long.
    pub timeout: Duration,
    /// Whether its certificate is verified.
    pub verify: bool,
    /// Seconds for which its documents are fresh.
    pub lifetime: u64,
}

impl Provider {
    /// The provider with this discovery document.
    ///
    /// # Errors
    /// In words: what is wrong with the URL.
    pub(crate) fn new(discovery: &str, manners: &Manners, outbound: &Outbound) -> Result<Provider, String> {
        let options = RemoteOptions {
            timeout: manners.timeout,
            verify: manners.verify,
            max_body: MAX_ANSWER,
            max_in_flight: MAX_CALLS,
            ..RemoteOptions::default()
        };
        Ok(Provider {
            discovery: discovery.to_owned(),
            remote: outbound.remote(discovery, &options)?,
            outbound: outbound.clone(),
            options,
            metadata: Slot::new(manners.lifetime),
            keys: Slot::new(manners.lifetime),
        })
    }

    /// What it says of itself, if that is at hand.
    pub(crate) fn metadata_at_hand(self: &Arc<Self>, now: u64) -> Option<Arc<Metadata>> {
        self.metadata.at_hand(now, || self.clone().fetch_metadata())
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It cannot be asked, and never could since this node knows it.
    pub(crate) fn metadata(self: &Arc<Self>, now: u64) -> impl Future<Output = Result<Arc<Metadata>, Trouble>> + 'static {
        let at_hand = self.metadata_at_hand(now);
        let this = self.clone();
        async move {
            match at_hand {
                Some(metadata) => Ok(metadata),
                None => {
                    let fetch = this.clone().fetch_metadata();
                    this.metadata.fetch(now, fetch).await.map_err(Trouble::Down)
                }
            }
        }
    }

    /// Its keys, if they are at hand and hold one that such a token may be signed with.
    pub(crate) fn keys_at_hand(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm, now: u64) -> Option<Arc<KeySet>> {
        self.keys.at_hand(now, || self.clone().fetch_keys(now)).filter(|keys| keys.has(kid, algorithm))
    }

    /// Its keys for such a token. When those at hand hold none, they are fetched anew, which happens only every few seconds.
    ///
    /// # Errors
    /// There are none.
    pub(crate) async fn keys(
        self: Arc<Self>,
        kid: Option<String>,
        algorithm: Algorithm,
        now: u64,
    ) -> Result<Arc<KeySet>, Trouble> {
        if let Some(keys) = self.keys_at_hand(kid.as_deref(), algorithm, now) {
            return Ok(keys);
        }
        let fetched = self.keys.fetch(now, self.clone().fetch_keys(now)).await;
        match (fetched, self.keys.at_hand(now, || self.clone().fetch_keys(now))) {
            (Ok(keys), _) | (Err(_), Some(keys)) => Ok(keys),
            (Err(error), None) => Err(Trouble::Down(error)),
        }
    }

    /// Posts a form to one of its endpoints, never twice, whatever happens to the connection.
    ///
    /// # Errors
    /// There is no answer.
    pub(crate) async fn post(&self, url: &str, form: String, authorization: Option<String>) -> Result<Reply, Trouble> {
        let mut fields = Fields::new();
        fields.append("Content-Type", "application/x-www-form-urlencoded");
        fields.append("Accept", "application/json");
        if let Some(value) = authorization {
            fields.append("Authorization", value);
        }
        let options = RemoteOptions { keepalive: false, ..self.options.clone() };
        let call = Call { method: Method::Post, fields, body: Bytes::from(form), ..Call::default() };
        self.ask(url, &options, call).await
    }

    /// What the provider says of the user whose access token this is.
    ///
    /// # Errors
    /// There is no answer, or it is no JSON object.
    pub(crate) async fn user(&self, url: &str, access_token: &str) -> Result<Map<String, Value>, Trouble> {
        let mut fields = Fields::new();
        fields.append("Authorization", format!("Bearer {access_token}"));
        fields.append("Accept", "application/json");
        let reply = self.ask(url, &self.options, Call { fields, ..Call::default() }).await?;
        if reply.head.status != 200 {
            return Err(Trouble::down(format!("the userinfo endpoint answers {}", reply.head.status)));
        }
        serde_json::from_slice(&reply.body).map_err(|_| Trouble::down("the userinfo endpoint answers no JSON object".to_owned()))
    }

    async fn ask(&self, url: &str, options: &RemoteOptions, call: Call) -> Result<Reply, Trouble> {
        let remote = self.outbound.remote(url, options).map_err(Trouble::down)?;
        remote.send(call).await.map_err(|error| Trouble::down(format!("{}: {error}", remote.authority())))
    }

    async fn fetch_metadata(self: Arc<Self>) -> Result<Metadata, String> {
        let document = fetch(&self.remote).await.and_then(|body| Metadata::parse(&body, &self.discovery));
        document.inspect_err(|error| self.complain("discovery document", error))
    }

    async fn fetch_keys(self: Arc<Self>, now: u64) -> Result<KeySet, String> {
        let metadata = self.metadata(now).await.map_err(|trouble| trouble.to_string())?;
        let keys = async {
            let url = metadata.jwks_uri.as_deref().ok_or("its discovery document names no jwks_uri")?;
            let body = fetch(&self.outbound.remote(url, &self.options)?).await?;
            KeySet::parse(&body).map_err(|error| error.to_string())
        };
        keys.await.inspect_err(|error| self.complain("keys", error))
    }

    fn complain(&self, what: &str, error: &str) {
        tracing::warn!(provider = self.remote.authority(), error, "openid-connect: the provider's {what} cannot be had");
    }
}

async fn fetch(remote: &Remote) -> Result<Bytes, String> {
    let mut fields = Fields::new();
    fields.append("Accept", "application/json");
    let reply = remote.send(Call { fields, ..Call::default() }).await.map_err(|error| error.to_string())?;
    if reply.head.status == 200 { Ok(reply.body) } else { Err(format!("status {} instead of 200", reply.head.status)) }
}
