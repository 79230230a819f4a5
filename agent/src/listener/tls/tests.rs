//! Stories of TLS: certificates by name, changed at run time; clients that must show theirs; handshakes that fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::{
    Certificate, ClientValidation, EdgeLimits, Listener, ListenerProtocol, ProxyProtocol, Secret, SecretBody, TlsVersion,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::counters::Count;
use super::super::harness::{Fake, House, in_house, listener};
use super::CertificateStore;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An authority and the secrets that were made with it.
struct Pki {
    authority: Issuer,
    secrets: HashMap<Arc<str>, Arc<Secret>>,
}

fn authority(name: &str) -> Issuer {
    CertifiedIssuer::self_signed(authority_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Chain and key in PEM of a certificate for these names.
fn issue(issuer: &Issuer, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

impl Pki {
    fn new() -> Pki {
        let authority = authority("root");
        let mut pki = Pki { authority, secrets: HashMap::new() };
        pki.keep("roots", SecretBody::Roots(pki.authority.pem().into()));
        pki
    }

    fn keep(&mut self, name: &str, body: SecretBody) {
        self.secrets.insert(name.into(), Arc::new(Secret { name: name.into(), body }));
    }

    /// A certificate resource whose certificate names `name`, shown for `snis`.
    fn certificate(&mut self, id: &str, name: &str, snis: &[&str]) -> Certificate {
        let (chain, key) = issue(&self.authority, name);
        self.keep(id, SecretBody::KeyPair { chain_pem: chain.into(), key_pem: key.into() });
        Certificate {
            id: id.into(),
            snis: snis.iter().map(|name| (*name).into()).collect(),
            secrets: vec![id.into()],
            client: None,
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
            listeners: Vec::new(),
        }
    }

    /// Shows these certificates from now on.
    fn show(&self, house: &House, certificates: Vec<Certificate>) -> Vec<String> {
        let certificates: Vec<_> = certificates.into_iter().map(Arc::new).collect();
        let before = house.shared.certificates.load();
        let (store, faults) = CertificateStore::build(&certificates, |name| self.secrets.get(name).cloned(), &before);
        house.shared.certificates.store(Arc::new(store));
        faults.iter().map(ToString::to_string).collect()
    }

    /// A client that trusts the authority.
    fn client(&self, shown: Option<(String, String)>, alpn: &[&[u8]]) -> ClientConfig {
        self.client_of(shown, alpn, rustls::DEFAULT_VERSIONS)
    }

    fn client_of(
        &self,
        shown: Option<(String, String)>,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        self.client_with(rustls::crypto::aws_lc_rs::default_provider(), shown, alpn, versions)
    }

    fn client_with(
        &self,
        provider: CryptoProvider,
        shown: Option<(String, String)>,
        alpn: &[&[u8]],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

fn https() -> Listener {
    Listener {
        protocol: ListenerProtocol::Https,
        ..listener(EdgeLimits { handshake_timeout: Duration::from_millis(300), ..EdgeLimits::default() })
    }
}

async fn dial(address: SocketAddr, config: &ClientConfig, name: &'static str) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config.clone())).connect(ServerName::try_from(name).unwrap(), stream).await
}

/// The answer to a GET for `host`. With TLS 1.3 a refused client certificate is told only here.
async fn get(stream: &mut TlsStream<TcpStream>, host: &str, last: bool) -> std::io::Result<String> {
    let close = if last { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{close}\r\n").as_bytes()).await?;
    let mut all = Vec::new();
    while !all.ends_with(b"/x ") {
        let mut buffer = [0; 1000];
        match stream.read(&mut buffer).await? {
            0 => break,
            read => all.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(String::from_utf8(all).unwrap())
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_server_name_chooses_the_certificate() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let exact = pki.certificate("exact", "a.example", &["a.example"]);
        let wild = pki.certificate("wild", "*.b.example", &["*.b.example"]);
        house.want(&[https()]);
        let client = pki.client(None, &[]);
        assert!(pki.show(&house, vec![exact.clone(), wild.clone()]).is_empty());
        // The client checks the names, so a wrong certificate fails here.
        for name in ["a.example", "c.b.example"] {
            let mut stream = dial(house.address(), &client, name).await.unwrap();
            assert!(get(&mut stream, name, true).await.unwrap().ends_with(&format!("GET {name}/x ")));
        }
        for name in ["d.c.b.example", "b.example", "other.test"] {
            let error = dial(house.address(), &client, name).await.unwrap_err();
            assert!(error.to_string().contains("alert"), "{error}");
        }
        let fallback = pki.certificate("fallback", "other.test", &["*"]);
        pki.show(&house, vec![exact, wild, fallback]);
        let mut stream = dial(house.address(), &client, "other.test").await.unwrap();
        get(&mut stream, "other.test", true).await.unwrap();
        assert_eq!((house.count(Count::TlsDone), house.count(Count::TlsFailed)), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let old = pki.certificate("c", "a.example", &["a.example"]);
        pki.show(&house, vec![old.clone()]);
        house.want(&[https()]);
        let client = pki.client(None, &[]);
        let mut first = dial(house.address(), &client, "a.example").await.unwrap();
        get(&mut first, "a.example", false).await.unwrap();

        pki.certificate("c", "a.example", &["a.example"]);
        pki.show(&house, vec![old.clone()]);
        let client = pki.client(None, &[]);
        let second = dial(house.address(), &client, "a.example").await.unwrap();
        assert_ne!(shown(&first), shown(&second));
        assert!(get(&mut first, "a.example", false).await.unwrap().ends_with("GET a.example/x "));

        pki.keep("c", SecretBody::KeyPair { chain_pem: "nonsense".into(), key_pem: "".into() });
        let faults = pki.show(&house, vec![old]);
        assert!(faults.len() == 1 && faults[0].contains("certificate c"), "{faults:?}");
        assert_eq!(shown(&dial(house.address(), &client, "a.example").await.unwrap()), shown(&second));

        pki.show(&house, vec![]);
        assert!(dial(house.address(), &client, "a.example").await.is_err());
    })
    .await;
}

fn demanding(certificate: Certificate, depth: u8, skip: &[&str]) -> Certificate {
    let skip_uri_regex = skip.iter().map(|pattern| (*pattern).into()).collect();
    Certificate { client: Some(ClientValidation { ca: "roots".into(), depth, skip_uri_regex }), ..certificate }
}

#[tokio::test]
async fn clients_show_a_certificate_where_it_is_demanded() {
    let tell = Fake::telling(|info| {
        let tls = info.tls.as_ref().unwrap();
        let client = tls.client.as_ref().map(|client| format!("{} by {}", client.subject, client.issuer));
        format!("{client:?} {} {} /x ", tls.client_required_unless.is_some(), tls.version)
    });
    in_house(tell, async |mut house| {
        let mut pki = Pki::new();
        let certificate = pki.certificate("c", "a.example", &["a.example"]);
        pki.show(&house, vec![demanding(certificate.clone(), 1, &[])]);
        house.want(&[https()]);
        let ask = async |shown: Option<(String, String)>| {
            let mut stream = dial(house.address(), &pki.client(shown, &[]), "a.example").await?;
            get(&mut stream, "a.example", true).await
        };
        let good = ask(Some(issue(&pki.authority, "me"))).await.unwrap();
        assert!(good.contains("CN=me by CN=root") && good.contains("TLSv1.3"), "{good}");
        assert!(ask(None).await.is_err());
        assert!(ask(Some(issue(&authority("root"), "me"))).await.is_err(), "an authority of the same name");

        // Longer chains than allowed.
        let middle =
            CertifiedIssuer::signed_by(authority_params("middle"), KeyPair::generate().unwrap(), &*pki.authority).unwrap();
        let (leaf, key) = issue(&middle, "deep");
        let chain = Some((format!("{leaf}{}", middle.pem()), key));
        assert!(ask(chain.clone()).await.unwrap().contains("CN=deep by CN=middle"));
        pki.show(&house, vec![demanding(certificate.clone(), 0, &[])]);
        assert!(ask(chain).await.is_err());

        pki.show(&house, vec![demanding(certificate, 1, &["^/public"])]);
        assert!(ask(None).await.unwrap().contains("None true"), "paths decide later");
    })
    .await;
}

#[tokio::test]
async fn a_host_is_served_only_where_its_demands_were_met() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let open = pki.certificate("open", "open.example", &["open.example", "also.example"]);
        let closed = pki.certificate("closed", "closed.example", &["closed.example"]);
        pki.show(&house, vec![open, demanding(closed, 1, &[])]);
        house.want(&[https()]);
        let plain = pki.client(None, &[]);
        let mut stream = dial(house.address(), &plain, "open.example").await.unwrap();
        assert!(get(&mut stream, "also.example", false).await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(get(&mut stream, "closed.example", false).await.unwrap().starts_with("HTTP/1.1 421"));
        let mut stream = dial(house.address(), &plain, "open.example").await.unwrap();
        assert!(get(&mut stream, "CLOSED.example.:443", true).await.unwrap().starts_with("HTTP/1.1 421"));
        let trusted = pki.client(Some(issue(&pki.authority, "me")), &[]);
        let mut stream = dial(house.address(), &trusted, "closed.example").await.unwrap();
        assert!(get(&mut stream, "closed.example", false).await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(get(&mut stream, "open.example", true).await.unwrap().starts_with("HTTP/1.1 421"));

        let stream = dial(house.address(), &pki.client(None, &[b"h2"]), "open.example").await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::task::spawn_local(async move {
            // It breaks when the story ends.
            let _ = connection.await;
        });
        let mut send = send.ready().await.unwrap();
        for (host, status) in [("open.example", 200), ("closed.example", 421), ("also.example", 200)] {
            let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status().as_u16(), status, "{host}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_serves_nobody_any_more_once_more_is_demanded_for_the_name_that_it_came_by() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let open = pki.certificate("open", "open.example", &["open.example"]);
        let turning = pki.certificate("turning", "turning.example", &["turning.example"]);
        house.want(&[https()]);
        pki.show(&house, vec![open.clone(), turning.clone()]);
        let mut stream = dial(house.address(), &pki.client(None, &[]), "turning.example").await.unwrap();
        assert!(get(&mut stream, "open.example", false).await.unwrap().starts_with("HTTP/1.1 200"));
        let second = dial(house.address(), &pki.client(None, &[b"h2"]), "turning.example").await.unwrap();
        let (send, connection) = h2::client::handshake(second).await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        let mut send = send.ready().await.unwrap();

        pki.show(&house, vec![open, demanding(turning, 1, &[])]);
        let answer = get(&mut stream, "open.example", true).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 421"), "its routes may be those of the name: {answer}");
        let request = http::Request::get("https://open.example/").body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status().as_u16(), 421);
        drop(send);
        connection.await.unwrap().expect("the client is told to come anew");
    })
    .await;
}

#[tokio::test]
async fn who_was_let_in_by_roots_that_are_trusted_no_more_is_served_no_more() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let certificate = pki.certificate("c", "a.example", &["a.example"]);
        house.want(&[https()]);
        let (ours, theirs) = (pki.authority.pem(), authority("theirs").pem());
        let me = pki.client(Some(issue(&pki.authority, "me")), &[]);
        let closed = demanding(certificate, 1, &[]);
        let by_others = Certificate {
            client: closed.client.clone().map(|client| ClientValidation { ca: "others".into(), ..client }),
            ..closed.clone()
        };
        pki.keep("others", SecretBody::Roots(theirs.as_str().into()));
        for (roots, certificate, status) in
            [(format!("{theirs}{ours}"), &closed, 200), (theirs.clone(), &closed, 421), (ours.clone(), &by_others, 421)]
        {
            pki.keep("roots", SecretBody::Roots(ours.as_str().into()));
            pki.show(&house, vec![closed.clone()]);
            let mut stream = dial(house.address(), &me, "a.example").await.unwrap();
            assert!(get(&mut stream, "a.example", false).await.unwrap().starts_with("HTTP/1.1 200"));
            pki.keep("roots", SecretBody::Roots(roots.into()));
            pki.show(&house, vec![certificate.clone()]);
            let answer = get(&mut stream, "a.example", true).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        }
    })
    .await;
}

fn of(listener: &str, certificate: Certificate) -> Certificate {
    Certificate { listeners: vec![listener.into()], ..certificate }
}

fn other() -> Listener {
    Listener { name: "other".into(), ..https() }
}

#[tokio::test]
async fn what_a_listener_demands_is_not_got_around_by_the_certificate_of_another_one() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let (first, second) =
            (pki.certificate("a", "a.example", &["a.example"]), pki.certificate("b", "a.example", &["a.example"]));
        house.want(&[https(), other()]);
        let at = |name: &str, house: &House| house.shared.admission.address(&name.into(), https().address);
        let ask = async |name: &str, house: &House, pki: &Pki, shown: Option<(String, String)>| {
            let mut stream = dial(at(name, house), &pki.client(shown, &[]), "a.example").await?;
            get(&mut stream, "a.example", true).await
        };
        for (open, closed) in [("test", "other"), ("other", "test")] {
            pki.show(&house, vec![of(open, first.clone()), of(closed, demanding(second.clone(), 1, &[]))]);
            let me = Some(issue(&pki.authority, "me"));
            assert!(ask(closed, &house, &pki, None).await.is_err(), "{closed}");
            assert!(ask(closed, &house, &pki, me.clone()).await.unwrap().starts_with("HTTP/1.1 200"));
            for shown in [None, me] {
                let answer = ask(open, &house, &pki, shown).await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 200"), "the demand of {closed} is none of {open}: {answer}");
            }
        }
        let anywhere = pki.certificate("everywhere", "a.example", &["*"]);
        pki.show(&house, vec![anywhere, of("test", demanding(second, 1, &[]))]);
        assert!(ask("test", &house, &pki, None).await.is_err(), "it looks at no others");
        assert!(ask("other", &house, &pki, None).await.unwrap().starts_with("HTTP/1.1 200"));
    })
    .await;
}

#[tokio::test]
async fn a_session_of_one_listener_is_resumed_at_no_other() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let (open, closed) = (pki.certificate("a", "a.example", &["*"]), pki.certificate("b", "a.example", &["*"]));
        house.want(&[https(), other()]);
        pki.show(&house, vec![of("test", open), of("other", demanding(closed, 1, &[]))]);
        for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
            let client = pki.client_of(Some(issue(&pki.authority, "me")), &[], versions);
            for (name, kind) in [("test", HandshakeKind::Full), ("test", HandshakeKind::Resumed), ("other", HandshakeKind::Full)]
            {
                let mut stream =
                    dial(house.shared.admission.address(&name.into(), https().address), &client, "a.example").await.unwrap();
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind), "{name}");
                get(&mut stream, "a.example", true).await.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_whose_certificate_cannot_be_used_is_served_by_no_wider_one() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let (strict, wide) = (pki.certificate("a", "a.b.example", &["a.b.example"]), pki.certificate("b", "*.b.example", &["*"]));
        let deep = pki.certificate("c", "*.c.example", &["*.example"]);
        house.want(&[https()]);
        let strict = demanding(strict, 1, &[]);
        pki.keep("roots", SecretBody::Roots("nonsense".into()));
        let client = pki.client(None, &[]);
        for certificates in [vec![of("test", strict.clone()), of("test", wide.clone())], vec![strict, wide]] {
            assert_eq!(pki.show(&house, certificates).len(), 1);
            assert!(dial(house.address(), &client, "a.b.example").await.is_err());
            let mut stream = dial(house.address(), &client, "other.b.example").await.unwrap();
            assert!(get(&mut stream, "a.b.example", true).await.unwrap().starts_with("HTTP/1.1 421"));
        }
        pki.show(&house, vec![of("test", deep.clone())]);
        assert!(dial(house.address(), &client, "a.c.example").await.is_ok(), "as many labels as the chain has");
        pki.show(&house, vec![deep]);
        assert!(dial(house.address(), &client, "a.c.example").await.is_err(), "one label");
    })
    .await;
}

#[tokio::test]
async fn a_broken_certificate_is_not_stood_in_for_by_one_that_demands_less() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let open = pki.certificate("c", "a.example", &["a.example"]);
        house.want(&[https()]);
        let client = pki.client(None, &[]);
        for place in ["", "test"] {
            let at = |certificate: Certificate| if place.is_empty() { certificate } else { of(place, certificate) };
            let broken = |certificate: Certificate| Certificate { secrets: vec!["nowhere".into()], ..at(certificate) };
            pki.show(&house, vec![at(open.clone())]);
            assert_eq!(pki.show(&house, vec![broken(open.clone())]).len(), 1);
            assert!(dial(house.address(), &client, "a.example").await.is_ok(), "it demands nothing, as before");

            let mut unknown = demanding(open.clone(), 1, &[]);
            unknown.client.as_mut().unwrap().ca = "missing".into();
            for closed in [at(unknown), broken(demanding(open.clone(), 1, &[]))] {
                pki.show(&house, vec![at(open.clone())]);
                assert_eq!(pki.show(&house, vec![closed]).len(), 1);
                assert!(
                    dial(house.address(), &client, "a.example").await.is_err(),
                    "nobody is let in without what is demanded now"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_broken_certificate_is_stood_in_for_while_clients_are_judged_by_the_same_roots() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let certificate = pki.certificate("c", "a.example", &["a.example"]);
        let closed = demanding(certificate, 1, &[]);
        let broken = Certificate { secrets: vec!["nowhere".into()], ..closed.clone() };
        house.want(&[https()]);
        let me = pki.client(Some(issue(&pki.authority, "me")), &[]);
        let ask = async |house: &House, client: &ClientConfig| {
            let mut stream = dial(house.address(), client, "a.example").await?;
            get(&mut stream, "a.example", true).await
        };
        pki.show(&house, vec![closed.clone()]);
        assert_eq!(pki.show(&house, vec![broken.clone()]).len(), 1);
        assert!(ask(&house, &me).await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(ask(&house, &pki.client(None, &[])).await.is_err());

        pki.keep("roots", SecretBody::Roots(authority("another").pem().into()));
        assert_eq!(pki.show(&house, vec![broken]).len(), 1);
        assert!(ask(&house, &me).await.is_err(), "others are trusted now");
    })
    .await;
}

#[tokio::test]
async fn a_broken_certificate_keeps_the_names_that_it_had_and_gets_no_new_ones() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let old = pki.certificate("c", "*.t.example", &["a.t.example", "b.t.example"]);
        let wide = pki.certificate("wide", "*.t.example", &["*"]);
        house.want(&[https()]);
        let client = pki.client(None, &[]);
        let shown_for = async |house: &House, name| dial(house.address(), &client, name).await.map(|stream| shown(&stream));
        pki.show(&house, vec![old.clone(), wide.clone()]);
        let (known, other) = (shown_for(&house, "a.t.example").await.unwrap(), shown_for(&house, "x.t.example").await.unwrap());

        let broken =
            Certificate { snis: vec!["b.t.example".into(), "new.t.example".into()], secrets: vec!["nowhere".into()], ..old };
        pki.show(&house, vec![broken.clone(), wide.clone()]);
        assert_eq!(shown_for(&house, "b.t.example").await.unwrap(), known);
        assert_eq!(
            shown_for(&house, "new.t.example").await.unwrap(),
            other,
            "it demands nothing, so that the wider one may be shown"
        );
        assert_eq!(shown_for(&house, "a.t.example").await.unwrap(), other);
        pki.show(&house, vec![of("test", broken), of("test", wide)]);
        assert!(shown_for(&house, "new.t.example").await.is_err(), "a chain of its own: no other takes its place");
    })
    .await;
}

#[tokio::test]
async fn sessions_are_resumed_but_never_past_a_client_check() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let open = pki.certificate("open", "open.example", &["open.example"]);
        let closed = pki.certificate("closed", "closed.example", &["closed.example"]);
        pki.show(&house, vec![open, demanding(closed, 1, &[])]);
        house.want(&[https()]);
        for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
            let client = pki.client_of(Some(issue(&pki.authority, "me")), &[], versions);
            for (name, kind) in [("open.example", HandshakeKind::Resumed), ("closed.example", HandshakeKind::Full)] {
                let mut first = dial(house.address(), &client, name).await.unwrap();
                get(&mut first, name, true).await.unwrap();
                let second = dial(house.address(), &client, name).await.unwrap();
                assert_eq!(second.get_ref().1.handshake_kind(), Some(kind), "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn versions_are_bounded_and_what_is_not_tls_is_closed_in_time() {
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let modern = pki.certificate("c", "a.example", &["a.example"]);
        pki.show(&house, vec![Certificate { min_version: TlsVersion::V1_3, ..modern }]);
        house.want(&[https()]);
        let old = pki.client_of(None, &[], &[&rustls::version::TLS12]);
        assert!(dial(house.address(), &old, "a.example").await.is_err());
        for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"", b"\x16\x03\x01"] {
            let mut stream = TcpStream::connect(house.address()).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            let mut all = Vec::new();
            // Closing may reset, since not all was read.
            let _ = stream.read_to_end(&mut all).await;
            assert!(!all.starts_with(b"HTTP"));
        }
        assert_eq!(house.count(Count::TlsFailed), 4);
    })
    .await;
}

#[tokio::test]
async fn tls_follows_a_proxy_header_even_in_one_piece() {
    in_house(Fake::telling(|info| format!("{} /x ", info.peer)), async |mut house| {
        let mut pki = Pki::new();
        let certificate = pki.certificate("c", "a.example", &["a.example"]);
        pki.show(&house, vec![certificate]);
        house.want(&[Listener { proxy_protocol: ProxyProtocol::Required(Vec::new()), ..https() }]);
        let mut stream = TcpStream::connect(house.address()).await.unwrap();
        // Not flushed alone: it leaves with the hello.
        stream.set_nodelay(false).unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 443\r\n").await.unwrap();
        let connector = TlsConnector::from(Arc::new(pki.client(None, &[])));
        let mut stream = connector.connect(ServerName::try_from("a.example").unwrap(), stream).await.unwrap();
        assert!(get(&mut stream, "a.example", true).await.unwrap().ends_with("192.0.2.7:1 /x "));
    })
    .await;
}

#[tokio::test]
async fn aes_128_is_preferred_but_a_client_without_aes_gets_chacha() {
    let chosen = async |first: CipherSuite, house: &House, pki: &Pki| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
        let client = pki.client_with(provider, None, &[], rustls::DEFAULT_VERSIONS);
        let stream = dial(house.address(), &client, "a.example").await.unwrap();
        stream.get_ref().1.negotiated_cipher_suite().unwrap().suite()
    };
    in_house(Fake::echo(), async |mut house| {
        let mut pki = Pki::new();
        let certificate = pki.certificate("a", "a.example", &["a.example"]);
        pki.show(&house, vec![certificate]);
        house.want(&[https()]);
        let (small, large, chacha) = (
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        );
        assert_eq!(chosen(large, &house, &pki).await, small);
        assert_eq!(chosen(small, &house, &pki).await, small);
        assert_eq!(chosen(chacha, &house, &pki).await, chacha);
    })
    .await;
}
