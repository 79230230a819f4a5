//! Service-account tokens of Kubernetes as proof: the keys of a cluster, kept fresh, and the service that an account is. It knows no request.

mod fetch;
mod keys;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use heddle_node::clock::{self, Instant};
use tokio::sync::Mutex;

use crate::settings::{JwksSource, KubernetesSettings};
use keys::Keys;
pub(super) use token::Account;

/// Keys older than this are asked for again.
const MAX_AGE: Duration = Duration::from_secs(300);
/// A key that is not known is asked for at most this often.
const MIN_AGE: Duration = Duration::from_secs(10);

/// Takes tokens of one cluster.
pub(super) struct Kubernetes {
    settings: KubernetesSettings,
    keys: ArcSwap<Keys>,
    /// When keys were asked for; held while they are.
    asked: Mutex<Option<Instant>>,
}

impl Kubernetes {
    pub(super) fn new(settings: KubernetesSettings) -> Kubernetes {
        Kubernetes { settings, keys: ArcSwap::default(), asked: Mutex::new(None) }
    }

    /// Asks for the keys again when they are old, or, if a key is `missing`, when that was not done just now.
    pub(super) async fn refresh(&self, missing: bool) {
        let mut asked = self.asked.lock().await;
        let age = if missing { MIN_AGE } else { MAX_AGE };
        if asked.is_some_and(|at| clock::now().duration_since(at) < age) {
            return;
        }
        *asked = Some(clock::now());
        let text = match &self.settings.keys {
            JwksSource::File(path) => super::authority::read(path).map_err(|error| error.to_string()),
            JwksSource::Url { url, ca_file, token_file } => fetch::get(url, ca_file.as_deref(), token_file.as_deref()).await,
        };
        match text.and_then(|text| Keys::read(&text)) {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => tracing::error!(error, "the keys of identity.kubernetes cannot be read; those that are known stay"),
        }
    }

    /// The account of a token, or in words why it is not good.
    pub(super) async fn verify(&self, token: &str, now_seconds: u64) -> Result<Account, String> {
        let unverified = token::Unverified::read(token)?;
        if self.keys.load().find(unverified.algorithm, unverified.key_id.as_deref()).next().is_none() {
            self.refresh(true).await;
        }
        unverified.verify(&self.keys.load(), &self.settings.issuer, &self.settings.audience, now_seconds)
    }

    /// The service that an account is: the one of its name, unless the settings say otherwise.
    pub(super) fn service<'a>(&'a self, account: &'a Account) -> &'a str {
        let same = |one: &&crate::settings::ServiceOf| one.namespace == account.namespace && one.service_account == account.name;
        self.settings.services.iter().find(same).map_or(&account.name, |one| &one.service)
    }
}
