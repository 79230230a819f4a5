//! Both ends of a connection: cleartext and TLS on one port, and who is seen there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_node::drain;
use heddle_node::identity::{Bundle, Bundles, ClientAuth, SpiffeId, Svid, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, IsCa, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

use super::*;

#[tokio::test]
async fn of_several_control_planes_another_one_is_taken_after_each_connection() {
    let (mut listeners, mut ways) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ways.push(Connector::tcp(&listener.local_addr().unwrap().to_string()).unwrap());
        listeners.push(listener);
    }
    let connector = Connector::any(ways, fastrand::Rng::with_seed(7));
    let Way::Any(several) = &connector.way else { panic!("{connector:?}") };
    let mut taken = std::collections::BTreeSet::new();
    let mut last = None;
    for _ in 0..20 {
        connector.connect().await.unwrap();
        let now = several.last();
        assert!(now != last);
        last = now;
        taken.extend(now);
    }
    assert_eq!(taken.len(), 3);
    let only = listeners.remove(1);
    drop(listeners);
    for _ in 0..5 {
        connector.connect().await.unwrap();
        assert_eq!(several.last(), Some(1), "those that are gone are passed over at once");
    }
    drop(only);
    assert!(matches!(connector.connect().await, Err(LinkError::Connect { .. })));
}

#[tokio::test]
async fn what_goes_beside_a_connection_goes_where_that_one_goes() {
    let (mut listeners, mut ways) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ways.push(Connector::tcp(&listener.local_addr().unwrap().to_string()).unwrap());
        listeners.push(listener);
    }
    let connector = Connector::any(ways, fastrand::Rng::with_seed(7));
    let beside = connector.beside();
    let strayed = || tokio::time::timeout(Duration::from_millis(20), beside.strayed());
    beside.connect().await.unwrap();
    assert!(strayed().await.is_err(), "there is nothing to be beside of");
    for round in 0..10 {
        connector.connect().await.unwrap();
        let Way::Any(several) = &connector.way else { panic!("{connector:?}") };
        let last = several.last();
        assert!(round == 0 || strayed().await.is_ok(), "the other one has moved");
        beside.connect().await.unwrap();
        assert!(strayed().await.is_err(), "they are together");
        assert_eq!(several.last(), last, "and nobody was moved by that");
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A process that trusts this authority; with a name, it is that.
    fn process(&self, name: Option<&str>) -> Identity {
        let domain = TrustDomain::new("td").unwrap();
        let identity = Identity::new();
        identity.set_bundles(Bundles::new(Bundle::from_der(domain, vec![self.0.der().clone()]).unwrap()));
        if let Some(name) = name {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &self.0).unwrap().der().clone();
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            identity.set_svid(Svid::new(vec![leaf], key).unwrap());
        }
        identity
    }
}

const SERVER: &str = "spiffe://td/ns/heddle/svc/controlplane";
const WEB: &str = "spiffe://td/ns/default/svc/web";

async fn port(
    speaks: impl FnOnce(Arc<rustls::ServerConfig>) -> Speaks,
    server: &Identity,
) -> (SocketAddr, Incoming, drain::DrainCompletion) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (completion, watch) = drain::pair();
    let turned: Turned = Arc::new(|_, _| {});
    let config = server.server_config(ClientAuth::Optional, &[b"h2"]);
    (address, accept(listener, speaks(config), turned, watch), completion)
}

fn server() -> Expect {
    Expect::AnyOf(vec![SpiffeId::parse(SERVER).unwrap()])
}

async fn peer(incoming: &mut Incoming) -> Peer {
    incoming.next().await.unwrap().unwrap().connect_info()
}

#[tokio::test]
async fn one_port_tells_cleartext_from_tls_and_says_who_is_there() {
    let authority = Authority::new();
    let own = authority.process(Some(SERVER));
    let (address, mut incoming, _drain) = port(Speaks::Both, &own).await;
    let mut clear = TcpStream::connect(address).await.unwrap();
    clear.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(matches!(peer(&mut incoming).await, Peer::Clear(from) if from == clear.local_addr().unwrap()));

    let nobody = authority.process(None);
    let web = authority.process(Some(WEB));
    let joining = Connector::joining(&address.to_string(), &nobody, server()).unwrap();
    let (connected, seen) = tokio::join!(joining.connect(), peer(&mut incoming));
    assert!(connected.is_ok() && seen.id().is_none() && matches!(seen, Peer::Tls { .. }));
    let known = Connector::tls(&address.to_string(), &web, server()).unwrap();
    let (connected, seen) = tokio::join!(known.connect(), peer(&mut incoming));
    assert!(connected.is_ok());
    assert_eq!(seen.id().unwrap().as_str(), WEB);
}

#[tokio::test]
async fn the_head_of_a_frame_goes_with_its_content() {
    let (head, content) = ([0; 9], [0; 16 * 1024]);
    let at_once = async |mut connection: Connection| {
        let pieces = [&head[..], &content].map(io::IoSlice::new);
        let write = |context: &mut Context<'_>| Pin::new(&mut connection).poll_write_vectored(context, &pieces);
        let written = std::future::poll_fn(write).await.unwrap();
        (written, connection.is_write_vectored())
    };
    let all = (head.len() + content.len(), true);
    let authority = Authority::new();
    let (address, mut incoming, _drain) = port(Speaks::Both, &authority.process(Some(SERVER))).await;
    let mut clear = TcpStream::connect(address).await.unwrap();
    clear.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert_eq!(at_once(incoming.next().await.unwrap().unwrap()).await, all, "in clear");
    let joining = Connector::joining(&address.to_string(), &authority.process(None), server()).unwrap();
    let (_joined, connection) = tokio::join!(joining.connect(), incoming.next());
    assert_eq!(at_once(connection.unwrap().unwrap()).await, all, "over TLS");
    let (within, mut incoming) = memory();
    let (_within, connection) = tokio::join!(within.connect(), incoming.next());
    assert_eq!(at_once(connection.unwrap().unwrap()).await, all, "within the process");
}

#[tokio::test]
async fn strangers_get_no_connection_and_hold_up_nobody() {
    let authority = Authority::new();
    let (own, web) = (authority.process(Some(SERVER)), authority.process(Some(WEB)));
    let (address, mut incoming, _drain) = port(Speaks::Tls, &own).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut clear = TcpStream::connect(address).await.unwrap();
    clear.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let open = |identity: &Identity, expect| Connector::tls(&address.to_string(), identity, expect).unwrap();
    let foreign = Authority::new().process(Some(WEB));
    assert!(open(&foreign, server()).connect().await.is_err(), "the server is nobody it trusts");
    let wrong = Expect::AnyOf(vec![SpiffeId::parse(WEB).unwrap()]);
    assert!(open(&web, wrong).connect().await.is_err(), "the server is somebody else");
    let known = open(&web, server());
    let (_connected, seen) = tokio::join!(known.connect(), peer(&mut incoming));
    assert_eq!(seen.id().unwrap().as_str(), WEB, "the first that comes through");
    drop(silent);
}

#[tokio::test]
async fn any_number_of_silent_connections_keeps_nobody_out() {
    let authority = Authority::new();
    let (own, web) = (authority.process(Some(SERVER)), authority.process(Some(WEB)));
    let (address, mut incoming, _drain) = port(Speaks::Both, &own).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let known = Connector::tls(&address.to_string(), &web, server()).unwrap();
    let coming = async { tokio::join!(known.connect(), peer(&mut incoming)) };
    let (connected, seen) = tokio::time::timeout(Duration::from_secs(5), coming).await.expect("it does not wait for them");
    assert!(connected.is_ok());
    assert_eq!(seen.id().unwrap().as_str(), WEB);
    let mut first = [0];
    let ended = tokio::time::timeout(Duration::from_secs(5), silent[0].peek(&mut first)).await;
    assert!(ended.is_ok_and(|read| !matches!(read, Ok(1..))), "the oldest of them is given up");
}

#[test]
fn addresses_are_judged() {
    let identity = Identity::new();
    for good in ["https://cp.example:18000", "cp.example:18000", "https://127.0.0.1:1/", "[::1]:18000"] {
        assert!(Connector::tls(good, &identity, Expect::TrustDomain).is_ok(), "{good}");
    }
    for bad in ["https://cp.example", "cp", "http://cp:1", ""] {
        assert!(Connector::tls(bad, &identity, Expect::TrustDomain).is_err(), "{bad}");
    }
}
