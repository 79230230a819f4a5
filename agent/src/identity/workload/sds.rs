//! The secrets of an Envoy beside this process, by SDS on the same socket: our identity and those whom we trust, and every change of them, under the names
//! that SPIRE gives them. Generated types stay here.

use std::collections::BTreeSet;

use heddle_node::identity::{Bundle, Bundles, Identity, TrustDomain};
use heddle_proto::envoy::config::core::v3 as core;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use heddle_proto::envoy::service::discovery::v3 as discovery;
use heddle_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The type of the resources.
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// The name of our identity, beside its SPIFFE id.
const IDENTITY: &str = "default";
/// The name of the roots of our trust domain, beside its SPIFFE id.
const ROOTS: &str = "ROOTCA";
/// The name of the roots of all trust domains, each for its own.
const EVERYBODY: &str = "ALL";
/// What Envoy verifies those with.
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
/// Names of one stream.
const MOST: usize = 64;

/// Serves secrets.
pub(super) struct Sds {
    pub(super) identity: Identity,
}

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type StreamSecretsStream = ReceiverStream<Result<discovery::DiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let (identity, requests) = (self.identity.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = converse(&identity, requests, &sender).await {
                // The caller may have gone; then nobody gets to know.
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

type Out = mpsc::Sender<Result<discovery::DiscoveryResponse, Status>>;

async fn converse(identity: &Identity, mut requests: Streaming<discovery::DiscoveryRequest>, out: &Out) -> Result<(), Status> {
    let (mut changes, mut told) = (identity.changes(), Told::default());
    loop {
        tokio::select! {
            message = requests.message() => match message? {
                Some(request) => told.hear(request)?,
                None => return Ok(()),
            },
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
        if let Some(response) = told.answer(identity)
            && out.send(Ok(response)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// What one stream asks for, and what it was told.
#[derive(Default)]
struct Told {
    names: BTreeSet<String>,
    /// Other names are asked for than were answered last.
    owed: bool,
    secrets: Vec<Any>,
    version: u64,
}

impl Told {
    /// An answer to what was told may be out of date already; the names of the newest request always count.
    fn hear(&mut self, request: discovery::DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::invalid_argument(format!("this socket serves {SECRET} only")));
        }
        if request.resource_names.len() > MOST {
            return Err(Status::invalid_argument(format!("at most {MOST} names are answered")));
        }
        if let Some(refused) = request.error_detail {
            tracing::warn!(reason = refused.message, "what is beside this process refuses its identity or the roots");
        }
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        if names != self.names {
            self.owed = true;
            self.names = names;
        }
        Ok(())
    }

    /// What there is to say. What is not there yet is told when it comes.
    fn answer(&mut self, identity: &Identity) -> Option<discovery::DiscoveryResponse> {
        let secrets: Vec<Any> = self.names.iter().filter_map(|name| Any::from_msg(&secret(identity, name)?).ok()).collect();
        if secrets.is_empty() || (!self.owed && secrets == self.secrets) {
            return None;
        }
        self.owed = false;
        self.version += 1;
        self.secrets.clone_from(&secrets);
        let version = self.version.to_string();
        Some(discovery::DiscoveryResponse {
            version_info: version.clone(),
            resources: secrets,
            type_url: SECRET.to_owned(),
            nonce: version,
            ..Default::default()
        })
    }
}

/// What has this name.
fn secret(identity: &Identity, name: &str) -> Option<tls::Secret> {
    let (svid, bundles) = (identity.svid(), identity.bundles());
    let own = svid.as_ref().filter(|svid| name == IDENTITY || name == svid.id().as_str());
    let body = match own {
        Some(svid) => tls::secret::Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: text(svid.chain_pem()),
            private_key: text(svid.key_pem()),
            ..Default::default()
        }),
        None if name == EVERYBODY => tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
            custom_validator_config: Some(each_by_its_own(&bundles)?),
            ..Default::default()
        }),
        None => {
            let bundle = match name {
                ROOTS => bundles.own(),
                name => bundles.get(&domain(name)?),
            };
            tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
                trusted_ca: text(bundle?.pem()),
                ..Default::default()
            })
        }
    };
    Some(tls::Secret { name: name.to_owned(), r#type: Some(body) })
}

fn text(text: String) -> Option<core::DataSource> {
    Some(core::DataSource { specifier: Some(core::data_source::Specifier::InlineString(text)) })
}

/// What believes a certificate by the roots of the trust domain that it names, and by no others; `None` while nobody is trusted.
fn each_by_its_own(bundles: &Bundles) -> Option<core::TypedExtensionConfig> {
    bundles.own()?;
    let one = |bundle: &Bundle| tls::spiffe_cert_validator_config::TrustDomain {
        name: bundle.domain().to_string(),
        trust_bundle: text(bundle.pem()),
    };
    let config = tls::SpiffeCertValidatorConfig { trust_domains: bundles.iter().map(one).collect() };
    Some(core::TypedExtensionConfig { name: VALIDATOR.to_owned(), typed_config: Any::from_msg(&config).ok() })
}

/// Of `spiffe://<trust domain>`; an id of somebody in it is not meant.
fn domain(name: &str) -> Option<TrustDomain> {
    TrustDomain::new(name.strip_prefix("spiffe://")?).ok()
}
