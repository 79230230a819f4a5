//! The mesh: identities on both sides, connections that outlive rotation and no trust, tunnels, WebSocket.

use ::h2::RecvStream;
use ::h2::server::SendResponse;
use heddle_node::identity::{Bundle, Bundles, ClientAuth, Identity, Svid, TrustDomain};
use heddle_xds::model::MeshPeer;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::exchange::Reason;
use crate::upstream::tunnel::OpenTunnel;

type Request = http::Request<RecvStream>;

/// The authority of one trust domain.
struct Authority {
    domain: &'static str,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        Authority::of("mesh.example")
    }

    fn of(domain: &'static str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").try_into().unwrap())];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("root {}", fastrand::u64(..)));
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { domain, certificate, issuer: Issuer::new(params, key) }
    }

    fn bundle(&self) -> Bundle {
        Bundle::from_der(TrustDomain::new(self.domain).unwrap(), vec![self.certificate.clone()]).unwrap()
    }

    fn bundles(&self) -> Bundles {
        Bundles::new(self.bundle())
    }

    fn svid(&self, service: &str) -> Svid {
        self.signs(&spiffe(service))
    }

    /// A certificate with this id, whosever it is.
    fn signs(&self, id: &str) -> Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let now = heddle_node::clock::wall();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + Duration::from_secs(3600)).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Svid::new(vec![leaf], PrivatePkcs8KeyDer::from(key.serialize_der()).into()).unwrap()
    }

    /// Somebody of the mesh.
    fn member(&self, service: &str) -> Identity {
        let identity = Identity::new();
        identity.set_bundles(self.bundles());
        identity.set_svid(self.svid(service));
        identity
    }
}

fn spiffe(service: &str) -> String {
    format!("spiffe://mesh.example/ns/shop/svc/{service}")
}

/// A sidecar that runs `script` for each request, which is told the number of its connection.
async fn sidecar<F: Future<Output = ()> + 'static>(
    identity: &Identity,
    script: impl Fn(Request, SendResponse<Bytes>, usize) -> F + Clone + 'static,
) -> SocketAddr {
    let acceptor = TlsAcceptor::from(identity.server_config(ClientAuth::Required, &[b"h2"]));
    server(move |stream, nth| {
        let (script, acceptor) = (script.clone(), acceptor.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let mut builder = ::h2::server::Builder::new();
            let mut connection = builder.enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::task::spawn_local(script(request, respond, nth));
            }
        }
    })
    .await
}

async fn hello(request: Request, mut respond: SendResponse<Bytes>, nth: usize) {
    let answer = http::Response::builder().header("x-connection", nth).header("x-scheme", request.uri().scheme_str().unwrap());
    respond.send_response(answer.body(()).unwrap(), true).unwrap();
}

fn calling(identity: &Identity, service: &str, addresses: &[SocketAddr]) -> Arc<Edition> {
    expecting(identity, &spiffe(service), addresses)
}

fn expecting(identity: &Identity, id: &str, addresses: &[SocketAddr]) -> Arc<Edition> {
    let context = Context { identity: identity.clone(), ..Context::default() };
    let config = config(|upstream| upstream.mesh = Some(MeshPeer { identities: vec![id.into()], port: None }));
    let nodes: Vec<_> = addresses.iter().copied().map(node).collect();
    Edition::first(Arc::new(context), config, &nodes.into(), &|_| None, heddle_node::clock::now())
}

async fn connection_of(pools: &Rc<Pools>, cluster: &Arc<Edition>) -> String {
    let response = get(pools, cluster).await.unwrap();
    assert_eq!(response.head.fields.get_str("x-scheme"), Some("https"));
    response.head.fields.get_str("x-connection").unwrap().to_owned()
}

#[test]
fn requests_share_a_connection_that_outlives_a_new_certificate_but_not_its_age() {
    run(async {
        let ours = Authority::new();
        let (web, api) = (ours.member("web"), ours.member("api"));
        let cluster = calling(&web, "api", &[sidecar(&api, hello).await]);
        let pools = Pools::new();
        assert_eq!(connection_of(&pools, &cluster).await, "0");
        web.set_svid(ours.svid("web"));
        api.set_svid(ours.svid("api"));
        let now = heddle_node::clock::now();
        pools.sweep(now);
        assert_eq!(connection_of(&pools, &cluster).await, "0");
        assert_eq!(totals(&cluster).connects, 1);
        pools.sweep(now + Duration::from_secs(3600));
        assert_eq!(connection_of(&pools, &cluster).await, "1");
    });
}

#[test]
fn a_connection_is_given_up_when_its_peer_is_trusted_no_more() {
    run(async {
        let (ours, next) = (Authority::new(), Authority::new());
        let (web, api) = (ours.member("web"), ours.member("api"));
        let cluster = calling(&web, "api", &[sidecar(&api, hello).await]);
        let pools = Pools::new();
        assert_eq!(connection_of(&pools, &cluster).await, "0");
        web.set_bundles(next.bundles());
        pools.sweep(heddle_node::clock::now());
        let error = get(&pools, &cluster).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::PeerIdentity, Sent::Nothing), "{error}");
        web.set_bundles(ours.bundles());
        assert_eq!(connection_of(&pools, &cluster).await, "2");
    });
}

#[test]
fn a_service_of_a_partner_is_vouched_for_by_the_partner_alone_and_vouches_for_nobody_else() {
    run(async {
        let (ours, theirs, third) = (Authority::new(), Authority::of("partner.example"), Authority::of("third.example"));
        let web = ours.member("web");
        web.set_bundles(ours.bundles().with_federated(theirs.bundle()).with_federated(third.bundle()));
        let serving = async |svid: Svid| {
            let identity = Identity::new();
            identity.set_bundles(theirs.bundles().with_federated(ours.bundle()));
            identity.set_svid(svid);
            sidecar(&identity, hello).await
        };
        let (own, partners, thirds) =
            (spiffe("api"), "spiffe://partner.example/ns/shop/svc/api", "spiffe://third.example/ns/shop/svc/api");
        let cases = [
            (&theirs, partners, partners, true),
            (&theirs, &*own, &*own, false),
            (&theirs, thirds, thirds, false),
            (&ours, partners, partners, false),
            (&third, partners, partners, false),
            (&theirs, "spiffe://partner.example/ns/shop/svc/other", partners, false),
            (&ours, &*own, partners, false),
            (&theirs, partners, &*own, false),
        ];
        for (authority, shown, expected, good) in cases {
            let cluster = expecting(&web, expected, &[serving(authority.signs(shown)).await]);
            let answer = get(&Pools::new(), &cluster).await;
            let (signed, told) = (authority.domain, answer.as_ref().map_err(|error| (error.reason, error.sent)).err());
            let refused = Some((Reason::PeerIdentity, Sent::Nothing)).filter(|_| !good);
            assert_eq!(told, refused, "{shown} signed by {signed}, where {expected} is expected");
        }
        let labels: Vec<_> = web.refusals().take(0).entries.into_iter().map(|refused| refused.reason).collect();
        assert!(labels.contains(&"untrusted") && labels.contains(&"wrong-identity"), "{labels:?}");

        // Who is federated no more is nobody, on connections that stand too.
        let cluster = expecting(&web, partners, &[serving(theirs.signs(partners)).await]);
        let pools = Pools::new();
        assert_eq!(connection_of(&pools, &cluster).await, "0");
        web.set_bundles(ours.bundles());
        pools.sweep(heddle_node::clock::now());
        assert_eq!(get(&pools, &cluster).await.unwrap_err().reason, Reason::PeerIdentity);
    });
}

#[test]
fn who_is_not_who_it_should_be_gets_nothing_and_is_counted() {
    run(async {
        let ours = Authority::new();
        let address = sidecar(&ours.member("other"), hello).await;
        let cluster = calling(&ours.member("web"), "api", &[address]);
        let error =
            send(&Pools::new(), &cluster, &head(Method::Post, "/"), Body::from(Bytes::from_static(b"x"))).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::PeerIdentity, Sent::Nothing));
        assert!(error.detail.contains(&spiffe("other")) && error.detail.contains(&spiffe("api")), "{error}");
        assert_eq!((totals(&cluster).identity_refused, totals(&cluster).connect_failures), (1, 1));
    });
}

#[test]
fn without_an_identity_of_our_own_nothing_is_tried() {
    run(async {
        let ours = Authority::new();
        let address = sidecar(&ours.member("api"), hello).await;
        let nobody = Identity::new();
        nobody.set_bundles(ours.bundles());
        let cluster = calling(&nobody, "api", &[address]);
        let error = get(&Pools::new(), &cluster).await.unwrap_err();
        assert_eq!((error.reason, error.sent, totals(&cluster).connects), (Reason::NoIdentity, Sent::Nothing, 0));
    });
}

#[test]
fn a_peer_that_does_not_take_our_certificate_has_seen_nothing() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let api = ours.member("api");
        api.set_bundles(theirs.bundles());
        let cluster = calling(&ours.member("web"), "api", &[sidecar(&api, hello).await]);
        let error =
            send(&Pools::new(), &cluster, &head(Method::Post, "/"), Body::from(Bytes::from_static(b"x"))).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamTls, Sent::Nothing), "{error}");
    });
}

/// Takes CONNECT to `db.shop:5432` and echoes what comes, then says goodbye.
async fn echo_tunnel(request: Request, mut respond: SendResponse<Bytes>, _: usize) {
    assert_eq!((request.method(), request.uri().to_string()), (&http::Method::CONNECT, "db.shop:5432".to_owned()));
    let mut out = respond.send_response(http::Response::new(()), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(bytes)) = body.data().await {
        body.flow_control().release_capacity(bytes.len()).unwrap();
        out.send_data(bytes, false).unwrap();
    }
    out.send_data(Bytes::from_static(b"bye"), true).unwrap();
}

async fn answer_tunnel(status: u16, mut respond: SendResponse<Bytes>) {
    respond.send_response(http::Response::builder().status(status).body(()).unwrap(), true).unwrap();
}

async fn tunnel(pools: &Rc<Pools>, cluster: &Arc<Edition>) -> Result<OpenTunnel, UpstreamError> {
    let mut dice = fastrand::Rng::with_seed(1);
    let timeouts = Timeouts::default();
    pools.tunnel(&pools.target(cluster), Dial::to("db.shop:5432", &timeouts), &mut dice).await
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_ends_one_direction_at_a_time() {
    run(async {
        let ours = Authority::new();
        let cluster = calling(&ours.member("web"), "db", &[sidecar(&ours.member("db"), echo_tunnel).await]);
        let pools = Pools::new();
        let (mut one, mut two) = (tunnel(&pools, &cluster).await.unwrap(), tunnel(&pools, &cluster).await.unwrap());
        let sent: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        for open in [&mut one, &mut two] {
            let (mut read, mut write) = tokio::io::split(&mut open.io);
            let mut got = Vec::new();
            let writing = async {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let ((), read) = tokio::join!(writing, read.read_to_end(&mut got));
            read.unwrap();
            assert!(got.starts_with(&sent) && got.ends_with(b"bye"), "{}", got.len());
        }
        drop((one, two));
        assert_eq!((totals(&cluster).connects, totals(&cluster).active), (1, 0));
    });
}

#[test]
fn a_tunnel_is_tried_at_the_next_peer_unless_it_is_refused() {
    run(async {
        let ours = Authority::new();
        let (web, db) = (ours.member("web"), ours.member("db"));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let other = sidecar(&ours.member("other"), echo_tunnel).await;
        let without = sidecar(&db, |_, respond, _| answer_tunnel(503, respond)).await;
        let good = sidecar(&db, echo_tunnel).await;
        let cluster = calling(&web, "db", &[closed, other, without, good]);
        let open = tunnel(&Pools::new(), &cluster).await.unwrap();
        assert_eq!(open.endpoint.address, good);
        let refusing = sidecar(&db, |_, respond, _| answer_tunnel(403, respond)).await;
        let cluster = calling(&web, "db", &[refusing, good]);
        assert_eq!(tunnel(&Pools::new(), &cluster).await.err().map(|error| error.reason), Some(Reason::TunnelRefused));
    });
}

#[test]
fn web_sockets_go_through_the_mesh() {
    run(async {
        let ours = Authority::new();
        let address = sidecar(&ours.member("api"), |request: Request, mut respond: SendResponse<Bytes>, _| async move {
            let protocol = request.extensions().get::<::h2::ext::Protocol>().map(|protocol| protocol.as_str().to_owned());
            assert_eq!((request.method(), protocol.as_deref()), (&http::Method::CONNECT, Some("websocket")));
            assert!(
                !request.headers().contains_key("sec-websocket-key") && request.headers().contains_key("sec-websocket-version")
            );
            let mut out = respond.send_response(http::Response::new(()), false).unwrap();
            let mut body = request.into_body();
            let bytes = body.data().await.unwrap().unwrap();
            out.send_data(bytes, true).unwrap();
        })
        .await;
        let cluster = calling(&ours.member("web"), "api", &[address]);
        let pools = Pools::new();
        let mut head = head(Method::Get, "/chat");
        for (name, value) in
            [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
        {
            head.fields.append(name, value);
        }
        let target = pools.target(&cluster);
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now()).unwrap();
        let request = OutgoingRequest { head: &head, host: "api.shop", upgrade: true, timeouts: Timeouts::default() };
        let now = heddle_node::clock::now();
        let mut response = pools.send(picked, &request, &mut Body::Empty, &Interim::none(), now).await.unwrap();
        assert_eq!(response.head.status, 101);
        assert_eq!(response.head.fields.get_str("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let io = response.upgraded.as_mut().unwrap();
        io.write_all(b"frame").await.unwrap();
        let mut got = String::new();
        io.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "frame");
    });
}

#[test]
fn what_the_mesh_is_told_of_a_peer_decides_which_connections_fit() {
    run(async {
        let ours = Authority::new();
        let address = sidecar(&ours.member("api"), hello).await;
        let cluster = calling(&ours.member("web"), "api", &[address]);
        let pools = Pools::new();
        assert_eq!(connection_of(&pools, &cluster).await, "0");
        let strict = config(|upstream| upstream.mesh = Some(MeshPeer { identities: vec![spiffe("api-2").into()], port: None }));
        let cluster = cluster.next(strict, &[node(address)].into(), &|_| None, News::Revision, heddle_node::clock::now());
        assert_eq!(get(&pools, &cluster).await.unwrap_err().reason, Reason::PeerIdentity);
        let wrong = config(|upstream| upstream.mesh = Some(MeshPeer { identities: vec!["api".into()], port: None }));
        let cluster = cluster.next(wrong, &[node(address)].into(), &|_| None, News::Revision, heddle_node::clock::now());
        assert_eq!(get(&pools, &cluster).await.unwrap_err().reason, Reason::UpstreamTls);
    });
}
