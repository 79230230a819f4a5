//! Against a tiny name server of our own on the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::UdpSocket;

use super::*;

/// A record of the fake: name, type, TTL, data.
pub(crate) type Record = (&'static str, u16, u32, Vec<u8>);

pub(crate) const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// A name server that knows what `records` gives for the n-th question. Names that it does not know do not exist.
pub(crate) async fn fake_dns(records: impl Fn(u32) -> Vec<Record> + Send + 'static) -> (SocketAddr, Arc<AtomicU32>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((len, peer)) = socket.recv_from(&mut packet).await {
            let known = records(count.fetch_add(1, Ordering::Relaxed));
            let _ = socket.send_to(&answer(&packet[..len], &known), peer).await;
        }
    });
    (address, asked)
}

fn answer(question: &[u8], known: &[Record]) -> Vec<u8> {
    let mut name = String::new();
    let mut at = 12;
    while question[at] != 0 {
        let len = question[at] as usize;
        name.push_str(std::str::from_utf8(&question[at + 1..at + 1 + len]).unwrap());
        name.push('.');
        at += 1 + len;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let found: Vec<_> = known.iter().filter(|(of, is, ..)| *of == name && *is == kind).collect();
    let exists = known.iter().any(|(of, ..)| *of == name);
    let mut out = question[..2].to_vec();
    out.extend([0x81, if exists { 0x80 } else { 0x83 }, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    out.extend(&question[12..at + 5]);
    for (_, kind, ttl, data) in found {
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    out
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Vec<u8> {
    let mut data: Vec<u8> = [priority, weight, port].iter().flat_map(|number| number.to_be_bytes()).collect();
    for label in target.split('.') {
        data.push(label.len() as u8);
        data.extend(label.as_bytes());
    }
    data.push(0);
    data
}

pub(crate) fn resolver(server: SocketAddr) -> Resolver {
    Resolver::new(ResolverSettings { servers: vec![server], ..ResolverSettings::default() }).unwrap()
}

#[tokio::test]
async fn both_families_are_found_and_the_ttl_is_kept_within_bounds() {
    let (server, _) = fake_dns(|_| {
        vec![
            ("two.example", A, 30, vec![10, 0, 0, 2]),
            ("two.example", A, 60, vec![10, 0, 0, 1]),
            ("two.example", AAAA, 90, [[0x20, 1].as_slice(), &[0; 13], &[1]].concat()),
            ("never.example", A, 0, vec![10, 0, 0, 9]),
            ("ever.example", A, 1_000_000, vec![10, 0, 0, 8]),
        ]
    })
    .await;
    let resolver = resolver(server);
    let found = resolver.addresses("two.example").await.unwrap();
    let addresses: Vec<_> = found.answer.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "2001::1"]);
    assert!((28..=30).contains(&found.ttl.as_secs()), "the shortest TTL counts: {:?}", found.ttl);
    assert_eq!(resolver.addresses("never.example").await.unwrap().ttl.as_secs(), 1);
    assert!((298..=300).contains(&resolver.addresses("ever.example").await.unwrap().ttl.as_secs()));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_apart_from_a_server_that_is_silent() {
    let (server, _) = fake_dns(|_| Vec::new()).await;
    assert_eq!(resolver(server).addresses("no.example").await, Err(DnsError::NoAddress("no.example".into())));
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let settings = ResolverSettings {
        servers: vec![silent.local_addr().unwrap()],
        timeout: Duration::from_millis(20),
        ..ResolverSettings::default()
    };
    let error = Resolver::new(settings).unwrap().addresses("any.example").await.unwrap_err();
    assert!(matches!(error, DnsError::Failed { .. }), "{error}");
}

#[tokio::test]
async fn service_records_come_first_and_addresses_where_there_are_none() {
    let (server, _) = fake_dns(|_| {
        vec![
            ("_http._tcp.example", SRV, 60, srv(10, 5, 8080, "b.example")),
            ("_http._tcp.example", SRV, 60, srv(0, 7, 8081, "a.example")),
            ("plain.example", A, 60, vec![10, 0, 0, 1]),
        ]
    })
    .await;
    let resolver = resolver(server);
    let found = resolver.discover("_http._tcp.example").await.unwrap().answer;
    let services: Vec<_> = found.services.iter().map(|srv| (&*srv.target, srv.port, srv.weight, srv.priority)).collect();
    assert_eq!(services, [("a.example", 8081, 7, 0), ("b.example", 8080, 5, 10)]);
    assert_eq!(resolver.discover("plain.example").await.unwrap().answer.addresses.len(), 1);
}

#[tokio::test]
async fn literals_and_localhost_need_no_server() {
    let (server, asked) = fake_dns(|_| Vec::new()).await;
    let resolver = resolver(server);
    assert_eq!(resolver.addresses("10.1.2.3").await.unwrap().answer.addresses.len(), 1);
    for name in ["localhost", "LOCALHOST.", "app.localhost"] {
        assert_eq!(resolver.addresses(name).await.unwrap().answer.addresses.len(), 2, "{name}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}
