//! A real resolver asks, over UDP and TCP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_xds::model;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

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
    };
    let stats = Arc::new(RouteStats::new(1));
    let action = Action { chain: Arc::default(), upstream: None, timeouts: None, enable_websocket: true, stats };
    Arc::new(MeshService {
        name: name.into(),
        protocol: model::MeshProtocol::Tcp,
        vip: vip.parse().ok(),
        ports: Arc::default(),
        route: Arc::new(CompiledRoute::compile(&route, action).unwrap()),
        own_ports: [].into(),
        depends: Arc::default(),
    })
}

/// A name server that has this address for every name.
async fn outside(address: [u8; 4]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 4096];
        while let Ok((read, peer)) = socket.recv_from(&mut packet).await {
            let asked = Message::from_vec(&packet[..read]).unwrap();
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.add_queries(asked.queries.iter().cloned());
            answer.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 60, RData::A(A(address.into()))));
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
    let names = Names { demand: demand.clone(), tables, namespace: "shop".into(), servers };
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
    let names = Names { demand: Demand::default(), tables, namespace: "shop".into(), servers: Arc::default() };
    tokio::time::pause();
    assert_eq!(names.find("shop/late").await, Found::Unknown);
    let mut question = Message::query();
    let name = hickory_proto::rr::Name::from_ascii("www.example.com.").unwrap();
    question.add_query(hickory_proto::op::Query::query(name, RecordType::A));
    let answer = names.answer(&question.to_vec().unwrap(), false).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().metadata.response_code, ResponseCode::ServFail);
}
