//! A whole sidecar on real sockets, from its listener to the application: who is let in, what arrives, and what ends it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod captured;
mod early;
mod outward;
mod ports;
mod requests;
mod tunnels;
mod versions;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use heddle_node::clock;
use heddle_node::identity::{Bundle, Bundles, Expect, Identity, Svid, TrustDomain, nameless};
use heddle_xds::model::{
    AuthorizationPolicy, EdgeLimits, MeshProtocol, PeerAuthentication, PeerMode, PolicyAction, PolicyOperation, PolicyRule,
    Resource,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::harness;
use super::super::{Listeners, Shared, Worker};
use super::{Entry, Inbound, Wanted};
use crate::observe::access_log::{AccessLog, Sink};
use crate::observe::{MeshStats, RouteStats, Sharded, TextWriter};
use crate::outbound::Outbound;
use crate::pipeline::{self, Callees, Pipeline};
use crate::secrets::References;
use crate::settings::InboundSettings;
use crate::tables::{Compiler, Place, Ports};
use crate::upstream::{Clusters, Context, Pools};

const HOUR: Duration = Duration::from_secs(3_600);
const WEB: &str = "/ns/shop/svc/web";
const API: &str = "/ns/shop/svc/api";

/// An authority of a trust domain.
struct Authority {
    domain: &'static str,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(domain: &'static str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("{domain} {}", fastrand::u64(..)));
        let root = params.self_signed(&key).unwrap().der().clone();
        Authority { domain, root, issuer: Issuer::new(params, key) }
    }

    fn bundles(&self) -> Bundles {
        let domain: TrustDomain = self.domain.parse().unwrap();
        Bundles::new(Bundle::from_der(domain, vec![self.root.clone()]).unwrap())
    }

    fn svid(&self, path: &str, until: SystemTime) -> Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{}{path}", self.domain).try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (clock::wall() - 2 * HOUR).into();
        params.not_after = until.into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Svid::new(vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into()).unwrap()
    }

    fn member(&self, path: &str) -> Identity {
        let identity = Identity::new();
        identity.set_bundles(self.bundles());
        identity.set_svid(self.svid(path, clock::wall() + HOUR));
        identity
    }
}

/// A sidecar before an application, with everything between its listener and the application as it really is.
struct Sidecar {
    address: SocketAddr,
    authority: Authority,
    identity: Identity,
    door: Arc<Inbound>,
    stats: Arc<MeshStats>,
    compiler: Compiler,
    worker: Rc<pipeline::Worker>,
    listeners: Option<Listeners<Pipeline>>,
    log: tempfile::NamedTempFile,
}

impl Sidecar {
    fn before(application: SocketAddr, protocol: MeshProtocol, edit: impl FnOnce(&mut InboundSettings)) -> Sidecar {
        Sidecar::before_all((application, protocol), &[], edit)
    }

    /// Before an application with further ports.
    fn before_all(
        (application, protocol): (SocketAddr, MeshProtocol),
        further: &[Place],
        edit: impl FnOnce(&mut InboundSettings),
    ) -> Sidecar {
        let authority = Authority::new("mesh.example");
        let identity = authority.member(WEB);
        let pool = Clusters::new(Arc::new(Context::default()), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        let compiler = Compiler::new(1, pool, Outbound::default(), references).identified_by(identity.clone());
        let ports = Arc::new(Ports::new(application, protocol, further));
        let mut compiler = compiler.beside(ports.clone());
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines = Arc::new(AccessLog::open(&Sink::File(log.path().to_owned()), None).unwrap());
        let shared = pipeline::Shared {
            counters: Sharded::new(1),
            unmatched: Arc::new(RouteStats::new(1)),
            details: Sharded::new(1),
            hostname: "test".into(),
            identity: identity.clone(),
        };
        let dice = fastrand::Rng::with_seed(1);
        let worker = pipeline::Worker::new(0, Pools::new(), Arc::new(shared), dice, Some(lines.batch()), None);
        worker.swap(compiler.tables());
        let mut settings = InboundSettings::default();
        edit(&mut settings);
        let stats = Arc::<MeshStats>::default();
        worker.set_callees(Callees { stats: stats.clone(), ..Callees::default() });
        let door = Arc::new(Inbound::new(identity.clone(), settings, ports, stats.clone()));
        let listener = Arc::new(harness::listener(EdgeLimits::default()));
        let doors = Shared::default();
        let service = Rc::new(Worker::new(Pipeline::new(worker.clone()), Arc::default()));
        let mut listeners = Listeners::new(service, doors.clone(), Duration::from_secs(5));
        let wanted = Wanted { listener: listener.clone(), entry: Entry::Inbound(door.clone()) };
        assert!(listeners.reconcile(&[wanted]).is_empty());
        let address = doors.admission.address(&listener.name, listener.address);
        Sidecar { address, authority, identity, door, stats, compiler, worker, listeners: Some(listeners), log }
    }

    async fn clear(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection of the service `api`.
    async fn call(&self, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
        self.call_as(&self.authority.member(API), alpn).await.unwrap()
    }

    async fn call_as(&self, identity: &Identity, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let config = identity.client_config(Expect::TrustDomain, alpn);
        TlsConnector::from(config).connect(nameless(), self.clear().await).await
    }

    /// An HTTP/2 connection of the service `api`.
    async fn http2(&self) -> h2::client::SendRequest<bytes::Bytes> {
        let (requests, connection) = h2::client::handshake(self.call(crate::net::CALLER_ALPN).await).await.unwrap();
        spawn_local(async move { drop(connection.await) });
        let mut requests = requests.ready().await.unwrap();
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
            requests = requests.ready().await.unwrap();
        }
        requests
    }

    fn judge(&mut self, action: PolicyAction, paths: &[&str]) {
        let operation =
            PolicyOperation { paths: paths.iter().map(|path| (*path).into()).collect(), ..PolicyOperation::default() };
        let policy = AuthorizationPolicy {
            id: "p".into(),
            namespace: "shop".into(),
            service: None,
            action,
            dry_run: false,
            rules: vec![PolicyRule { from: Vec::new(), to: vec![operation] }],
        };
        self.compiler.set(Resource::AuthorizationPolicy(policy)).unwrap();
        self.worker.swap(self.compiler.tables());
    }

    /// The control plane says who is let in.
    fn told(&mut self, mode: PeerMode, ports: &[(u16, PeerMode)]) {
        let (service, ports) = (Some("web".into()), ports.iter().copied().collect());
        let peers = PeerAuthentication { id: "p".into(), namespace: "shop".into(), service, mode: Some(mode), ports };
        self.compiler.set(Resource::PeerAuthentication(peers)).unwrap();
        self.door.obey(&self.compiler.tables().peers);
    }

    fn metrics(&self) -> String {
        let mut page = TextWriter::new();
        self.stats.expose(&mut page);
        page.finish()
    }

    /// The access log, once everything has ended.
    async fn log(mut self) -> String {
        self.listeners.take().unwrap().drain().await;
        self.worker.close_log().await;
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

/// Runs a story on one thread.
async fn story(told: impl Future<Output = ()>) {
    LocalSet::new().run_until(Box::pin(told)).await;
}

/// An application that runs `script` for each connection.
async fn application<F: Future<Output = ()> + 'static>(script: impl Fn(TcpStream) -> F + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    spawn_local(async move {
        loop {
            spawn_local(script(listener.accept().await.unwrap().0));
        }
    });
    address
}

/// An application that answers every request with this, and keeps the heads that it has seen.
async fn answering(answer: &'static str) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let kept = seen.clone();
    let address = application(move |mut stream| {
        let kept = kept.clone();
        async move {
            loop {
                let head = head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                kept.borrow_mut().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, seen)
}

const OK: &str = "HTTP/1.1 200 OK\r\nX-ODD: 1\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET /a HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

/// Reads up to the end of a head.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Asks and reads to the end, whatever the end is.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &str) -> String {
    let mut all = Vec::new();
    if stream.write_all(bytes.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut all).await;
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the other side ends, which must be soon.
async fn ends_within(stream: &mut (impl AsyncReadExt + Unpin), limit: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(limit, stream.read_to_end(&mut rest)).await.is_ok()
}
