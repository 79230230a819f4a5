//! Every agent of a small fleet gets the newest content of everything that is changed, soon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_integration::fleet::writer::{Size, Subject};
use heddle_integration::fleet::{Fleet, block};
use heddle_integration::measure::percentile;

const AGENTS: usize = 20;
const SIZE: Size = Size { routes: 100, endpoints: 100 };

#[test]
fn every_agent_gets_every_last_version() {
    block(async {
        let fleet = Fleet::start(SIZE, false).await.unwrap();
        fleet.grow(AGENTS, |_| {}).await.unwrap();
        let all = fleet.measure(Subject::Everything, 100.0, 200).await.unwrap();
        let one = fleet.measure(Subject::OneListener, 20.0, 20).await.unwrap();
        assert_eq!(fleet.stale(), 0);
        assert_eq!((all.last.len(), one.last.len()), (200, 20), "every change was acknowledged by all whom it concerns");
        // Endpoints are written more often than there are upstreams, and a quick change may overtake the one before it.
        assert!(all.traffic.resources <= 200 * AGENTS as u64, "{:?}", all.traffic);
        assert!(one.traffic.resources <= 20, "nobody hears of a listener of somebody else: {:?}", one.traffic);
        assert!(percentile(&all.last, 100) < Duration::from_secs(5), "{:?}", all.last);
    });
}
