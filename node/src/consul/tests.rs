//! The client against a server that says what the test wants: indexes, failures, servers in turn, tokens, bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{Document, Expansion, Format};

/// Answers, one after the other; the last one is said again and again.
struct Fake {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    async fn saying(answers: &[(u16, &str, &str)]) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let whole = |(status, fields, body): &(u16, &str, &str)| {
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
        };
        let answers: Arc<Mutex<VecDeque<String>>> = Arc::new(Mutex::new(answers.iter().map(whole).collect()));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answers, heard) = (answers.clone(), heard.clone());
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    let mut piece = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut piece).await {
                        got.extend_from_slice(&piece[..read]);
                        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                        heard.lock().push(String::from_utf8_lossy(&got[..end]).into_owned());
                        got.clear();
                        let answer = {
                            let mut answers = answers.lock();
                            if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Fake { address, asked }
    }

    fn consul(&self) -> Consul {
        Consul::new(ConsulSettings::at(&self.address)).unwrap()
    }

    /// The targets that were asked for, in their order.
    fn targets(&self) -> Vec<String> {
        self.asked.lock().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

fn dice() -> fastrand::Rng {
    fastrand::Rng::with_seed(1)
}

fn index(number: u64) -> String {
    format!("X-Consul-Index: {number}\r\n")
}

#[tokio::test]
async fn a_watch_follows_the_index() {
    let entry = r#"[{"Node":{"Node":"n","Address":"10.0.0.1","Meta":{"zone":"b"}},"Service":{"ID":"w1","Service":"web","Address":"","Port":80,"Tags":null,"Meta":null,"Weights":{"Passing":7,"Warning":2}},"Checks":[{"CheckID":"a","Status":"passing"},{"CheckID":"b","Status":"warning"}]}]"#;
    let fake = Fake::saying(&[
        (200, &index(9), entry),
        (200, &index(9), entry),
        (200, &index(12), "[]"),
        (200, &index(4), "[]"),
        (200, &index(4), entry),
        (200, &index(5), "null"),
    ])
    .await;
    let query = HealthQuery {
        service: "web/ä".into(),
        scope: Scope { datacenter: Some("east".into()), namespace: None },
        tags: vec!["v1".into(), "a&b".into()],
        near: Some("_agent".into()),
        only_passing: true,
        node_meta: [("rack".to_owned(), "7".to_owned())].into(),
    };
    let mut watch = fake.consul().health(&query, dice());
    let first = watch.next().await.unwrap();
    assert_eq!((first.index, first.reset), (9, false));
    let one = &first.value[0];
    assert_eq!(
        (one.address.as_str(), one.port, one.zone.as_str(), one.standing, one.weight()),
        ("10.0.0.1", 80, "b", Standing::Warning, 2)
    );
    let second = watch.next().await.unwrap();
    assert_eq!((second.index, second.reset, second.value.len()), (12, false, 0));
    let third = watch.next().await.unwrap();
    assert_eq!((third.index, third.reset, third.value.len()), (4, true, 1));
    assert_eq!(watch.next().await.unwrap().value, []);
    let base = "/v1/health/service/web%2F%C3%A4?dc=east&tag=v1&tag=a%26b&node-meta=rack%3A7&near=_agent&passing=1";
    let waiting = |at: u64| format!("{base}&index={at}&wait=300000ms");
    assert_eq!(fake.targets(), [base.to_owned(), waiting(9), waiting(9), waiting(12), base.to_owned(), waiting(4)]);
}

/// A Consul with services whose instances have the number of their last change as a port, and blocking queries that wait for one.
async fn changing(services: usize) -> (String, tokio::sync::watch::Sender<Vec<u64>>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (changes, seen) = tokio::sync::watch::channel(vec![1_u64; services]);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut seen, heard) = (seen.clone(), heard.clone());
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut piece).await {
                    let head = String::from_utf8_lossy(&piece[..read]).into_owned();
                    let target = head.split(' ').nth(1).unwrap().to_owned();
                    heard.lock().push(target.clone());
                    let number = target
                        .strip_prefix("/v1/health/service/s")
                        .map(|rest| rest.split('?').next().unwrap().parse::<usize>().unwrap());
                    let index = |all: &Vec<u64>| number.map_or_else(|| all.iter().max().copied().unwrap(), |number| all[number]);
                    let after = target.split("index=").nth(1).map(|rest| rest.split('&').next().unwrap().parse::<u64>().unwrap());
                    let now =
                        seen.wait_for(|all| after.is_none_or(|after| index(all) > after)).await.map(|all| index(&all)).unwrap();
                    let body = match number {
                        Some(_) => format!(r#"[{{"Node":{{"Address":"10.0.0.1"}},"Service":{{"Port":{now}}}}}]"#),
                        None => "[]".to_owned(),
                    };
                    let answer =
                        format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\nX-Consul-Index: {now}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, changes, asked)
}

#[tokio::test]
async fn more_services_than_queries_are_all_followed_by_three_queries_in_their_place() {
    const SERVICES: usize = 40;
    let (address, changes, asked) = changing(SERVICES).await;
    let consul = Consul::new(ConsulSettings { max_queries: 4, ..ConsulSettings::at(&address) }).unwrap();
    let (told, mut news) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..SERVICES {
        let query = HealthQuery { service: format!("s{number}"), ..HealthQuery::default() };
        let (mut watch, told) = (consul.health(&query, dice()), told.clone());
        tokio::spawn(async move {
            while let Ok(seen) = watch.next().await {
                let _ = told.send((number, seen.value[0].port));
            }
        });
    }
    for _ in 0..SERVICES {
        assert_eq!(news.recv().await.unwrap().1, 1);
    }
    for round in 0..SERVICES {
        let (number, now) = (round * 7 % SERVICES, round as u64 + 2);
        changes.send_modify(|all| all[number] = now);
        let heard = tokio::time::timeout(Duration::from_secs(20), news.recv()).await.expect("every change is heard of").unwrap();
        assert_eq!(heard, (number, round as u16 + 2));
    }
    let asked = asked.lock();
    let blocking = |start: &str| asked.iter().filter(|target| target.starts_with(start) && target.contains("wait=")).count();
    let own: std::collections::BTreeSet<&str> = asked
        .iter()
        .filter(|target| target.starts_with("/v1/health/service/") && target.contains("wait="))
        .map(|target| target.split('?').next().unwrap())
        .collect();
    assert_eq!(own.len(), 4, "queries of their own: {own:?}");
    assert!(["/v1/catalog/services", "/v1/health/state/any", "/v1/catalog/nodes"].iter().all(|start| blocking(start) > 0));
}

#[tokio::test]
async fn after_a_failure_nothing_is_waited_for() {
    let fake =
        Fake::saying(&[(200, &index(9), "{}"), (500, "", "No cluster leader"), (200, &index(9), "{}"), (200, &index(10), "{}")])
            .await;
    let mut watch = fake.consul().services(&Scope::default(), dice());
    watch.next().await.unwrap();
    let told = watch.next().await.unwrap_err().to_string();
    assert!(told.contains("with 500: No cluster leader") && told.contains(&fake.address), "{told}");
    assert_eq!(watch.next().await.unwrap().index, 10, "what is as it was is no news");
    let base = "/v1/catalog/services".to_owned();
    let waiting = format!("{base}?index=9&wait=300000ms");
    assert_eq!(fake.targets(), [base.clone(), waiting.clone(), base, waiting]);
}

#[tokio::test]
async fn servers_are_tried_in_turn_and_the_good_one_is_kept() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sick = Fake::saying(&[(503, "", "")]).await;
    let well =
        Fake::saying(&[(200, "", r#"{"Config":{"NodeName":"n1","Datacenter":"dc1","Version":"1.8.7","Server":true}}"#)]).await;
    let addresses = vec![format!("http://{closed}"), sick.address.clone(), well.address.clone()];
    let consul = Consul::new(ConsulSettings { addresses, ..ConsulSettings::default() }).unwrap();
    let expected = AgentSelf { node: "n1".into(), datacenter: "dc1".into(), version: "1.8.7".into(), server: true };
    for _ in 0..2 {
        assert_eq!(consul.agent_self().await.unwrap(), expected);
    }
    assert_eq!((sick.targets().len(), well.targets().len()), (1, 2));
}

#[tokio::test]
async fn a_refused_token_is_read_again() {
    let fake = Fake::saying(&[(403, "", "ACL not found"), (200, &index(1), "[]")]).await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "old\n").unwrap();
    let consul =
        Consul::new(ConsulSettings { token_file: Some(token_file.clone()), ..ConsulSettings::at(&fake.address) }).unwrap();
    std::fs::write(&token_file, "new\n").unwrap();
    let mut watch = consul.keys("heddle/", &Scope::default(), dice());
    let told = watch.next().await.unwrap_err();
    assert!(told.is_denied() && told.to_string().contains("ACL not found") && told.to_string().contains("key:read"), "{told}");
    watch.next().await.unwrap();
    let asked = fake.asked.lock();
    assert!(asked[0].contains("x-consul-token: old") && asked[1].contains("x-consul-token: new"), "{asked:?}");
    assert!(!format!("{consul:?}").contains("new"));
}

#[tokio::test]
async fn keys_are_read_whole() {
    let pairs = r#"[{"Key":"heddle/routes/a","Value":"e30=","ModifyIndex":7},{"Key":"heddle/","Value":null,"ModifyIndex":3}]"#;
    let fake = Fake::saying(&[
        (200, &index(7), pairs),
        (404, &index(8), ""),
        (200, &index(9), r#"[{"Key":"k","Value":"?","ModifyIndex":1}]"#),
    ])
    .await;
    let mut watch = fake.consul().keys("/heddle/", &Scope::default(), dice());
    let seen = watch.next().await.unwrap().value;
    let expected = [("heddle/routes/a", &b"{}"[..], 7), ("heddle/", &b""[..], 3)];
    assert_eq!(seen.iter().map(|pair| (pair.key.as_str(), &*pair.value, pair.modified)).collect::<Vec<_>>(), expected);
    assert_eq!(watch.next().await.unwrap().value, [], "no key at all is 404");
    assert!(watch.next().await.unwrap_err().to_string().contains("not base64"));
    assert!(fake.targets()[0].starts_with("/v1/kv/heddle/?recurse"), "{:?}", fake.targets());
}

#[tokio::test]
async fn answers_that_are_none_are_told() {
    let fake = Fake::saying(&[(200, "", "[]"), (200, &index(1), "<html>"), (429, "", ""), (301, "", "moved")]).await;
    let mut watch = fake.consul().health(&HealthQuery { service: "web".into(), ..HealthQuery::default() }, dice());
    for part in ["X-Consul-Index is missing", "something else than expected", "http_max_conns_per_client", "with 301: moved"] {
        let told = watch.next().await.unwrap_err().to_string();
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[tokio::test]
async fn a_silent_server_and_a_long_answer_are_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = ConsulSettings {
        timeout: Duration::from_millis(100),
        ..ConsulSettings::at(format!("http://{}", silent.local_addr().unwrap()))
    };
    let told = Consul::new(settings).unwrap().agent_self().await.unwrap_err();
    assert!(matches!(told, ConsulError::Slow { .. }), "{told}");
    let long = format!("[{}]", " ".repeat(wire::transport::MAX_BODY));
    let fake = Fake::saying(&[(200, &index(1), &long)]).await;
    let mut watch = fake.consul().intentions(&Scope::default(), dice());
    assert!(matches!(watch.next().await.unwrap_err(), ConsulError::TooLarge { .. }));
}

#[tokio::test]
async fn services_are_registered_kept_alive_and_taken_back() {
    let fake = Fake::saying(&[
        (200, "", ""),
        (200, "", ""),
        (500, "", "CheckID \"x\" does not have associated TTL"),
        (500, "", "Unknown service \"w\""),
    ])
    .await;
    let consul = fake.consul();
    let check = TtlCheck {
        id: "x".into(),
        name: "x".into(),
        ttl: Duration::from_secs(10),
        reap_after: Some(Duration::from_secs(60)),
        initial: CheckStatus::Critical,
    };
    let service = Registration {
        id: "w".into(),
        name: "web".into(),
        address: Some("10.0.0.1".into()),
        port: 80,
        tags: vec!["v1".into()],
        meta: [("zone".to_owned(), "a".to_owned())].into(),
        weights: Some((5, 1)),
        ttl_checks: vec![check],
        checks: vec![serde_json::json!({ "TCP": "10.0.0.1:80", "Interval": "5s" })],
    };
    let body = service.body();
    assert_eq!(
        body["Checks"][0],
        serde_json::json!({ "CheckID": "x", "Name": "x", "TTL": "10000ms", "Status": "critical", "DeregisterCriticalServiceAfter": "60s" })
    );
    assert_eq!((&body["Weights"]["Passing"], &body["Checks"][1]["TCP"]), (&5.into(), &"10.0.0.1:80".into()));
    consul.register(&service).await.unwrap();
    assert!(consul.update_ttl("x", CheckStatus::Passing, "all is well").await.unwrap());
    assert!(!consul.update_ttl("x", CheckStatus::Passing, "").await.unwrap(), "it must be registered again");
    consul.deregister("w").await.unwrap();
    let expected = [
        "/v1/agent/service/register?replace-existing-checks=true",
        "/v1/agent/check/update/x",
        "/v1/agent/check/update/x",
        "/v1/agent/service/deregister/w",
    ];
    assert_eq!(fake.targets(), expected);
}

fn settings(text: &str) -> Result<ConsulSettings, String> {
    let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|mistakes| mistakes.to_string())?;
    document.read(ConsulSettings::read).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn settings_are_read_with_their_mistakes() {
    assert_eq!(settings("{}").unwrap(), ConsulSettings::default());
    let all = settings("{ addresses: [\"https://a:8501\", \"https://[::1]\"], token: secret-token, datacenter: d, namespace: n, consistency: stale, wait: 1m, timeout: 2s, max_queries: 9, tls: { ca_file: ca.pem, server_name: s } }").unwrap();
    assert_eq!(
        (all.addresses.len(), all.consistency, all.max_queries, all.wait),
        (2, Consistency::Stale, 9, Duration::from_secs(60))
    );
    assert!(!format!("{all:?}").contains("secret-token"));
    let wrong = [
        ("{ address: \"10.0.0.1:8500\" }", "address: expected http://"),
        ("{ address: \"http://a/v1\" }", "address: expected http://"),
        ("{ address: \"http://a\", addresses: [] }", "found both"),
        ("{ addresses: [] }", "expected 1 to 16"),
        ("{ token: a, token_file: b }", "either `token` or `token_file`"),
        ("{ address: \"https://a\" }", "`ca_file`"),
        ("{ wait: 1h }", "expected 1s to 600s"),
        ("{ tls: { cert_file: a } }", "together"),
        ("{ consistency: eventual }", "one of: default, stale, consistent"),
    ];
    for (text, expected) in wrong {
        let told = settings(text).unwrap_err();
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
    assert!(settings("{ address: \"https://a\", tls: { verify: false } }").is_ok());
}

#[test]
fn an_instance_with_a_port_that_is_none_does_not_cost_the_others() {
    let text = r#"{"Node":{"Address":"10.0.0.1"},"Service":{"Port":70000,"Weights":{"Passing":-3,"Warning":99999999999}}}"#;
    let one = Instance::from(serde_json::from_str::<health::RawEntry>(text).unwrap());
    assert_eq!((one.port, one.weight_passing, one.weight_warning), (0, 0, u32::MAX));
}

#[test]
fn instances_stand_as_their_worst_check_says() {
    let of = |checks: &str| {
        let text =
            format!(r#"{{"Node":{{"Address":"10.0.0.1"}},"Service":{{"Address":"10.0.0.2","Port":1}},"Checks":{checks}}}"#);
        Instance::from(serde_json::from_str::<health::RawEntry>(&text).unwrap())
    };
    assert_eq!((of("null").standing, of("null").address.as_str(), of("null").weight()), (Standing::Passing, "10.0.0.2", 1));
    assert_eq!(of(r#"[{"CheckID":"a","Status":"critical"},{"CheckID":"b","Status":"warning"}]"#).standing, Standing::Critical);
    assert_eq!(
        of(r#"[{"CheckID":"_service_maintenance:w","Status":"critical"},{"CheckID":"b","Status":"critical"}]"#).standing,
        Standing::Maintenance
    );
}
