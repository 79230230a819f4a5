//! Clients that keep connections ready: they connect long before they have anything to say.

use super::super::super::Count;
use super::super::Leads;
use super::outward::{Outward, to_web, tunnel};
use super::*;

/// Longer than a head may take once it has begun, shorter than a connection may rest.
const WHILE: Duration = Duration::from_secs(30);

/// Lets time pass, once this many connections have come and wait.
async fn passes(api: &Outward, came: u64, time: Duration) {
    while api.counters.get(Count::Accepted) < came {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn who_connects_ahead_may_wait_as_between_two_requests_and_not_within_one() {
    story(async {
        let (address, _) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        for leads in [to_web(), Leads::ByHost] {
            let mut api = Outward::leading(leads.clone(), &web.authority);
            api.learn(MeshProtocol::Http, web.address);
            let limits = EdgeLimits::default();
            assert!(limits.header_timeout < WHILE && WHILE < limits.idle_timeout);

            let mut early = api.connect().await;
            passes(&api, 1, WHILE).await;
            let answer = ask(&mut early, GET).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{leads:?}: {answer}");

            let mut slow = api.connect().await;
            slow.write_all(b"GET /a HT").await.unwrap();
            let mut waited = Duration::ZERO;
            while !ends_within(&mut slow, Duration::from_millis(500)).await {
                passes(&api, 2, limits.header_timeout).await;
                waited += limits.header_timeout;
                assert!(waited < limits.idle_timeout, "{leads:?}: who has begun must go on");
            }

            let mut silent = api.connect().await;
            passes(&api, 3, limits.idle_timeout).await;
            assert!(ends_within(&mut silent, Duration::from_secs(5)).await, "{leads:?}: nobody waits for ever");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_of_the_proxy_may_be_opened_ahead() {
    story(async {
        let (address, _) = answering(OK).await;
        let web = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut api = Outward::leading(Leads::ByHost, &web.authority);
        api.learn(MeshProtocol::Http, web.address);
        let mut early = tunnel(&api, "web.shop:80").await;
        passes(&api, 1, WHILE).await;
        let answer = ask(&mut early, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    })
    .await;
}
