//! Tests of sessions that are kept in a Redis: what several gateways write at the same moment, and what becomes of a session in whose place there is another.

use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, BufStream};

use super::super::session::{Lifetimes, Sealer, Session, Stored, Tokens};
use super::*;
use crate::outbound::testing::{question, server};
use crate::outbound::{Outbound, RedisOptions};

type Kept = Arc<Mutex<BTreeMap<String, String>>>;

/// As much of a Redis as sessions ask for; it knows the one script that they bring.
async fn keeping() -> (SocketAddr, Kept) {
    let kept = Kept::default();
    let shared = kept.clone();
    let address = server(move |stream, _| {
        let kept = shared.clone();
        async move {
            let mut stream = BufStream::new(stream);
            while let Some(words) = question(&mut stream).await {
                let answer = say(&mut kept.lock(), &words.iter().map(String::as_str).collect::<Vec<_>>());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    (address.await, kept)
}

fn say(kept: &mut BTreeMap<String, String>, words: &[&str]) -> String {
    match *words {
        ["PING"] => "+PONG\r\n".to_owned(),
        ["GETRANGE", key, ..] => {
            let value = kept.get(key).map_or("", String::as_str);
            format!("${}\r\n{value}\r\n", value.len())
        }
        ["SET", key, value, "EX", _] => {
            kept.insert(key.to_owned(), value.to_owned());
            "+OK\r\n".to_owned()
        }
        ["EVALSHA", _, "1", key, before, next, _] => {
            let is = kept.get(key).is_some_and(|kept| kept == before || kept == next);
            if is {
                kept.insert(key.to_owned(), next.to_owned());
            }
            format!("*1\r\n:{}\r\n", u8::from(is))
        }
        ["DEL", key] => format!(":{}\r\n", u8::from(kept.remove(key).is_some())),
        _ => panic!("{words:?}"),
    }
}

/// What one gateway sees of it.
fn gateway(address: SocketAddr) -> Stored {
    let options = RedisOptions {
        host: address.ip().to_string(),
        port: address.port(),
        username: None,
        password: None,
        database: 0,
        timeout: Duration::from_secs(20),
        tls: false,
        verify: false,
        ca: None,
        identity: None,
        rest: Duration::from_secs(60),
    };
    let config = serde_json::from_value(json!({ "secret": "0123456789abcdef" })).unwrap();
    let sealer = Sealer::new("0123456789abcdef", &["stored"]).unwrap();
    Stored::new(Outbound::default().redis(&options).unwrap(), "s", sealer, Lifetimes::from(&config))
}

fn tokens(number: u64) -> Tokens {
    Tokens { access: Some(format!("at{number}")), refresh: Some(format!("rt{number}")), ..Tokens::default() }
}

fn dice() -> Option<[u8; 12]> {
    Some(std::array::from_fn(|_| fastrand::u8(..)))
}

#[tokio::test]
async fn what_another_gateway_has_renewed_is_not_written_over() {
    story(async {
        let (address, _) = keeping().await;
        let (one, two) = (gateway(address), gateway(address));
        one.begin(&Session::begin("i".to_owned(), tokens(1), None, NOW), dice().unwrap(), NOW).await.unwrap();
        let seen = async |of: &Stored| of.find("i").await.unwrap().unwrap();
        // One reads, the other renews, and the first marks what it has read as used.
        let (mut used, mut renewed) = (seen(&one).await, seen(&two).await);
        renewed.renew(tokens(2));
        two.update(&renewed, dice, NOW).await.unwrap();
        used.touched = NOW + 100;
        one.update(&used, dice, NOW + 100).await.unwrap();
        assert_eq!(seen(&one).await.tokens.refresh.as_deref(), Some("rt2"));
        // The other way round: who has renewed puts it into what the other one has marked.
        let (mut used, mut renewed) = (seen(&one).await, seen(&two).await);
        used.touched = NOW + 200;
        one.update(&used, dice, NOW + 200).await.unwrap();
        renewed.renew(tokens(3));
        two.update(&renewed, dice, NOW + 150).await.unwrap();
        let now = seen(&one).await;
        assert_eq!((now.tokens.refresh.as_deref(), now.touched), (Some("rt3"), NOW + 200));
        // Both have renewed: the first one counts. And nobody raises what a logout has ended.
        let (mut first, mut second) = (seen(&one).await, seen(&two).await);
        first.renew(tokens(4));
        second.renew(tokens(5));
        one.update(&first, dice, NOW).await.unwrap();
        two.update(&second, dice, NOW).await.unwrap();
        let late = seen(&one).await;
        assert_eq!(late.tokens.refresh.as_deref(), Some("rt4"));
        two.end("i").await.unwrap();
        one.update(&late, dice, NOW).await.unwrap();
        assert!(one.find("i").await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_new_login_ends_the_session_before_it() {
    story(async {
        let (address, kept) = keeping().await;
        let redis = json!({ "host": address.ip(), "port": address.port() });
        for special in [json!({}), json!({"session": {"secret": "0123456789abcdef", "storage": "redis", "redis": redis}})] {
            let mut world = world(special).await;
            world.log_in("/p").await.sent_to();
            let (old, keys) = (world.jar.clone(), kept.lock().keys().cloned().collect::<Vec<_>>());
            // The provider does not renew it this time, so that its owner logs in again.
            world.time = 300;
            world.fake.instead.borrow_mut().insert("/token", (400, r#"{"error":"invalid_grant"}"#.to_owned()));
            let sent = world.get("/p").await.sent_to();
            world.fake.instead.borrow_mut().clear();
            let state = world.agree(&sent);
            // Strict cookies do not come along from the provider.
            let session = world.jar.remove("session").unwrap();
            world.get(&format!("/cb?code=c1&state={state}")).await.sent_to();
            assert_ne!(world.jar["session"], session);
            world.get("/p").await.went();
            world.jar = old;
            world.get("/p").await.sent_to();
            let now: Vec<String> = kept.lock().keys().cloned().collect();
            assert!(now.len() == keys.len() && keys.iter().all(|key| !now.contains(key)), "{keys:?} {now:?}");
        }
    })
    .await;
}
