//! Identity from a SPIRE agent: its SDS socket is followed, and what arrives there is who we are and whom we trust. Generated types stay here.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_node::identity::{Bundle, Bundles, Identity, SpiffeId, Svid, TrustDomain, Usage};
use heddle_node::readiness::Guard;
use heddle_proto::envoy::config::core::v3 as core;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use heddle_proto::envoy::service::discovery::v3 as discovery;
use heddle_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use heddle_proto::google::rpc;
use heddle_xds::link::Connector;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::held::Held;
use super::stats::Stats;

/// The type of the resources.
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// The name under which SPIRE gives the first identity of a workload.
const DEFAULT: &str = "default";
/// Before a stream that has ended is opened again, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// At least this often is looked how much of its life an identity has left.
const LOOK: Duration = Duration::from_secs(30);
/// The most resources of one answer that are looked at.
const MAX_RESOURCES: usize = 16;

/// What is taken from the socket, and where it goes.
pub(super) struct Source {
    pub(super) held: Arc<Held>,
    /// Our trust domain.
    pub(super) domain: TrustDomain,
    /// Who this process is by its configuration; otherwise the first identity that it is given.
    pub(super) wanted: Option<SpiffeId>,
    /// Id of the node.
    pub(super) node: String,
    pub(super) stats: Arc<Stats>,
}

impl Source {
    /// Follows the socket for ever. What is held stays while nobody is there.
    pub(super) async fn follow(self, path: &Path, mut guard: Option<Guard>, mut dice: fastrand::Rng) {
        tokio::spawn(alarm(self.held.identity.clone(), self.stats.clone()));
        let connector = Connector::unix(path);
        let mut failures = 0_u32;
        loop {
            let why = self.stream(&connector, &mut guard, &mut failures).await;
            self.stats.failed();
            let full = FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT);
            failures = failures.saturating_add(1);
            tracing::warn!(socket = %path.display(), why, "no identities from the SDS socket at present; those that are held stay");
            tokio::time::sleep(full.mul_f64(0.5 + dice.f64() / 2.0)).await;
        }
    }

    /// Follows one stream; returns why it has ended.
    async fn stream(&self, connector: &Connector, guard: &mut Option<Guard>, failures: &mut u32) -> String {
        let channel = match connector.connect().await {
            Ok(channel) => channel,
            Err(error) => return error.to_string(),
        };
        let (sender, requests) = mpsc::channel(2);
        if sender.send(self.request(None, String::new(), None)).await.is_err() {
            return "closed".to_owned();
        }
        let mut responses = match SecretDiscoveryServiceClient::new(channel).stream_secrets(ReceiverStream::new(requests)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) => return status.to_string(),
        };
        let mut accepted = String::new();
        loop {
            let response = match responses.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return "the stream has ended".to_owned(),
                Err(status) => return status.to_string(),
            };
            let (version, nonce) = (response.version_info.clone(), response.nonce.clone());
            let refused = self.take(response).err();
            if let Some(error) = &refused {
                self.stats.failed();
                tracing::error!(error, "what came over the SDS socket cannot be used; what is held stays");
            } else {
                accepted = version;
                *failures = 0;
            }
            if self.held.identity.svid().is_some() {
                *guard = None;
            }
            if sender.send(self.request(Some(nonce), accepted.clone(), refused)).await.is_err() {
                return "the stream has ended".to_owned();
            }
        }
    }

    fn request(&self, nonce: Option<String>, version: String, refused: Option<String>) -> discovery::DiscoveryRequest {
        let svid = self.wanted.as_ref().map_or_else(|| DEFAULT.to_owned(), ToString::to_string);
        let error = |message| rpc::Status { code: Code::InvalidArgument.into(), message, ..rpc::Status::default() };
        discovery::DiscoveryRequest {
            version_info: version,
            node: Some(core::Node { id: self.node.clone(), ..core::Node::default() }),
            resource_names: vec![svid, format!("spiffe://{}", self.domain)],
            type_url: SECRET.to_owned(),
            response_nonce: nonce.unwrap_or_default(),
            error_detail: refused.map(error),
        }
    }

    /// Takes over what an answer holds: all of it, or nothing.
    fn take(&self, response: discovery::DiscoveryResponse) -> Result<(), String> {
        if response.resources.len() > MAX_RESOURCES {
            return Err(format!("{} secrets, expected at most {MAX_RESOURCES}", response.resources.len()));
        }
        let (mut svid, mut own) = (None, None);
        for resource in response.resources {
            let secret = resource.to_msg::<tls::Secret>().map_err(|error| format!("not a Secret: {error}"))?;
            match secret.r#type {
                Some(tls::secret::Type::TlsCertificate(certificate)) => svid = Some(self.svid(certificate)?),
                Some(tls::secret::Type::ValidationContext(context)) => {
                    let bundle =
                        Bundle::from_pem(self.domain.clone(), &text(context.trusted_ca)?).map_err(|error| error.to_string())?;
                    own = Some(bundle);
                }
                _ => return Err(format!("{}: neither a certificate nor roots", secret.name)),
            }
        }
        let identity = &self.held.identity;
        let trusted = own.clone().map_or_else(|| (*identity.bundles()).clone(), Bundles::new);
        if let Some(svid) = svid.as_ref().filter(|_| trusted.own().is_some()) {
            trusted.verify(svid.chain(), Usage::Client, clock::wall()).map_err(|error| error.to_string())?;
        }
        if let Some(own) = own {
            self.held.trust_own(own);
        }
        if let Some(svid) = svid.filter(|svid| identity.svid().is_none_or(|held| held.serial() != svid.serial())) {
            tracing::info!(id = %svid.id(), serial = svid.serial_hex(), "there is a new identity");
            identity.set_svid(svid);
            self.stats.renewed();
        }
        Ok(())
    }

    fn svid(&self, certificate: tls::TlsCertificate) -> Result<Svid, String> {
        let chain = text(certificate.certificate_chain)?;
        let svid = Svid::from_pem(&chain, &text(certificate.private_key)?).map_err(|error| error.to_string())?;
        match &self.wanted {
            Some(wanted) if wanted != svid.id() => Err(format!("it is {}, but this process is {wanted}", svid.id())),
            _ if svid.id().trust_domain() != &self.domain => Err(format!("{} is not of {}", svid.id(), self.domain)),
            _ => Ok(svid),
        }
    }
}

/// Raises the alarm when two thirds of the life of the present identity have passed and the socket has brought no other one.
async fn alarm(identity: Identity, stats: Arc<Stats>) {
    let mut changes = identity.changes();
    let mut told = None;
    loop {
        let svid = identity.svid().filter(|svid| told.as_deref() != Some(svid.serial()));
        let life = |svid: &Svid| svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
        let due = svid.as_ref().map(|svid| svid.remaining(clock::wall()).saturating_sub(life(svid) / 3));
        match (svid, due) {
            (Some(svid), Some(Duration::ZERO)) => {
                let remaining_s = svid.remaining(clock::wall()).as_secs();
                if stats.is_overdue_now() {
                    tracing::error!(id = %svid.id(), remaining_s, "two thirds of the life of this identity have passed and the SDS socket has brought no other one; connections will fail when it ends");
                }
                told = Some(svid.serial().to_vec());
            }
            // The wall clock may jump, or the machine sleep.
            (_, due) => tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(due.unwrap_or(LOOK).min(LOOK)) => {}
            },
        }
    }
}

/// PEM that stands in the message itself; files are not followed, since the path would be the other process's to choose.
fn text(source: Option<core::DataSource>) -> Result<String, String> {
    match source.and_then(|source| source.specifier) {
        Some(core::data_source::Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).map_err(|_| "not PEM".to_owned()),
        Some(core::data_source::Specifier::InlineString(text)) => Ok(text),
        _ => Err("nothing inline".to_owned()),
    }
}
