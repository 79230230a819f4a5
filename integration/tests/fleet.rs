//! Every node of a small fleet gets the newest content of everything that is changed, soon: agents of ours, and Envoys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::fleet::dialect::Dialect;
use heddle_integration::fleet::wire::Form;
use heddle_integration::fleet::writer::{Size, Subject};
use heddle_integration::fleet::{Fleet, block};
use heddle_integration::measure::percentile;

const AGENTS: usize = 20;
const SIZE: Size = Size { routes: 100, endpoints: 100 };

/// What is changed reaches all, and nobody is told twice of it; at the end all have the newest content of everything.
fn every_last_version(dialect: Dialect) {
    block(async {
        let fleet = Fleet::start(SIZE, dialect, false).await.unwrap();
        fleet.grow(AGENTS, |_| {}).await.unwrap();
        let all = fleet.measure(Subject::Everything, 100.0, 200).await.unwrap();
        let one = fleet.measure(Subject::OneListener, 20.0, 20).await.unwrap();
        assert_eq!(fleet.stale(), 0);
        assert_eq!((all.last.len(), one.last.len()), (200, 20), "every change was acknowledged by all whom it concerns");
        assert_eq!((all.routes.len(), all.endpoints.len()), (100, 100));
        // Endpoints are written more often than there are upstreams, and a quick change may overtake the one before it.
        assert!(all.traffic.resources <= 200 * AGENTS as u64, "{:?}", all.traffic);
        assert!(percentile(&all.last, 100) < Duration::from_secs(5), "{:?}", all.last);
        // State of the world says with it the one that all have.
        let told = if dialect == Dialect::Envoy(Form::Sotw) { 2 } else { 1 };
        assert!(one.traffic.resources <= 20 * told, "nobody hears of a listener of somebody else: {:?}", one.traffic);
    });
}

#[test]
fn every_agent_gets_every_last_version() {
    every_last_version(Dialect::Heddle);
}

#[test]
fn every_envoy_gets_every_last_version_by_delta() {
    every_last_version(Dialect::Envoy(Form::Delta));
}

#[test]
fn every_envoy_gets_every_last_version_by_state_of_the_world() {
    every_last_version(Dialect::Envoy(Form::Sotw));
}
