//! What a stranger may send: refused, ignored or bounded, but never the end of the server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use heddle_node::drain::{DrainCompletion, pair};
use heddle_proto::envoy::config::core::v3::Node;
use heddle_proto::envoy::service::discovery::v3 as wire;
use heddle_xds::link::{self, Peer};
use heddle_xds::model::{Kind, Resource, Secret, SecretBody};
use heddle_xds::protocol::NodeInfo;
use heddle_xds::server::{AdsService, Gate, NodeRegistry, tuned};
use heddle_xds::snapshot::{Change, SnapshotStore};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use wire::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient as Grpc;

struct Stranger {
    requests: mpsc::Sender<wire::DeltaDiscoveryRequest>,
    responses: Streaming<wire::DeltaDiscoveryResponse>,
    registry: Arc<NodeRegistry>,
    _drain: DrainCompletion,
}

fn a_secret() -> Arc<SnapshotStore> {
    let store = Arc::new(SnapshotStore::new());
    let secret = Secret { name: "a".into(), body: SecretBody::Roots("pem".into()) };
    store.apply(vec![Change::Set(Resource::Secret(secret))]);
    store
}

async fn stranger() -> Stranger {
    let (connector, incoming) = link::memory();
    let registry = Arc::new(NodeRegistry::new());
    let (drain, watch) = pair();
    let ads = AdsService::new(a_secret(), registry.clone(), watch).into_server();
    tokio::spawn(tuned().add_service(ads).serve_with_incoming(incoming));
    let mut client = Grpc::new(connector.connect().await.unwrap()).max_encoding_message_size(64 * 1024 * 1024);
    let (requests, receiver) = mpsc::channel(8);
    let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    Stranger { requests, responses, registry, _drain: drain }
}

impl Stranger {
    async fn send(&self, request: wire::DeltaDiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }
}

fn request(id: &str, kind: Kind) -> wire::DeltaDiscoveryRequest {
    wire::DeltaDiscoveryRequest {
        node: Some(Node { id: id.to_string(), cluster: "edge".to_string(), ..Default::default() }),
        type_url: kind.type_url().to_string(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_node_must_say_who_it_is() {
    let mut nobody = stranger().await;
    nobody.send(wire::DeltaDiscoveryRequest { node: None, ..request("", Kind::Secret) }).await;
    assert_eq!(nobody.responses.message().await.unwrap_err().code(), Code::InvalidArgument);
    let mut empty = stranger().await;
    empty.send(request("", Kind::Secret)).await;
    assert_eq!(empty.responses.message().await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(empty.registry.connected(), 0);
}

#[tokio::test]
async fn types_that_are_not_served_are_ignored() {
    let mut envoy = stranger().await;
    let unknown = wire::DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime".to_string(),
        ..request("e", Kind::Secret)
    };
    envoy.send(unknown).await;
    envoy.send(wire::DeltaDiscoveryRequest { node: None, ..request("e", Kind::Secret) }).await;
    let response = envoy.responses.message().await.unwrap().unwrap();
    assert_eq!((response.type_url.as_str(), response.resources.len()), (Kind::Secret.type_url(), 1));
    assert_eq!((response.resources[0].name.as_str(), response.nonce.is_empty()), ("a", false));
    let node = envoy.registry.nodes().remove(0);
    assert_eq!((&*node.node.scope.id, &*node.node.scope.role), ("e", "edge"), "the cluster is the role of other clients");
}

#[tokio::test]
async fn too_many_names_end_the_stream() {
    let mut greedy = stranger().await;
    let resource_names_subscribe = (0..100_001).map(|n| n.to_string()).collect();
    greedy.send(wire::DeltaDiscoveryRequest { resource_names_subscribe, ..request("g", Kind::Secret) }).await;
    let status = loop {
        match greedy.responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without saying why"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("resource_names_subscribe has 100001"), "{status}");
}

#[tokio::test]
async fn a_node_that_cannot_be_read_is_told_what_and_not_that_it_asks_for_too_much() {
    let mut long = stranger().await;
    long.send(request(&"x".repeat(2_000), Kind::Secret)).await;
    let status = long.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("node.id has 2000"), "{status}");
}

#[tokio::test]
async fn who_has_no_configuration_yet_and_would_be_told_too_much_at_once_may_come_again() {
    let (connector, incoming) = link::memory();
    let (_drain, watch) = pair();
    let store = a_secret();
    let all = Secret { name: "all".into(), body: SecretBody::Roots("x".repeat(65 * 1024 * 1024).into()) };
    store.apply(vec![Change::Set(Resource::Secret(all))]);
    let ads = AdsService::new(store.clone(), Arc::new(NodeRegistry::new()), watch).into_server();
    tokio::spawn(tuned().add_service(ads).serve_with_incoming(incoming));
    let mut client = Grpc::new(connector.connect().await.unwrap());
    let mut come = async || {
        let (requests, receiver) = mpsc::channel(1);
        let node = request("sotw", Kind::Secret).node;
        let request = wire::DiscoveryRequest { node, type_url: Kind::Secret.type_url().to_string(), ..Default::default() };
        requests.send(request).await.unwrap();
        let mut responses = client.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        responses.message().await
    };
    let status = come().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("delta tells each resource by itself"), "{status}");
    store.apply(vec![Change::Remove(Kind::Secret, "all".into())]);
    // It is shown in a moment.
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            match come().await {
                Ok(told) => return told.unwrap(),
                Err(status) => assert_eq!(status.code(), Code::Unavailable),
            }
        }
    });
    assert_eq!(told.await.unwrap().resources.len(), 1, "it has become less");
}

#[tokio::test]
async fn a_request_beyond_the_size_limit_ends_the_stream() {
    let mut huge = stranger().await;
    let subscribe = vec!["x".repeat(17 * 1024 * 1024)];
    huge.send(wire::DeltaDiscoveryRequest { resource_names_subscribe: subscribe, ..request("h", Kind::Secret) }).await;
    assert_eq!(huge.responses.message().await.unwrap_err().code(), Code::OutOfRange);
}

/// Streams that would fill the entrance several times over.
const FLOOD: usize = 3_000;

#[tokio::test]
async fn strangers_take_nobodys_place_at_the_entrance() {
    let (connector, incoming) = link::memory();
    let (_drain, watch) = pair();
    let ads = AdsService::new(a_secret(), Arc::new(NodeRegistry::new()), watch);
    let gate: Gate = Arc::new(|_: &Peer, node: &mut NodeInfo| match &*node.scope.id {
        "known" => Ok(()),
        other => Err(Status::permission_denied(format!("{other} is a stranger"))),
    });
    tokio::spawn(tuned().add_service(ads.behind(gate).into_server()).serve_with_incoming(incoming));
    let client = Grpc::new(connector.connect().await.unwrap());
    let come = |id: &'static str| {
        let mut client = client.clone();
        async move {
            let (requests, receiver) = mpsc::channel(1);
            requests.send(request(id, Kind::Secret)).await.unwrap();
            let streams = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?;
            let mut responses = streams.into_inner();
            responses.message().await.map(|response| (response, requests))
        }
    };
    for _ in 0..FLOOD / 100 {
        let refused = futures_util::future::join_all((0..100).map(|_| come("stranger"))).await;
        assert!(refused.into_iter().all(|refused| refused.is_err_and(|status| status.code() == Code::PermissionDenied)));
    }
    let (response, _requests) = come("known").await.unwrap();
    assert_eq!(response.unwrap().type_url, Kind::Secret.type_url());
}

#[tokio::test]
async fn a_service_of_one_type_is_about_that_type_alone() {
    use heddle_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient as Sds;
    let (connector, incoming) = link::memory();
    let (_drain, watch) = pair();
    let ads = AdsService::new(a_secret(), Arc::new(NodeRegistry::new()), watch).into_server();
    tokio::spawn(
        tuned().add_service(ads.of_type::<{ heddle_xds::server::SDS }>()).add_service(ads).serve_with_incoming(incoming),
    );
    let mut client = Sds::new(connector.connect().await.unwrap());
    let (requests, receiver) = mpsc::channel(8);
    let mut responses = client.stream_secrets(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let node = request("envoy-1", Kind::Secret).node;
    let unsaid = wire::DiscoveryRequest { node, resource_names: vec!["a".to_owned()], ..Default::default() };
    requests.send(unsaid).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().resources.len(), 1);
    let other = wire::DiscoveryRequest { type_url: Kind::Endpoints.type_url().to_owned(), ..Default::default() };
    requests.send(other).await.unwrap();
    assert_eq!(responses.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn nodes_are_sent_elsewhere_once_and_those_that_come_after_stay() {
    let (connector, incoming) = link::memory();
    let (_drain, watch) = pair();
    let times = tokio::sync::watch::Sender::new(0);
    let registry = Arc::new(NodeRegistry::new());
    let ads = AdsService::new(a_secret(), registry.clone(), watch).sending(times.subscribe());
    tokio::spawn(tuned().add_service(ads.into_server()).serve_with_incoming(incoming));
    let client = Grpc::new(connector.connect().await.unwrap());
    let come = async || {
        let (requests, receiver) = mpsc::channel(1);
        requests.send(request("a", Kind::Secret)).await.unwrap();
        let streams = client.clone().delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap();
        let mut responses = streams.into_inner();
        responses.message().await.unwrap().unwrap();
        (responses, requests)
    };
    let (mut before, _requests) = come().await;
    times.send_replace(1);
    let status = before.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("connect to another one"), "{status}");
    let (mut after, _more) = come().await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(4), after.message()).await;
    assert!(ended.is_err() && registry.connected() == 1, "{ended:?}");
}
