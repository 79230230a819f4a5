//! A real resolver asks, over UDP and TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_node::identity::{Bundle, Bundles};
use heddle_xds::model;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;
use crate::observe::RouteStats;
use crate::route::CompiledRoute;
use crate::tables::{Action, MeshService};

fn service(name: &str, vip: &str) -> Arc<MeshService> {
    let route = model::Route {
        id: name.into(),
        name: name.into(),
        service_id: "".into(),
        service_name: "".into(),
        matches: model::RouteMatch { uris: vec!["/*".into()], ..model::RouteMatch::default() },
        priority: 0,
        created: 0,
        plugins: Vec::new(),
        upstream: None,
        timeouts: None,
        enable_websocket: true,
        max_duration: None,
    };
    let stats = Arc::new(RouteStats::new(1));
    let action =
        Action { chain: Arc::default(), upstream: None, timeouts: None, enable_websocket: true, max_duration: None, stats };
    Arc::new(MeshService {
        name: name.into(),
        protocol: model::MeshProtocol::Tcp,
        vip: vip.parse().ok(),
        ports: Arc::default(),
        route: Arc::new(CompiledRoute::compile(&route, action).unwrap()),
        own_ports: [].into(),
        domain: Some("mesh.example".parse().unwrap()),
        depends: Arc::default(),
    })
}

/// A name server that has this address for every name but those that begin with `nobody`.
async fn outside(address: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((read, peer)) = socket.recv_from(&mut packet).await {
            let asked = Message::from_vec(&packet[..read]).unwrap();
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.add_queries(asked.queries.iter().cloned());
            let query = &asked.queries[0];
            if query.name.to_ascii().starts_with("nobody") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type == RecordType::A {
                answer.add_answer(Record::from_rdata(query.name.clone(), 60, RData::A(A(address.into()))));
            }
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    at
}

fn client(server: SocketAddr, by_tcp: bool) -> TokioResolver {
    let mut connection = if by_tcp { ConnectionConfig::tcp() } else { ConnectionConfig::udp() };
    connection.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().attempts = 1;
    builder.build().unwrap()
}

async fn ask(client: &TokioResolver, name: &str) -> Option<RData> {
    let found = client.lookup(name, RecordType::A).await.ok()?;
    found.answers().first().map(|record| record.data.clone())
}

#[tokio::test]
async fn services_are_answered_when_they_are_known_and_everything_else_by_others() {
    let (sender, tables) = watch::channel(Arc::<Tables>::default());
    let demand = Demand::default();
    let servers = Arc::from([outside([192, 0, 2, 9]).await]);
    let names = Names { demand: demand.clone(), tables, namespace: "shop".into(), kubernetes: None, servers };
    let server = Server::open("127.0.0.1:0".parse().unwrap(), names).await.unwrap();
    let address = server.address().unwrap();
    tokio::spawn(server.run());
    let client_udp = client(address, false);
    let asking = tokio::spawn({
        let client = client_udp.clone();
        async move { ask(&client, "api.mesh.").await }
    });
    while demand.standing(Kind::MeshService, "shop/api").is_none() {
        tokio::task::yield_now().await;
    }
    let mut known = Tables::default();
    Arc::make_mut(&mut known.mesh).insert("shop/api".into(), service("shop/api", "240.0.0.7"));
    sender.send_replace(Arc::new(known));
    let vip = Some(RData::A(A([240, 0, 0, 7].into())));
    assert_eq!(asking.await.unwrap(), vip, "the first question waits for the control plane");
    assert_eq!(ask(&client(address, true), "API.shop.mesh.").await, vip);
    assert_eq!(ask(&client_udp, "www.example.com.").await, Some(RData::A(A([192, 0, 2, 9].into()))));
}

#[tokio::test]
async fn names_that_nobody_answers_fail_and_do_not_hang() {
    let (_sender, tables) = watch::channel(Arc::<Tables>::default());
    let names = Names { demand: Demand::default(), tables, namespace: "shop".into(), kubernetes: None, servers: Arc::default() };
    tokio::time::pause();
    assert_eq!(names.find("shop/late", clock::now() + WAIT).await, Found::Unknown);
    let mut question = Message::query();
    let name = hickory_proto::rr::Name::from_ascii("www.example.com.").unwrap();
    question.add_query(hickory_proto::op::Query::query(name, RecordType::A));
    let answer = names.answer(&question.to_vec().unwrap(), false).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}

/// Names as they are answered in a Kubernetes, to a member of `mesh.example`, with the services `shop/api` and `partner/cart`, of which the second is a partner's.
async fn names_in_kubernetes() -> (Names, watch::Sender<Arc<Tables>>) {
    let identity = Identity::new();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = root.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    identity.set_bundles(Bundles::new(Bundle::from_der("mesh.example".parse().unwrap(), vec![root]).unwrap()));
    let mut known = Tables::default();
    let cart = MeshService::clone(&service("partner/cart", "240.0.0.9"));
    let cart = MeshService { domain: Some("partner.example".parse().unwrap()), ..cart };
    Arc::make_mut(&mut known.mesh).insert("shop/api".into(), service("shop/api", "240.0.0.7"));
    Arc::make_mut(&mut known.mesh).insert("partner/cart".into(), Arc::new(cart));
    let (sender, tables) = watch::channel(Arc::new(known));
    let kubernetes = Kubernetes { domain: "cluster.local".into(), spared: Arc::from(["heddle-system/heddle".into()]), identity };
    let servers = Arc::from([outside([192, 0, 2, 9]).await]);
    let names = Names { demand: Demand::default(), tables, namespace: "shop".into(), kubernetes: Some(kubernetes), servers };
    (names, sender)
}

/// What is answered: the address, where there is one, or why not.
async fn told(names: &Names, name: &str, kind: RecordType) -> Result<Option<RData>, ResponseCode> {
    let mut question = Message::query();
    question.add_query(hickory_proto::op::Query::query(hickory_proto::rr::Name::from_ascii(name).unwrap(), kind));
    let answer = Message::from_vec(&names.answer(&question.to_vec().unwrap(), false).await.unwrap()).unwrap();
    let first = answer.answers.first().map(|record| record.data.clone());
    if answer.metadata.response_code == ResponseCode::NoError { Ok(first) } else { Err(answer.metadata.response_code) }
}

#[tokio::test]
async fn names_of_kubernetes_lead_to_members_by_both_families_and_to_others_as_before() {
    let (names, _sender) = names_in_kubernetes().await;
    let (vip, outside) = (Ok(Some(RData::A(A([240, 0, 0, 7].into())))), Ok(Some(RData::A(A([192, 0, 2, 9].into())))));
    for name in ["api.shop.svc.cluster.local.", "API.shop.svc."] {
        assert_eq!(told(&names, name, RecordType::A).await, vip, "{name}");
        assert_eq!(told(&names, name, RecordType::AAAA).await, Ok(None), "{name}: no address of another family leads past it");
    }
    // Whatever is not an address of a service; a partner's service, which is in no Kubernetes of ours; and the control plane, which must be found before all else.
    for name in ["api-0.api.shop.svc.cluster.local.", "cart.partner.svc.cluster.local.", "heddle.heddle-system.svc."] {
        assert_eq!(told(&names, name, RecordType::A).await, outside, "{name}");
    }
    assert_eq!(told(&names, "cart.partner.mesh.", RecordType::A).await, Ok(Some(RData::A(A([240, 0, 0, 9].into())))));
    assert_eq!(names.demand.standing(Kind::MeshService, "heddle-system/heddle"), None);
}

#[tokio::test]
async fn what_may_be_a_member_is_told_no_address_by_which_it_is_called_in_clear() {
    let (names, _sender) = names_in_kubernetes().await;
    // Nobody has said whether it is one; that there is no such name can be told all the same.
    assert_eq!(told(&names, "late.shop.svc.cluster.local.", RecordType::A).await, Err(ResponseCode::ServFail));
    let asked = clock::now();
    assert_eq!(told(&names, "late.shop.svc.cluster.local.", RecordType::A).await, Err(ResponseCode::ServFail));
    assert!(clock::now() - asked < WAIT, "nobody waits twice");
    assert_eq!(told(&names, "nobody.com.svc.cluster.local.", RecordType::A).await, Err(ResponseCode::NXDomain));
    assert_eq!(told(&names, "api.shop.svc.cluster.local.", RecordType::A).await, Ok(Some(RData::A(A([240, 0, 0, 7].into())))));
}

#[test]
fn what_names_of_kubernetes_end_in_is_read_from_where_pods_look_for_names() {
    for (search, domain) in [
        ("svc.cluster.local.", Some("cluster.local")),
        ("Svc.K8s.Example", Some("k8s.example")),
        ("shop.svc.cluster.local", None),
        ("svc.", None),
        ("example.com", None),
    ] {
        assert_eq!(cluster_domain(search).as_deref(), domain, "{search}");
    }
}
