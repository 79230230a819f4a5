//! The agent against a control plane over real TLS: who answers, what is asked, which bundles arrive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use heddle_node::identity::{Bundles, ClientAuth, Expect, Identity, SpiffeId, peer_of};
use parking_lot::Mutex;
use proto::identity_service_server::{IdentityService, IdentityServiceServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::{Connected, Server};
use tonic::{Request, Response, Streaming};

use super::super::testing::Authority;
use super::*;

const TTL: Duration = Duration::from_secs(3_600);

/// A connection with what its handshake has told.
struct Tls(tokio_rustls::server::TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = Option<SpiffeId>;

    fn connect_info(&self) -> Option<SpiffeId> {
        self.0.get_ref().1.peer_certificates().and_then(peer_of)
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The control plane's end.
struct Control {
    authority: Arc<Authority>,
    bundles: watch::Receiver<proto::Bundles>,
    seen: Arc<Mutex<Vec<String>>>,
    held: watch::Sender<String>,
    /// Refusals that it has heard of; the first ones get lost with their stream.
    refused: Arc<Mutex<Vec<(String, u64)>>>,
    lost: Arc<AtomicBool>,
}

fn encoded(version: &str, bundles: &Bundles) -> proto::Bundles {
    let one = |bundle: &heddle_node::identity::Bundle| proto::Bundle {
        trust_domain: bundle.domain().to_string(),
        roots_der: bundle.roots().iter().map(|root| root.to_vec()).collect(),
    };
    proto::Bundles {
        version: version.to_owned(),
        trust_domain: bundles.own_domain().unwrap().to_string(),
        bundles: bundles.iter().map(one).collect(),
    }
}

#[tonic::async_trait]
impl IdentityService for Control {
    async fn sign(&self, request: Request<proto::SignRequest>) -> Result<Response<proto::SignResponse>, Status> {
        let peer = request.extensions().get::<Option<SpiffeId>>().cloned().flatten();
        let request = request.into_inner();
        let seen = match (request.proof, peer) {
            (Some(proto::sign_request::Proof::JoinToken(token)), None) => token,
            (None, Some(peer)) => peer.to_string(),
            other => format!("{other:?}"),
        };
        self.seen.lock().push(seen.clone());
        if seen == "used" {
            return Err(Status::permission_denied("this join token was used already"));
        }
        if seen == "busy" {
            let mut status = Status::resource_exhausted("too many");
            status.metadata_mut().insert(RETRY_AFTER, "1500".parse().unwrap());
            return Err(status);
        }
        let id = Authority::asked(&request.csr_der).unwrap();
        let chain = self.authority.sign(&request.csr_der, &id, TTL);
        Ok(Response::new(proto::SignResponse {
            chain_der: chain.iter().map(|der| der.to_vec()).collect(),
            bundles: Some(self.bundles.borrow().clone()),
            server_time: Some(clock::wall().into()),
            spiffe_id: id.to_string(),
            ..proto::SignResponse::default()
        }))
    }

    type WatchBundlesStream = Pin<Box<dyn Stream<Item = Result<proto::WatchBundlesResponse, Status>> + Send>>;

    async fn watch_bundles(
        &self,
        request: Request<Streaming<proto::WatchBundlesRequest>>,
    ) -> Result<Response<Self::WatchBundlesStream>, Status> {
        let mut requests = request.into_inner();
        let (held, refused, lost) = (self.held.clone(), self.refused.clone(), self.lost.clone());
        let (over, mut ends) = watch::channel(());
        tokio::spawn(async move {
            let _over = over;
            while let Ok(Some(request)) = requests.message().await {
                if !request.refused.is_empty() && !lost.swap(true, Ordering::Relaxed) {
                    return;
                }
                refused.lock().extend(request.refused.into_iter().map(|refused| (refused.subject, refused.count)));
                held.send_replace(request.held_version);
            }
        });
        let answer =
            |bundles| Ok(proto::WatchBundlesResponse { bundles: Some(bundles), server_time: Some(clock::wall().into()) });
        let mut bundles = self.bundles.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            bundles.mark_changed();
            loop {
                tokio::select! {
                    changed = bundles.changed() => if changed.is_err() { return },
                    _ = ends.changed() => return,
                }
                let now = bundles.borrow_and_update().clone();
                if sender.send(answer(now)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Plane {
    address: SocketAddr,
    authority: Arc<Authority>,
    bundles: watch::Sender<proto::Bundles>,
    seen: Arc<Mutex<Vec<String>>>,
    held: watch::Receiver<String>,
    refused: Arc<Mutex<Vec<(String, u64)>>>,
}

/// Starts a control plane that is `id` to those who ask.
async fn plane(id: impl FnOnce(&Authority) -> SpiffeId) -> Plane {
    let authority = Arc::new(Authority::new("a.test"));
    let identity = authority.member(&id(&authority));
    let (bundles, receiver) = watch::channel(encoded("1", &authority.bundles()));
    let (held, held_receiver) = watch::channel(String::new());
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let refused = Arc::<Mutex<Vec<(String, u64)>>>::default();
    let lost = Arc::default();
    let control =
        Control { authority: authority.clone(), bundles: receiver, seen: seen.clone(), held, refused: refused.clone(), lost };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(identity.server_config(ClientAuth::Optional, &[b"h2"]));
    let (sender, incoming) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                let _ = sender.send(Ok::<_, std::io::Error>(Tls(stream))).await;
            }
        }
    });
    let server = Server::builder().add_service(IdentityServiceServer::new(control));
    tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming).map(|stream| stream)));
    Plane { address, authority, bundles, seen, held: held_receiver, refused }
}

impl Plane {
    fn held(&self) -> Arc<Held> {
        let held = Held::new(Identity::new(), None);
        held.trust(super::super::signer::Trust { bundles: self.authority.bundles(), version: String::new() });
        Arc::new(held)
    }

    fn signer(&self, held: &Held) -> GrpcSigner {
        let (expect, address) = (Expect::AnyOf(vec![SpiffeId::control_plane(&self.authority.domain)]), self.address.to_string());
        GrpcSigner {
            joining: Connector::joining(&address, &held.joiner, expect.clone()).unwrap(),
            renewing: Connector::tls(&address, &held.identity, expect).unwrap(),
        }
    }
}

fn control(authority: &Authority) -> SpiffeId {
    SpiffeId::control_plane(&authority.domain)
}

#[tokio::test]
async fn a_token_joins_and_the_identity_itself_renews() {
    let plane = plane(control).await;
    let held = plane.held();
    let signer = plane.signer(&held);
    let web = plane.authority.id("web");
    let request = super::super::request::Request::new(Some(&web)).unwrap();
    let signed = signer.sign(request.csr(), &Proof::JoinToken("once".to_owned())).await.unwrap();
    assert!(signed.server_time.duration_since(clock::wall()).unwrap_or_default() < Duration::from_secs(1));
    held.become_who(request.fulfil(signed.chain).unwrap(), signed.trust);
    assert_eq!(held.version(), "1");
    let request = super::super::request::Request::new(Some(&web)).unwrap();
    assert!(signer.sign(request.csr(), &Proof::Svid).await.is_ok());
    assert_eq!(*plane.seen.lock(), ["once".to_owned(), web.to_string()]);
}

#[tokio::test]
async fn refusals_keep_their_words() {
    let plane = plane(control).await;
    let held = plane.held();
    let signer = plane.signer(&held);
    let ask = async |token: &str| signer.sign(&[], &Proof::JoinToken(token.to_owned())).await.unwrap_err();
    assert_eq!(ask("used").await, SignError::Refused("this join token was used already".to_owned()));
    assert_eq!(ask("busy").await, SignError::Busy { why: "too many".to_owned(), after: Some(Duration::from_millis(1_500)) });
}

#[tokio::test]
async fn another_workload_cannot_pass_for_the_control_plane() {
    let plane = plane(|authority| authority.id("db")).await;
    let held = plane.held();
    let refused = plane.signer(&held).sign(&[], &Proof::JoinToken("once".to_owned())).await.unwrap_err().to_string();
    assert!(
        refused.contains("the peer is spiffe://a.test/ns/default/svc/db, expected spiffe://a.test/ns/heddle/svc/controlplane"),
        "{refused}"
    );
    assert!(plane.seen.lock().is_empty(), "no token was sent");
}

#[tokio::test]
async fn bundles_are_followed_and_acknowledged() {
    let mut plane = plane(control).await;
    let held = plane.held();
    held.identity.set_svid(plane.authority.svid(&plane.authority.id("web"), TTL));
    let connector = plane.signer(&held).renewing;
    let task = tokio::spawn(follow(connector, held.clone(), Arc::default(), "web-1".to_owned(), fastrand::Rng::with_seed(1)));
    plane.held.wait_for(|version| version == "1").await.unwrap();
    let federated = plane.authority.bundles().with_federated(Authority::new("b.test").bundle());
    plane.bundles.send_replace(encoded("2", &federated));
    plane.held.wait_for(|version| version == "2").await.unwrap();
    assert_eq!(*held.identity.bundles(), federated);
    // Without our own roots nothing is taken over, and the control plane is not told otherwise.
    plane.bundles.send_replace(proto::Bundles {
        version: "3".to_owned(),
        trust_domain: "a.test".to_owned(),
        bundles: Vec::new(),
    });
    plane.bundles.send_replace(encoded("4", &plane.authority.bundles()));
    plane.held.wait_for(|version| version == "4").await.unwrap();
    assert_eq!(*held.identity.bundles(), plane.authority.bundles());
    task.abort();
}

#[tokio::test]
async fn refusals_that_were_under_way_when_their_stream_ended_are_told_on_the_next_one() {
    let mut plane = plane(control).await;
    let held = plane.held();
    held.identity.set_svid(plane.authority.svid(&plane.authority.id("web"), TTL));
    let connector = plane.signer(&held).renewing;
    let task = tokio::spawn(follow(connector, held.clone(), Arc::default(), "web-1".to_owned(), fastrand::Rng::with_seed(1)));
    plane.held.wait_for(|version| version == "1").await.unwrap();
    let refused = Refused { at_ms: 1, reason: "expired", peer: None, subject: "x".into(), detail: String::new(), count: 3 };
    held.identity.refusals().note(refused);
    let heard = async {
        while plane.refused.lock().is_empty() {
            let _ = plane.held.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
    assert_eq!(*plane.refused.lock(), [("x".to_owned(), 3)]);
    task.abort();
}
