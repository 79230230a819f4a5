//! What Envoys report to have under way at endpoints, told to the fleet: gateways that go by the load of the fleet count it too. It knows no stream.

use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_node::membership::{EndpointLoad, Membership};
use heddle_xds::server::Loads;
use tokio::time::sleep;

/// How often it is told, as gateways do.
const ROUND: Duration = Duration::from_secs(1);
/// Endpoints of which it is told, the busiest.
const MAX_TOLD: usize = 64;

/// Tells it until the drain begins, where this process is nothing but a control plane: a gateway beside it tells its own.
pub(super) async fn tell(loads: Loads, membership: Membership, mut drain: DrainWatch) {
    if &*membership.facts().role != super::CONTROL_PLANE {
        return;
    }
    let mut told = false;
    loop {
        tokio::select! {
            () = sleep(ROUND) => {}
            () = drain.draining() => return,
        }
        let busiest = loads.busiest(MAX_TOLD);
        if busiest.is_empty() && !told {
            continue;
        }
        told = !busiest.is_empty();
        let load = |(upstream, endpoint, count): (_, _, u64)| EndpointLoad {
            upstream,
            endpoint,
            in_flight: u32::try_from(count).unwrap_or(u32::MAX),
        };
        membership.say(|facts| facts.loads = busiest.into_iter().map(load).collect());
    }
}
