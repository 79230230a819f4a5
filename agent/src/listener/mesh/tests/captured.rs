//! Requests of captured connections by the names of Kubernetes: of services of the mesh, and of others.

use heddle_node::clock;
use heddle_xds::client::Standing;
use heddle_xds::model::Kind;

use super::super::Leads;
use super::outward::Outward;
use super::*;
use crate::exchange::{Call, ConnectionInfo, Destination, Door, Interim, Response, Service};
use crate::http::digits::AddressText;
use crate::http::{Body, RequestHead};

/// What is answered to a request for this host on a connection that was going to some address.
async fn asked(api: &Outward, host: &str) -> Response {
    let going: SocketAddr = "10.96.0.7:80".parse().unwrap();
    let info = ConnectionInfo {
        id: 1,
        listener: "mesh/captured".into(),
        peer: "127.0.0.1:1000".parse().unwrap(),
        peer_text: AddressText::of("127.0.0.1:1000".parse().unwrap()),
        transport_peer: "127.0.0.1:1000".parse().unwrap(),
        local: going,
        tls: None,
        door: Door::Outbound(Destination::Captured(going)),
        inner: false,
    };
    let call = Call {
        head: Box::new(RequestHead { authority: host.to_owned(), path: "/".to_owned(), ..RequestHead::default() }),
        body: Body::Empty,
        wants_upgrade: false,
        interim: Interim::none(),
        started: clock::now(),
        started_ms: 0,
    };
    Pipeline::new(api.worker.clone()).call(&Rc::new(info), call).await
}

#[tokio::test]
async fn a_name_of_kubernetes_is_read_for_a_service_until_it_is_known_to_be_nobodys() {
    story(async {
        let (address, _) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &web.authority);
        let pipeline = Pipeline::new(api.worker.clone());

        // Nobody has said yet whether it is one of the mesh: it is not sent where it was going, and its next connection is judged anew.
        tokio::time::pause();
        assert!(pipeline.leads("web.shop.svc.cluster.local").await);
        let response = asked(&api, "web.shop.svc.cluster.local").await;
        assert_eq!((response.head.status, response.close), (503, true));
        assert!(pipeline.leads("late.shop.mesh").await && !pipeline.leads("late.shop").await);
        tokio::time::resume();
        assert_eq!(api.demand.standing(Kind::MeshService, "shop/web"), Some(Standing::Asked));

        api.learn_at(MeshProtocol::Http, (web.address, &[80]), |_| ());
        for host in ["web.shop.svc.cluster.local", "web.shop.svc:80", "web.shop"] {
            assert!(pipeline.leads(host).await, "{host}");
            let response = asked(&api, host).await;
            assert_eq!((response.head.status, response.close), (200, false), "{host}");
        }
        // What it is known not to be goes where it was going.
        for host in ["web.shop.svc.cluster.local:9090", "web.shop:9090"] {
            assert!(!pipeline.leads(host).await, "{host}");
        }
        assert!(pipeline.leads("web.shop.mesh:9090").await, "that is nobody outside");
    })
    .await;
}
