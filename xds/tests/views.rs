//! What a client makes of a control plane that tells a view oddly: with types that it does not know, without an end, or without all that was asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use heddle_proto::envoy::service::discovery::v3 as wire;
use heddle_xds::client::{Batch, ClientConfig, ClientStatus, Interest, Interests, run};
use heddle_xds::codec::encode_body;
use heddle_xds::link;
use heddle_xds::model::{Kind, Resource, Secret, SecretBody};
use heddle_xds::protocol::NodeInfo;
use heddle_xds::snapshot::NodeScope;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer};

type Said = Result<wire::DeltaDiscoveryResponse, Status>;

/// A control plane that says what it is told to say; each stream is handed out.
struct Puppet {
    streams: mpsc::Sender<mpsc::Sender<Said>>,
    /// Those that speak: a stream whose requests nobody reads would end.
    kept: Mutex<Vec<Streaming<wire::DeltaDiscoveryRequest>>>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Puppet {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<wire::DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Said>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        requests: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.kept.lock().unwrap().push(requests.into_inner());
        let (say, said) = mpsc::channel(8);
        self.streams.send(say).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(said)))
    }
}

/// A client of it that asks for all secrets and all listeners.
struct Story {
    streams: mpsc::Receiver<mpsc::Sender<Said>>,
    batches: mpsc::Receiver<Batch>,
    status: watch::Receiver<ClientStatus>,
}

impl Story {
    fn begin() -> Story {
        let (connector, incoming) = link::memory();
        let (streams, opened) = mpsc::channel(1);
        let puppet = AggregatedDiscoveryServiceServer::new(Puppet { streams, kept: Mutex::default() });
        tokio::spawn(tonic::transport::Server::builder().add_service(puppet).serve_with_incoming(incoming));
        let scope = NodeScope { id: "gw-1".into(), role: "gateway".into(), ..NodeScope::default() };
        let mut config = ClientConfig::new(NodeInfo { scope, version: "1".into(), ..NodeInfo::default() }, connector);
        config.interests = Interests::only(&[(Kind::Secret, Interest::All), (Kind::Listener, Interest::All)]);
        let (updates, batches) = mpsc::channel(1);
        let (status, watched) = watch::channel(ClientStatus::default());
        tokio::spawn(run(config, updates, status, fastrand::Rng::with_seed(1)));
        Story { streams: opened, batches, status: watched }
    }

    /// The names that the next batch sets, view by view.
    async fn told(&mut self) -> Vec<Vec<String>> {
        let batch = self.batches.recv().await.unwrap();
        let names =
            batch.views.iter().map(|view| view.iter().flat_map(|update| &update.set).map(|set| set.name.to_string()).collect());
        let names = names.collect();
        batch.accept();
        names
    }
}

fn says(version: &str, kind: Kind, names: &[&str]) -> Said {
    let resource = |name: &&str| {
        let body = encode_body(&Resource::Secret(Secret { name: Arc::from(*name), body: SecretBody::Roots("pem".into()) }));
        let value = prost_types::Any { type_url: kind.type_url().to_owned(), value: body.to_vec() };
        wire::Resource { name: (*name).to_owned(), version: "1".to_owned(), resource: Some(value), ..Default::default() }
    };
    Ok(wire::DeltaDiscoveryResponse {
        system_version_info: version.to_owned(),
        type_url: kind.type_url().to_owned(),
        nonce: version.to_owned(),
        resources: names.iter().map(resource).collect(),
        ..Default::default()
    })
}

fn stranger(version: &str) -> Said {
    says(version, Kind::Secret, &[])
        .map(|said| wire::DeltaDiscoveryResponse { type_url: "type.example/what.Is.This".to_owned(), ..said })
}

#[tokio::test(start_paused = true)]
async fn a_type_that_nobody_knows_does_not_cut_a_view_in_two() {
    let mut story = Story::begin();
    let say = story.streams.recv().await.unwrap();
    let steps =
        [says("1+", Kind::Secret, &["a"]), stranger("1+"), says("1+", Kind::Secret, &["b"]), says("1", Kind::Listener, &[])];
    for step in steps {
        say.send(step).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(story.told().await, [["a", "b"]]);
    // It may say the end as well.
    for step in [says("2+", Kind::Secret, &["c"]), stranger("2")] {
        say.send(step).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(story.told().await, [["c"]]);
    assert_eq!(story.status.borrow().parted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_view_without_an_end_is_for_nobody_and_is_asked_for_again() {
    let mut story = Story::begin();
    let say = story.streams.recv().await.unwrap();
    for step in [says("1", Kind::Secret, &["a"]), says("1", Kind::Listener, &[])] {
        say.send(step).await.unwrap();
    }
    assert_eq!(story.told().await, [["a"]]);
    for n in 0..20 {
        // As long as something comes it goes on.
        say.send(says("2+", Kind::Secret, &[&format!("b{n}")])).await.unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
    }
    assert!(story.batches.try_recv().is_err());
    let next = story.streams.recv().await.unwrap();
    assert!(say.is_closed() && story.batches.try_recv().is_err(), "what has no end is dropped");
    assert!(story.status.borrow().last_error.contains("did not tell its end"), "{}", story.status.borrow().last_error);
    for step in [says("3+", Kind::Secret, &["b", "c"]), says("3", Kind::Listener, &[])] {
        next.send(step).await.unwrap();
    }
    assert_eq!(story.told().await, [["b", "c"]]);
}

#[tokio::test(start_paused = true)]
async fn who_is_let_in_and_refused_at_once_comes_again_later_each_time() {
    let mut story = Story::begin();
    let begun = heddle_node::clock::now();
    for failures in 0..12 {
        let say = story.streams.recv().await.unwrap();
        assert_eq!(story.status.borrow().failures, failures);
        say.send(Err(Status::permission_denied("not you"))).await.unwrap();
    }
    // 100 ms, doubled up to 10 s, at least half of each.
    assert!(begun.elapsed() > Duration::from_secs(25), "twelve attempts in {:?}", begun.elapsed());
    let say = story.streams.recv().await.unwrap();
    for step in [says("1", Kind::Secret, &["a"]), says("1", Kind::Listener, &[])] {
        say.send(step).await.unwrap();
    }
    assert_eq!(story.told().await, [["a"]]);
    story.status.wait_for(|status| status.failures == 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_does_not_answer_for_all_is_believed_in_parts_and_that_is_told() {
    let mut story = Story::begin();
    let say = story.streams.recv().await.unwrap();
    say.send(says("1", Kind::Secret, &["a"])).await.unwrap();
    assert_eq!(story.told().await, [["a"]]);
    assert_eq!(story.status.borrow().parted, 1);
    say.send(says("2", Kind::Secret, &["b"])).await.unwrap();
    assert_eq!(story.told().await, [["b"]]);
    assert_eq!(story.status.borrow().parted, 1, "it was owed at the beginning only");
}
