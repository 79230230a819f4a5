//! Clusters: what stays over changes, names, health, limits.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use heddle_xds::model::{ActiveCheck, CheckKind, Discovery, PassiveCheck, Thresholds};
use parking_lot::Mutex;

use super::*;
use crate::balance::State;
use crate::dns::tests::{A, Record, fake_dns, resolver};
use crate::exchange::Reason;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn now() -> tokio::time::Instant {
    heddle_node::clock::now()
}

fn named(host: &str, port: u16) -> model::Endpoint {
    model::Endpoint { host: host.into(), port, weight: 1, priority: 0, zone: "".into(), ..model::Endpoint::default() }
}

fn ids(cluster: &Cluster) -> Vec<u64> {
    cluster.view().endpoints.iter().map(|endpoint| endpoint.core.id).collect()
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.view().endpoints.iter().map(|endpoint| endpoint.core.address.to_string()).collect()
}

fn thresholds() -> Thresholds {
    Thresholds {
        healthy_statuses: vec![200],
        successes: 1,
        unhealthy_statuses: vec![500],
        http_failures: 2,
        tcp_failures: 2,
        timeouts: 2,
    }
}

/// A server that answers every request with the status of the cell.
async fn status_server(status: Rc<Cell<u16>>) -> SocketAddr {
    server(move |mut stream, _| {
        let status = status.clone();
        async move {
            while !read_head(&mut stream).await.is_empty() {
                let answer = format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", status.get());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await
}

#[test]
fn what_stays_keeps_its_identity_and_what_leaves_loses_its_connections() {
    run_paused(async {
        let (a, b) = (canned(&[OK, OK]).await, canned(&[OK, OK]).await);
        let mut cluster = cluster(&[a, b], |_| ());
        let pools = Pools::new();
        tokio::task::spawn_local(pools.clone().keep_tidy());
        for _ in 0..2 {
            get(&pools, &cluster).await.unwrap();
        }
        let (before, leaving) = (ids(&cluster), cluster.view().endpoints[1].core.clone());
        assert_eq!(leaving.stats.totals().connections, 1);
        let c = canned(&[OK]).await;
        cluster = cluster.next(config(|_| ()), &[node(c), node(a)].into(), &|_| None, News::Revision, now());
        assert_eq!(ids(&cluster)[1], before[0]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(leaving.stats.totals().connections, 0);
        assert!(leaving.is_retired());
        assert_eq!(cluster.report()[1].totals.connections, 1, "the connection to what stayed is kept");
        // nothing new: nothing changes
        let view = cluster.view().clone();
        cluster = cluster.next(config(|_| ()), &[node(c), node(a)].into(), &|_| None, News::Revision, now());
        assert!(Arc::ptr_eq(&view, &cluster.view()));
    });
}

#[test]
fn traffic_ejects_an_endpoint_and_a_trial_brings_it_back() {
    run_paused(async {
        let status = Rc::new(Cell::new(500));
        let (bad, good) = (status_server(status.clone()).await, canned(&[OK; 40]).await);
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = events.clone();
        let context = Context { on_health: Box::new(move |event| told.lock().push(event.clone())), ..Context::default() };
        let clusters = Clusters::new(Arc::new(context), None, tokio::runtime::Handle::current());
        let config = config(|upstream| upstream.checks.passive = Some(Arc::new(PassiveCheck { thresholds: thresholds() })));
        let (cluster, pools) =
            (clusters.apply(&config, &[node(bad), node(good)].into(), &|_| None, News::Revision), Pools::new());
        let statuses = async |count: usize| {
            let mut statuses = Vec::new();
            for _ in 0..count {
                statuses.push(get(&pools, &cluster).await.unwrap().head.status);
            }
            statuses
        };
        assert_eq!(statuses(6).await, [500, 200, 500, 200, 200, 200]);
        assert_eq!(cluster.report()[0].state, State::Down);
        // the state survives a change of configuration
        let mut changed = (*config).clone();
        changed.retries = Some(1);
        clusters.apply(&Arc::new(changed), &[node(bad), node(good)].into(), &|_| None, News::Revision);
        assert_eq!(cluster.report()[0].state, State::Down);
        status.set(200);
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(cluster.report()[0].state, State::Trial);
        statuses(4).await;
        assert_eq!(cluster.report()[0].state, State::Up);
        let steps: Vec<_> = events.lock().iter().map(|event| (event.address, event.change.to)).collect();
        assert_eq!(steps, [(bad, State::Down), (bad, State::Trial), (bad, State::Up)]);
    });
}

#[test]
fn probes_eject_and_bring_back_without_traffic() {
    run(async {
        let status = Rc::new(Cell::new(500));
        let address = status_server(status.clone()).await;
        let clusters = Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let config = config(|upstream| {
            upstream.checks.active = Some(Arc::new(ActiveCheck {
                kind: CheckKind::Http,
                timeout: Duration::from_secs(10),
                concurrency: 1,
                host: None,
                port: None,
                method: "GET".into(),
                path: "/".into(),
                body: "".into(),
                verify_certificate: true,
                headers: Vec::new(),
                healthy_interval: Duration::from_millis(100),
                unhealthy_interval: Duration::from_millis(100),
                thresholds: thresholds(),
                checkers: 0,
            }));
        });
        let cluster = clusters.apply(&config, &[node(address)].into(), &|_| None, News::Revision);
        assert_eq!(cluster.report()[0].state, State::Up, "an unknown endpoint counts as healthy");
        let mut watch = cluster.watch();
        watch.wait_for(|_| cluster.report()[0].state == State::Down).await.unwrap();
        status.set(200);
        watch.wait_for(|_| cluster.report()[0].state == State::Up).await.unwrap();
        assert_eq!(cluster.report()[0].totals.attempts, 0, "probes are not traffic");
        clusters.retain(|_| false);
        assert!(cluster.view().endpoints[0].core.is_retired());
    });
}

#[test]
fn names_are_resolved_again_and_the_last_good_answer_stays() {
    run(async {
        let answers: [fn() -> Vec<Record>; 3] = [
            || vec![("two.example", A, 10, vec![10, 0, 0, 1]), ("two.example", A, 10, vec![10, 0, 0, 2])],
            || vec![("two.example", A, 10, vec![10, 0, 0, 2]), ("two.example", A, 10, vec![10, 0, 0, 3])],
            Vec::new,
        ];
        let phase = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let at = phase.clone();
        let (dns, _) = fake_dns(move |_| answers[at.load(Ordering::Relaxed)]()).await;
        let clusters = Clusters::new(Arc::default(), Some(resolver(dns)), tokio::runtime::Handle::current());
        let cluster = clusters.apply(&config(|_| ()), &[named("two.example", 80)].into(), &|_| None, News::Revision);
        let pools = Pools::new();
        let mut target = pools.target(&cluster);
        let mut dice = fastrand::Rng::with_seed(1);
        assert_eq!(target.pick(None, &[], Seen::Never, &mut dice, now()).err().unwrap().reason, Reason::UpstreamDns);
        target.settle(&cluster).await;
        assert!(target.pick(None, &[], Seen::Never, &mut dice, now()).is_ok());
        assert_eq!(addresses(&cluster), ["10.0.0.1:80", "10.0.0.2:80"]);
        let before = ids(&cluster);
        phase.store(1, Ordering::Relaxed);
        // the cache of the resolver lives by the clock on the wall, which does not jump here
        cluster.resolved("two.example", Some(answer(&["10.0.0.2", "10.0.0.3"])), now());
        assert_eq!(addresses(&cluster), ["10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(ids(&cluster)[0], before[1]);
        cluster.resolved("two.example", None, now());
        assert_eq!(addresses(&cluster), ["10.0.0.2:80", "10.0.0.3:80"]);
    });
}

fn answer(ips: &[&str]) -> crate::dns::Answer {
    crate::dns::Answer { addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(), services: Vec::new() }
}

#[test]
fn a_name_that_cannot_be_resolved_says_so_at_once() {
    run(async {
        let (dns, _) = fake_dns(|_| Vec::new()).await;
        let clusters = Clusters::new(Arc::default(), Some(resolver(dns)), tokio::runtime::Handle::current());
        let cluster = clusters.apply(&config(|_| ()), &[named("no.example", 80)].into(), &|_| None, News::Revision);
        let pools = Pools::new();
        let mut target = pools.target(&cluster);
        let start = now();
        target.settle(&cluster).await;
        assert!(now() - start < Duration::from_secs(30));
        let error = target.pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), now()).err().unwrap();
        assert_eq!(error.reason, Reason::UpstreamDns);
        let empty = clusters.apply(&config(|_| ()), &[].into(), &|_| None, News::Revision);
        let error = pools.target(&empty).pick(None, &[], Seen::Never, &mut fastrand::Rng::with_seed(1), now()).err().unwrap();
        assert_eq!(error.reason, Reason::NoEndpoint);
    });
}

#[test]
fn a_discovered_name_brings_all_its_addresses() {
    run(async {
        let (dns, _) =
            fake_dns(|_| vec![("web.example", A, 60, vec![10, 0, 0, 1]), ("web.example", A, 60, vec![10, 0, 0, 2])]).await;
        let clusters = Clusters::new(Arc::default(), Some(resolver(dns)), tokio::runtime::Handle::current());
        let config = config(|upstream| upstream.discovery = Some(Discovery::Dns("web.example:8080".into())));
        let cluster = clusters.apply(&config, &[].into(), &|_| None, News::Revision);
        let pools = Pools::new();
        pools.target(&cluster).settle(&cluster).await;
        assert_eq!(addresses(&cluster), ["10.0.0.1:8080", "10.0.0.2:8080"]);
    });
}

#[test]
fn a_name_with_a_dead_first_family_is_still_reached() {
    run(async {
        // localhost is 127.0.0.1 and ::1; this server listens on the latter alone
        let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        });
        let (dns, _) = fake_dns(|_| Vec::new()).await;
        let clusters = Clusters::new(Arc::default(), Some(resolver(dns)), tokio::runtime::Handle::current());
        let cluster = clusters.apply(&config(|_| ()), &[named("localhost", port)].into(), &|_| None, News::Revision);
        let pools = Pools::new();
        pools.target(&cluster).settle(&cluster).await;
        assert_eq!(get(&pools, &cluster).await.unwrap().head.status, 200);
    });
}

#[test]
fn limits_refuse_what_is_too_much() {
    run(async {
        let cluster = cluster(&[canned(&[OK]).await], |upstream| {
            upstream.breakers.max_requests = Some(5);
            upstream.breakers.retry_budget_percent = Some(20);
        });
        let pools = Pools::new();
        let target = pools.target(&cluster);
        let mut dice = fastrand::Rng::with_seed(1);
        let mut open: Vec<_> = (0..5).map(|_| target.pick(None, &[], Seen::Never, &mut dice, now()).unwrap()).collect();
        assert_eq!(target.pick(None, &[], Seen::Never, &mut dice, now()).err().unwrap().reason, Reason::Overflow);
        open.clear();
        let mut pick = |tried: &[u64], seen| target.pick(None, tried, seen, &mut dice, now());
        (0..100).for_each(|_| drop(pick(&[99], Seen::Perhaps).unwrap()));
        open.extend((0..3).map(|_| pick(&[99], Seen::Perhaps).unwrap()));
        let refused = pick(&[99], Seen::Perhaps).err().unwrap().reason;
        assert_eq!(refused, Reason::Overflow, "a hundred are saved up, three more are free at once");
        drop(pick(&[99], Seen::Never).unwrap());
        (0..4).for_each(|_| drop(pick(&[], Seen::Never).unwrap()));
        assert!(pick(&[99], Seen::Perhaps).is_ok(), "five requests have earned one");
        assert!(pick(&[99], Seen::Perhaps).is_err());
        open.clear();
        assert_eq!((totals(&cluster).overflows, totals(&cluster).active), (3, 0));
    });
}

#[test]
fn requests_wait_for_a_connection_only_as_many_as_may() {
    run(async {
        let address = server(|mut stream, _| async move {
            while !read_head(&mut stream).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = stream.write_all(OK.as_bytes()).await;
            }
        })
        .await;
        let cluster = cluster(&[address], |upstream| {
            upstream.breakers.max_connections = Some(1);
            upstream.breakers.max_pending = Some(1);
        });
        let pools = Pools::new();
        let (first, second, third) = tokio::join!(get(&pools, &cluster), get(&pools, &cluster), get(&pools, &cluster));
        assert!(!first.unwrap().reused);
        assert!(second.unwrap().reused);
        assert_eq!(third.unwrap_err().reason, Reason::Overflow);
        assert_eq!((totals(&cluster).connects, totals(&cluster).overflows), (1, 1));
    });
}
