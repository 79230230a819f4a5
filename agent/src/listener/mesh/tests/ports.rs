//! An application with several ports: who calls names one, each speaks its own protocol, and policies tell them apart.

use bytes::Bytes;
use http::{Method, Request};

use super::tunnels::greeting;
use super::*;

/// A sidecar before an application that answers `ok` where nobody names a port, something else at 9090, and greets at 25.
async fn several(protocol: MeshProtocol) -> Sidecar {
    several_with(protocol, |inbound| inbound.mode = Some(PeerMode::Permissive)).await
}

async fn several_with(protocol: MeshProtocol, edit: impl FnOnce(&mut InboundSettings)) -> Sidecar {
    let (main, other) = (answering(OK).await.0, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother").await.0);
    let further = [
        Place { port: 9090, address: other, protocol: MeshProtocol::Http },
        Place { port: 25, address: greeting().await, protocol: MeshProtocol::Tcp },
    ];
    Sidecar::before_all((main, protocol), &further, edit)
}

/// Status and body of what a member gets that names this port.
async fn asked(requests: &mut h2::client::SendRequest<Bytes>, port: Option<&str>) -> (u16, Bytes) {
    let request = Request::builder().method(Method::GET).uri("https://web.shop/");
    let request = port.into_iter().fold(request, |request, port| request.header("x-heddle-port", port));
    let (response, _) = requests.send_request(request.body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().data().await.and_then(Result::ok).unwrap_or_default())
}

/// The first bytes of a tunnel to this port, or the status of its refusal.
async fn tunnelled(requests: &mut h2::client::SendRequest<Bytes>, port: u16) -> Result<Bytes, u16> {
    let connect = Request::builder().method(Method::CONNECT).uri(format!("web.shop:{port}")).body(()).unwrap();
    let (response, _up) = requests.send_request(connect, false).unwrap();
    let response = response.await.unwrap();
    match response.status().as_u16() {
        200 => Ok(response.into_body().data().await.unwrap().unwrap()),
        status => Err(status),
    }
}

#[tokio::test]
async fn members_name_the_port_that_they_mean_and_each_speaks_its_own_protocol() {
    story(async {
        let sidecar = several(MeshProtocol::Http).await;
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, None).await, (200, "ok".into()));
        assert_eq!(asked(&mut requests, Some("9090")).await, (200, "other".into()));
        assert_eq!(asked(&mut requests, Some("25")).await.0, 421, "bytes are for tunnels");
        assert_eq!(asked(&mut requests, Some("7")).await.0, 421, "no port of this instance");
        assert_eq!(tunnelled(&mut requests, 25).await, Ok("220 ready\r\n".into()));
        assert_eq!(tunnelled(&mut requests, 9090).await, Err(405));
        let in_clear = GET.replace("Connection", "X-Heddle-Port: 9090\r\nConnection");
        assert!(ask(&mut sidecar.clear().await, &in_clear).await.ends_with("ok"), "only members name a port");
    })
    .await;
}

#[tokio::test]
async fn policies_tell_the_ports_of_one_service_apart() {
    story(async {
        let mut sidecar = several(MeshProtocol::Http).await;
        let operation = PolicyOperation { ports: vec![9090], ..PolicyOperation::default() };
        let policy = AuthorizationPolicy {
            id: "p".into(),
            namespace: "shop".into(),
            service: None,
            action: PolicyAction::Deny,
            dry_run: false,
            rules: vec![PolicyRule { from: Vec::new(), to: vec![operation] }],
        };
        sidecar.compiler.set(Resource::AuthorizationPolicy(policy)).unwrap();
        sidecar.worker.swap(sidecar.compiler.tables());
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, None).await, (200, "ok".into()));
        assert_eq!(asked(&mut requests, Some("9090")).await.0, 403);
        assert_eq!(tunnelled(&mut requests, 25).await, Ok("220 ready\r\n".into()));
    })
    .await;
}

#[tokio::test]
async fn what_a_port_is_said_to_speak_does_not_hang_on_what_another_one_is_found_to_speak() {
    story(async {
        let sidecar = several(MeshProtocol::Auto).await;
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, Some("9090")).await, (200, "other".into()));
        assert_eq!(tunnelled(&mut requests, 25).await, Ok("220 ready\r\n".into()));
        assert_eq!(asked(&mut requests, None).await, (200, "ok".into()));
    })
    .await;
}

#[tokio::test]
async fn members_reach_a_port_that_demands_them_where_the_first_one_speaks_no_tls() {
    story(async {
        let mut sidecar = several_with(MeshProtocol::Http, |_| ()).await;
        sidecar.told(PeerMode::Disable, &[(9090, PeerMode::Strict)]);
        assert!(ask(&mut sidecar.clear().await, GET).await.ends_with("ok"));
        let mut requests = sidecar.http2().await;
        assert_eq!(asked(&mut requests, Some("9090")).await, (200, "other".into()));
        let in_clear = GET.replace("Connection", "X-Heddle-Port: 9090\r\nConnection");
        assert!(
            ask(&mut sidecar.clear().await, &in_clear).await.ends_with("ok"),
            "in clear nobody gets at a port that demands members"
        );
        sidecar.told(PeerMode::Disable, &[]);
        assert!(sidecar.call_as(&sidecar.authority.member(API), &[b"http/1.1"]).await.is_err(), "TLS is for members alone");
        assert_eq!(asked(&mut sidecar.http2().await, Some("9090")).await, (200, "other".into()), "who name further ports by it");
        sidecar.told(PeerMode::Strict, &[(9090, PeerMode::Disable)]);
        assert_eq!(ask(&mut sidecar.clear().await, GET).await, "", "what one port allows is not allowed for another");
    })
    .await;
}
