//! TLS: trust, names, client certificates, ALPN.

use heddle_xds::model::{Secret, SecretBody, UpstreamTls};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::exchange::Reason;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

impl Ca {
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A TLS server for `up.example` that answers HTTP/1.1, or HTTP/2 where `alpn` says so, and demands a client certificate of `clients`.
async fn tls_server(ca: &Ca, clients: Option<&Ca>, alpn: &'static [u8]) -> SocketAddr {
    let (chain, key) = ca.issue("up.example");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = if alpn.is_empty() { Vec::new() } else { vec![alpn.to_vec()] };
    let acceptor = TlsAcceptor::from(Arc::new(config));
    server(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if alpn == b"h2" {
                let mut connection = ::h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_response(http::Response::new(()), true).unwrap();
                }
                return;
            }
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                let _ = stream.write_all(HELLO.as_bytes()).await;
                let _ = stream.flush().await;
            }
        }
    })
    .await
}

fn roots(name: &str, pem: &str) -> Arc<Secret> {
    Arc::new(Secret { name: name.into(), body: SecretBody::Roots(pem.into()) })
}

fn pair(name: &str, (chain, key): (String, String)) -> Arc<Secret> {
    Arc::new(Secret { name: name.into(), body: SecretBody::KeyPair { chain_pem: chain.into(), key_pem: key.into() } })
}

fn cluster_with(address: SocketAddr, secrets: &[Arc<Secret>], scheme: Scheme, tls: UpstreamTls) -> Arc<Edition> {
    let find = |name: &str| secrets.iter().find(|secret| &*secret.name == name).cloned();
    let config = config(|upstream| {
        upstream.scheme = scheme;
        upstream.tls = tls;
    });
    Edition::first(Arc::default(), config, &[node(address)].into(), &find, heddle_node::clock::now())
}

fn trusting(ca: &str) -> UpstreamTls {
    UpstreamTls { verify: true, ca: Some(ca.into()), client_cert: None, sni: None }
}

#[test]
fn without_verification_any_certificate_will_do_and_connections_are_kept() {
    run(async {
        let cluster = cluster_with(tls_server(&ca(), None, b"http/1.1").await, &[], Scheme::Https, UpstreamTls::default());
        let pools = Pools::new();
        for nth in 0..3 {
            let response = get(&pools, &cluster).await.unwrap();
            assert_eq!((response.head.status, response.reused), (200, nth > 0));
        }
    });
}

#[test]
fn with_verification_issuer_and_name_must_be_right() {
    run(async {
        let (ours, theirs) = (ca(), ca());
        let secrets = [roots("ours", &ours.pem), roots("theirs", &theirs.pem)];
        let address = tls_server(&ours, None, b"").await;
        let pools = Pools::new();
        let good = cluster_with(address, &secrets, Scheme::Https, trusting("ours"));
        assert_eq!(get(&pools, &good).await.unwrap().head.status, 200);
        for wrong in
            [trusting("theirs"), UpstreamTls { sni: Some("other.example".into()), ..trusting("ours") }, trusting("missing")]
        {
            let cluster = cluster_with(address, &secrets, Scheme::Https, wrong);
            let error = get(&pools, &cluster).await.unwrap_err();
            assert_eq!((error.reason, error.sent), (Reason::UpstreamTls, Sent::Nothing));
            assert_eq!(totals(&cluster).connections, 0);
        }
    });
}

#[test]
fn a_connection_is_not_used_for_another_name_or_trust() {
    run(async {
        let ours = ca();
        let address = tls_server(&ours, None, b"").await;
        let secrets = [roots("ours", &ours.pem)];
        let cluster = cluster_with(address, &secrets, Scheme::Https, UpstreamTls::default());
        let pools = Pools::new();
        get(&pools, &cluster).await.unwrap();
        let target = pools.target(&cluster);
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now()).unwrap();
        let head = head(Method::Get, "/");
        let request = OutgoingRequest { head: &head, host: "else.example:443", upgrade: false, timeouts: Timeouts::default() };
        assert!(
            !pools.send(picked, &request, &mut Body::Empty, &Interim::none(), heddle_node::clock::now()).await.unwrap().reused
        );
        assert!(get(&pools, &cluster).await.unwrap().reused);
        let strict = config(|upstream| (upstream.scheme, upstream.tls) = (Scheme::Https, trusting("ours")));
        let cluster = cluster.next(
            strict,
            &[node(address)].into(),
            &|_| Some(secrets[0].clone()),
            News::Revision,
            heddle_node::clock::now(),
        );
        assert!(!get(&pools, &cluster).await.unwrap().reused);
    });
}

#[test]
fn a_client_certificate_is_shown_where_configured() {
    run(async {
        let (ours, clients) = (ca(), ca());
        let address = tls_server(&ours, Some(&clients), b"").await;
        let secrets = [roots("ours", &ours.pem), pair("me", clients.issue("gateway"))];
        let with = UpstreamTls { client_cert: Some("me".into()), ..trusting("ours") };
        assert_eq!(get(&Pools::new(), &cluster_with(address, &secrets, Scheme::Https, with)).await.unwrap().head.status, 200);
        let error = get(&Pools::new(), &cluster_with(address, &secrets, Scheme::Https, trusting("ours"))).await.unwrap_err();
        assert!(error.reason.is_upstream(), "{error}");
    });
}

#[test]
fn grpcs_demands_http2_by_alpn() {
    run(async {
        let ours = ca();
        let secrets = [roots("ours", &ours.pem)];
        let speaks = tls_server(&ours, None, b"h2").await;
        let response = get(&Pools::new(), &cluster_with(speaks, &secrets, Scheme::Grpcs, trusting("ours"))).await.unwrap();
        assert_eq!(response.head.status, 200);
        let mute = tls_server(&ours, None, b"").await;
        let error = get(&Pools::new(), &cluster_with(mute, &secrets, Scheme::Grpcs, trusting("ours"))).await.unwrap_err();
        assert_eq!((error.reason, error.sent), (Reason::UpstreamTls, Sent::Nothing));
    });
}

#[test]
fn a_resting_connection_makes_room_for_one_with_another_name() {
    run(async {
        let address = tls_server(&ca(), None, b"").await;
        let cluster = cluster_with(address, &[], Scheme::Https, UpstreamTls::default());
        let mut limited = (*cluster.view().spec.config).clone();
        limited.breakers.max_connections = Some(1);
        let cluster =
            cluster.next(Arc::new(limited), &[node(address)].into(), &|_| None, News::Revision, heddle_node::clock::now());
        let pools = Pools::new();
        get(&pools, &cluster).await.unwrap();
        let target = pools.target(&cluster);
        let picked = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), heddle_node::clock::now()).unwrap();
        let head = head(Method::Get, "/");
        let request = OutgoingRequest { head: &head, host: "else.example", upgrade: false, timeouts: Timeouts::default() };
        assert!(
            !pools.send(picked, &request, &mut Body::Empty, &Interim::none(), heddle_node::clock::now()).await.unwrap().reused
        );
        assert_eq!(totals(&cluster).connections, 1);
    });
}
