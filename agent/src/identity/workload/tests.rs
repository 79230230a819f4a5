//! The Workload API asked over its socket, as an application would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::time::Duration;

use heddle_node::identity::{Svid, Usage};
use heddle_xds::link::Connector;
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tonic::Code;
use tonic::transport::Channel;

use super::super::testing::Authority;
use super::*;

const TTL: Duration = Duration::from_secs(3_600);

struct Socket {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn start(identity: &Identity) -> Socket {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/workload.sock");
    let settings = WorkloadApiSettings { path: path.clone(), uids: Vec::new() };
    tokio::spawn(serve(open(&settings).unwrap(), Vec::new(), identity.clone()));
    Socket { _folder: folder, path }
}

impl Socket {
    async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(Connector::unix(&self.path).connect().await.unwrap())
    }
}

fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(HEADER, "true".parse().unwrap());
    request
}

#[tokio::test]
async fn connections_that_cannot_be_accepted_end_nothing() {
    let tries = std::cell::Cell::new(0);
    let accept = |_: &mut Context<'_>| {
        tries.set(tries.get() + 1);
        match tries.get() {
            1..=3 => Poll::Ready(Err(io::Error::from_raw_os_error(24))),
            4 => Poll::Ready(UnixStream::pair().map(|(stream, _)| stream)),
            _ => Poll::Pending,
        }
    };
    next(accept, &[]).await;
    assert!(tries.get() == 4);
}

#[tokio::test]
async fn the_application_gets_the_identity_and_every_change() {
    let authority = Authority::new("a.test");
    let web = authority.id("web");
    let identity = authority.member(&web);
    let socket = start(&identity);
    let mut client = socket.client().await;
    let mut answers = client.fetch_x509svid(with_header(proto::X509svidRequest {})).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    let [one] = first.svids.as_slice() else { panic!("one identity") };
    assert_eq!(one.spiffe_id, web.as_str());
    let chain = vec![CertificateDer::from(one.x509_svid.clone())];
    let svid = Svid::new(chain, PrivatePkcs8KeyDer::from(one.x509_svid_key.clone()).into()).unwrap();
    let bundle = Bundle::from_der(authority.domain.clone(), vec![CertificateDer::from(one.bundle.clone())]).unwrap();
    assert_eq!(Bundles::new(bundle).verify(svid.chain(), Usage::Server, heddle_node::clock::wall()).unwrap(), web);

    identity.set_svid(authority.svid(&web, TTL));
    let second = answers.message().await.unwrap().unwrap();
    assert_ne!(second.svids[0].x509_svid, first.svids[0].x509_svid);
    let partner = Authority::new("b.test");
    identity.set_bundles(authority.bundles().with_federated(partner.bundle()));
    let third = answers.message().await.unwrap().unwrap();
    assert_eq!(third.federated_bundles["spiffe://b.test"], roots(&partner.bundle()));
    assert_eq!(third.svids, second.svids);
}

#[tokio::test]
async fn an_envoy_is_served_its_identity_and_the_roots_and_every_change() {
    use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
    use heddle_proto::envoy::service::discovery::v3::DiscoveryRequest;
    use heddle_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
    use tls::secret::Type;

    let authority = Authority::new("a.test");
    let web = authority.id("web");
    let identity = authority.member(&web);
    let socket = start(&identity);
    let mut client = SecretDiscoveryServiceClient::new(Connector::unix(&socket.path).connect().await.unwrap());
    let (sender, requests) = mpsc::channel(4);
    let ask = |names: &[&str], nonce: &str| DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    };
    // An Envoy asks for more before the first answer, and confirms one that is stale by then.
    sender.send(ask(&["default"], "")).await.unwrap();
    let mut answers = client.stream_secrets(ReceiverStream::new(requests)).await.unwrap().into_inner();
    let mut next = async || {
        let answer = answers.message().await.unwrap().unwrap();
        let secrets = answer.resources.iter().map(|secret| secret.to_msg::<tls::Secret>().unwrap());
        (answer.nonce.clone(), secrets.map(|secret| (secret.name, secret.r#type.unwrap())).collect::<Vec<_>>())
    };
    let (nonce, first) = next().await;
    let [(name, Type::TlsCertificate(certificate))] = &first[..] else { panic!("{} secrets", first.len()) };
    assert!(name == "default" && certificate.private_key.is_some());
    sender.send(ask(&["default", "ROOTCA", "spiffe://b.test", "spiffe://c.test"], &nonce)).await.unwrap();
    let (_, second) = next().await;
    assert_eq!(second.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ROOTCA", "default"]);
    identity.set_bundles(authority.bundles().with_federated(Authority::new("b.test").bundle()));
    let (_, third) = next().await;
    assert_eq!(third.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["ROOTCA", "default", "spiffe://b.test"]);
    identity.set_svid(authority.svid(&web, TTL));
    let (nonce, fourth) = next().await;
    assert!(fourth[1] != third[1] && fourth[0] == third[0]);
    sender.send(ask(&["ALL"], &nonce)).await.unwrap();
    let (_, fifth) = next().await;
    let [(_, Type::ValidationContext(everybody))] = &fifth[..] else { panic!("{} secrets", fifth.len()) };
    let validator = everybody.custom_validator_config.clone().unwrap();
    let config: tls::SpiffeCertValidatorConfig = validator.typed_config.unwrap().to_msg().unwrap();
    let domains: Vec<&str> = config.trust_domains.iter().map(|domain| domain.name.as_str()).collect();
    assert_eq!((&*validator.name, domains), ("envoy.tls.cert_validator.spiffe", vec!["a.test", "b.test"]));
    assert!(everybody.trusted_ca.is_none(), "nobody is believed by the roots of another");
}

#[tokio::test]
async fn an_application_may_name_the_path_of_the_socket_as_the_authority() {
    use heddle_node::clock;
    use tokio::io::AsyncReadExt;

    use crate::http::h1::HeadLimits;
    use crate::http::h2::connection::{Config, Connection};
    use crate::http::h2::message::{WireLength, write_request};
    use crate::http::h2::send::poll_send;
    use crate::http::{Frame, Method, RequestHead};

    let authority = Authority::new("a.test");
    let socket = start(&authority.member(&authority.id("web")));
    let mut stream = UnixStream::connect(&socket.path).await.unwrap();
    let heads =
        HeadLimits { max_bytes: 9_000, max_field: 8_000, max_fields: 50, max_target: 0, connect: false, any_authority: false };
    let (stream_window, connection_window) = (65_535, 65_535);
    let mut machine = Connection::client(Config {
        stream_window,
        connection_window,
        max_frame_size: 16_384,
        max_streams: 1,
        heads,
        glitch_budget: 9,
    });
    let path = "/SpiffeWorkloadAPI/FetchX509Bundles".to_owned();
    let mut head = RequestHead { method: Method::Post, path, ..RequestHead::default() };
    head.fields.append("content-type", "application/grpc");
    head.fields.append("te", "trailers");
    head.fields.append(HEADER, "true");
    let named = "%2Ftmp%2Fsub%2Fworkload.sock";
    let key =
        machine.open(false, false, |encoder, out| write_request(encoder, out, &head, named, false, WireLength::Absent)).unwrap();
    machine.send_data(key, bytes::Bytes::from_static(&[0; 5]), true).unwrap();
    let mut input = bytes::BytesMut::new();
    let cx = Context::from_waker(std::task::Waker::noop());
    let (mut status, mut said) = (None, Vec::new());
    while said.is_empty() {
        poll_fn(|cx| poll_send(&mut machine, &mut stream, cx, || {})).await.unwrap();
        assert_ne!(stream.read_buf(&mut input).await.unwrap(), 0);
        while machine.receive(&mut input, clock::now()).unwrap().is_some() {}
        if let Poll::Ready(head) = machine.poll_head(key, &cx) {
            status = Some(head.unwrap().status);
        }
        if status.is_some()
            && let Poll::Ready(Some(Ok(Frame::Data(bytes)))) = machine.poll_frame(key, &cx)
        {
            said.extend_from_slice(&bytes);
        }
    }
    assert_eq!(status, Some(200));
    assert!(String::from_utf8_lossy(&said).contains("spiffe://a.test"));
}

#[tokio::test]
async fn who_speaks_no_http2_keeps_no_seat() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let authority = Authority::new("a.test");
    let socket = start(&authority.member(&authority.id("web")));
    for _ in 0..CONNECTIONS + 1 {
        let mut stream = UnixStream::connect(&socket.path).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        // Whatever is said first, it is closed.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let mut client = socket.client().await;
    assert!(client.fetch_x509svid(with_header(proto::X509svidRequest {})).await.is_ok());
}

#[tokio::test]
async fn bundles_are_told_by_trust_domain() {
    let (authority, partner) = (Authority::new("a.test"), Authority::new("b.test"));
    let identity = Identity::new();
    identity.set_bundles(authority.bundles().with_federated(partner.bundle()));
    let socket = start(&identity);
    let mut answers =
        socket.client().await.fetch_x509_bundles(with_header(proto::X509BundlesRequest {})).await.unwrap().into_inner();
    let told = answers.message().await.unwrap().unwrap().bundles;
    assert_eq!(told.keys().collect::<Vec<_>>(), ["spiffe://a.test", "spiffe://b.test"]);
    identity.set_bundles(authority.bundles());
    assert_eq!(answers.message().await.unwrap().unwrap().bundles.len(), 1);
}

#[tokio::test]
async fn who_lacks_the_header_or_asks_too_early_is_refused() {
    let authority = Authority::new("a.test");
    let identity = Identity::new();
    let socket = start(&identity);
    let mut client = socket.client().await;
    let refused = client.fetch_x509svid(proto::X509svidRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(client.fetch_x509_bundles(proto::X509BundlesRequest {}).await.unwrap_err().code(), Code::InvalidArgument);
    let early = client.fetch_x509svid(with_header(proto::X509svidRequest {})).await.unwrap_err();
    assert_eq!(early.code(), Code::PermissionDenied);
    identity.set_bundles(authority.bundles());
    identity.set_svid(authority.svid(&authority.id("web"), TTL));
    assert!(client.fetch_x509svid(with_header(proto::X509svidRequest {})).await.is_ok());
}

#[test]
fn only_known_users_may_ask() {
    assert!(is_known(1_000, 1_000, &[]));
    assert!(!is_known(1_001, 1_000, &[]) && !is_known(0, 1_000, &[]));
    assert!(is_known(1_001, 1_000, &[7, 1_001]));
}

#[tokio::test]
async fn an_old_socket_is_replaced_and_anything_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |name: &str, uids: &[u32]| WorkloadApiSettings { path: folder.path().join(name), uids: uids.to_vec() };
    let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    drop(open(&settings("a.sock", &[])).unwrap());
    assert_eq!(mode("a.sock"), 0o600);
    drop(open(&settings("a.sock", &[1_000])).unwrap());
    assert_eq!(mode("a.sock"), 0o666);
    std::fs::write(folder.path().join("notes"), "mine").unwrap();
    assert!(open(&settings("notes", &[])).is_err());
    assert_eq!(std::fs::read_to_string(folder.path().join("notes")).unwrap(), "mine");
}
