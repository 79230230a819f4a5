//! A SPIRE agent's socket, imagined: what it gives becomes our identity, and what is wrong is refused in its own protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::Pin;

use heddle_node::readiness::Readiness;
use heddle_proto::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::super::signer::Trust;
use super::super::testing::Authority;
use super::*;

const TTL: Duration = Duration::from_secs(3_600);

type Answer = Result<discovery::DiscoveryResponse, Status>;

/// The other end: what it was asked, and what it will say.
struct Spire {
    asked: mpsc::Sender<discovery::DiscoveryRequest>,
    says: Mutex<Option<mpsc::Receiver<Answer>>>,
}

#[tonic::async_trait]
impl SecretDiscoveryService for Spire {
    type StreamSecretsStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<discovery::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (mut requests, asked) = (request.into_inner(), self.asked.clone());
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let _ = asked.send(request).await;
            }
        });
        let says = self.says.lock().take().ok_or_else(|| Status::unavailable("once only"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(says))))
    }
}

fn inline(pem: String) -> Option<core::DataSource> {
    Some(core::DataSource { specifier: Some(core::data_source::Specifier::InlineBytes(pem.into_bytes())) })
}

/// An answer with these secrets.
fn answer(nonce: &str, svid: Option<&Svid>, roots: Option<&Bundle>) -> Answer {
    let certificate = svid.map(|svid| {
        let certificate = tls::TlsCertificate {
            certificate_chain: inline(svid.chain_pem()),
            private_key: inline(svid.key_pem()),
            ..tls::TlsCertificate::default()
        };
        tls::Secret { name: svid.id().to_string(), r#type: Some(tls::secret::Type::TlsCertificate(certificate)) }
    });
    let context = roots.map(|roots| {
        let context = tls::CertificateValidationContext { trusted_ca: inline(roots.pem()), ..Default::default() };
        tls::Secret { name: format!("spiffe://{}", roots.domain()), r#type: Some(tls::secret::Type::ValidationContext(context)) }
    });
    let mut response =
        discovery::DiscoveryResponse { version_info: nonce.to_owned(), nonce: nonce.to_owned(), ..Default::default() };
    response.type_url = SECRET.to_owned();
    let secrets = certificate.into_iter().chain(context);
    response.resources = secrets.map(|secret| prost_types::Any::from_msg(&secret).unwrap()).collect();
    Ok(response)
}

#[tokio::test]
async fn what_the_socket_gives_is_who_we_are() {
    let authority = Authority::new("a.test");
    let web = authority.id("web");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spire.sock");
    let (asked, mut requests) = mpsc::channel(8);
    let (says, receiver) = mpsc::channel(8);
    let spire = SecretDiscoveryServiceServer::new(Spire { asked, says: Mutex::new(Some(receiver)) });
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(
        Server::builder().add_service(spire).serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener)),
    );

    let (identity, readiness) = (Identity::new(), Readiness::new());
    let (held, stats) = (Arc::new(Held::beside(identity.clone())), Arc::<Stats>::default());
    let source = Source {
        held: held.clone(),
        domain: authority.domain.clone(),
        wanted: Some(web.clone()),
        node: "web-1".to_owned(),
        stats: stats.clone(),
    };
    let guard = readiness.guard("identity");
    tokio::spawn(async move { source.follow(&path, Some(guard), fastrand::Rng::with_seed(1)).await });

    let first = requests.recv().await.unwrap();
    assert_eq!(first.resource_names, [web.to_string(), "spiffe://a.test".to_owned()]);
    let svid = authority.svid(&web, TTL);
    says.send(answer("1", Some(&svid), Some(&authority.bundle()))).await.unwrap();
    let ack = requests.recv().await.unwrap();
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str(), ack.error_detail), ("1", "1", None));
    assert_eq!(identity.svid().unwrap().serial(), svid.serial());
    assert_eq!(*identity.bundles(), authority.bundles());
    assert!(readiness.verdict().is_ready());

    // An identity of somebody else, or one that no root vouches for, is refused, and what is held stays.
    for wrong in [authority.svid(&authority.id("db"), TTL), Authority::new("a.test").svid(&web, TTL)] {
        says.send(answer("2", Some(&wrong), None)).await.unwrap();
        let nack = requests.recv().await.unwrap();
        assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("1", "2"));
        assert!(nack.error_detail.is_some());
        assert_eq!(identity.svid().unwrap().serial(), svid.serial());
    }
    let next = authority.svid(&web, TTL);
    says.send(answer("3", Some(&next), None)).await.unwrap();
    assert_eq!(requests.recv().await.unwrap().version_info, "3");
    assert_eq!(identity.svid().unwrap().serial(), next.serial());

    // Who else is federated the control plane says; what vouches for us it does not, and it hears when its own roots are not among those.
    let partner = Authority::new("partner.test");
    let told = |own: &Authority, version: &str| Trust {
        bundles: own.bundles().with_federated(partner.bundle()),
        version: version.to_owned(),
    };
    held.trust(told(&authority, "v1"));
    assert_eq!((&*identity.bundles(), &*held.version()), (&authority.bundles().with_federated(partner.bundle()), "v1"));
    held.trust(told(&Authority::new("a.test"), "v2"));
    assert_eq!((&*identity.bundles(), &*held.version()), (&authority.bundles().with_federated(partner.bundle()), ""));
    says.send(answer("4", None, Some(&authority.bundle()))).await.unwrap();
    requests.recv().await.unwrap();
    assert!(identity.bundles().get(partner.bundle().domain()).is_some(), "it stays when the socket speaks of ours");

    // One that nobody renews is a reason to wake somebody, until it is renewed.
    let overdue = |is: bool| stats.page(&identity).contains(&format!("heddle_identity_renewal_overdue {}\n", u8::from(is)));
    assert!(overdue(false));
    says.send(answer("5", Some(&authority.svid(&web, Duration::from_secs(3))), None)).await.unwrap();
    requests.recv().await.unwrap();
    let seen = async {
        while !overdue(true) {
            tokio::time::sleep(Duration::from_millis(20)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap();
    says.send(answer("6", Some(&authority.svid(&web, TTL)), None)).await.unwrap();
    requests.recv().await.unwrap();
    assert!(overdue(false));
}
