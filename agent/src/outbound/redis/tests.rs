//! Questions to servers on loopback that speak as a Redis does: good ones, silent ones, ones that forget and ones that go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heddle_node::clock;
use tokio::io::{AsyncWriteExt, BufStream};

use super::super::Outbound;
use super::super::testing::{question, server};
use super::{Redis, RedisError, RedisOptions, Script};

static ONE: Script = Script::new("return {1}");

fn options(address: SocketAddr) -> RedisOptions {
    RedisOptions {
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
    }
}

fn redis(options: &RedisOptions) -> Redis {
    Outbound::default().redis(options).unwrap()
}

async fn ask(redis: &Redis) -> Result<Vec<i64>, RedisError> {
    redis.run(&ONE, &["k".to_owned()], &["a".to_owned()]).await
}

/// A server that answers each question with what `say` says to the words of it; `None` is no answer, and it hears no more.
async fn saying(say: impl Fn(usize, &[String]) -> Option<&'static str> + Send + Sync + 'static) -> SocketAddr {
    let say = Arc::new(say);
    server(move |stream, nth| {
        let say = say.clone();
        async move {
            let mut stream = BufStream::new(stream);
            while let Some(words) = question(&mut stream).await {
                let Some(answer) = say(nth, &words) else { return };
                // The one that asks may have gone; then there are no more questions.
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.flush().await;
            }
        }
    })
    .await
}

const SILENT: Option<&str> = Some("");

#[tokio::test]
async fn a_script_is_told_once_and_one_connection_carries_all() {
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    let address = saying(move |nth, words| match words[0].as_str() {
        "PING" => Some("+PONG\r\n"),
        _ if nth > 0 => None,
        "EVALSHA" if counted.load(Ordering::SeqCst) == 0 => Some("-NOSCRIPT No matching script\r\n"),
        "EVAL" => {
            counted.fetch_add(1, Ordering::SeqCst);
            assert_eq!(words[1..], ["return {1}", "1", "k", "a"]);
            Some("*2\r\n:1\r\n:-7\r\n")
        }
        _ => Some("*1\r\n:2\r\n"),
    })
    .await;
    let redis = redis(&options(address));
    assert_eq!(ask(&redis).await, Ok(vec![1, -7]));
    let many = futures_util::future::join_all((0..200).map(|_| ask(&redis))).await;
    assert!(many.iter().all(|answer| *answer == Ok(vec![2])));
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_it_is_and_which_database_is_said_first() {
    let address = saying(|_, words| match words.join(" ").as_str() {
        "AUTH ann secret" => Some("+OK\r\n"),
        "AUTH secret" => Some("-WRONGPASS no\r\n"),
        "SELECT 3" => Some("+OK\r\n"),
        "PING" => Some("-NOPERM no\r\n"),
        _ => Some("*1\r\n:5\r\n"),
    })
    .await;
    let named = RedisOptions { username: Some("ann".into()), password: Some("secret".into()), database: 3, ..options(address) };
    assert_eq!(ask(&redis(&named)).await, Ok(vec![5]));
    let wrong = ask(&redis(&RedisOptions { username: None, ..named })).await;
    assert!(matches!(&wrong, Err(RedisError::Connect(why)) if why.contains("authentication failed")), "{wrong:?}");
    let strange = saying(|_, words| Some(if words[0] == "PING" { "+PONG\r\n" } else { "+hello\r\n" })).await;
    assert_eq!(ask(&redis(&options(strange))).await, Err(RedisError::Malformed));
    let full = saying(|_, words| Some(if words[0] == "PING" { "+PONG\r\n" } else { "-OOM too much\r\n" })).await;
    assert!(matches!(ask(&redis(&options(full))).await, Err(RedisError::Refused(why)) if why.contains("too much")));
}

#[tokio::test]
async fn a_connection_that_dies_is_replaced_once() {
    let address = saying(|nth, words| match words[0].as_str() {
        "PING" => Some("+PONG\r\n"),
        _ if nth == 0 => None,
        _ => Some("*0\r\n"),
    })
    .await;
    assert_eq!(ask(&redis(&options(address))).await, Ok(vec![]));
    let dies = saying(|_, words| (words[0] == "PING").then_some("+PONG\r\n")).await;
    assert_eq!(ask(&redis(&options(dies))).await, Err(RedisError::Closed));
}

#[tokio::test]
async fn values_are_kept_found_and_forgotten() {
    let address = saying(|_, words| match words.join(" ").as_str() {
        "PING" => Some("+PONG\r\n"),
        "GETRANGE known 0 7" => Some("$3\r\nabc\r\n"),
        "GETRANGE long 0 7" => Some("$9\r\nabcdefghi\r\n"),
        "GETRANGE unknown 0 7" => Some("$0\r\n\r\n"),
        "SET known v EX 9" => Some("+OK\r\n"),
        asked if asked.starts_with("EVALSHA ") && asked.ends_with(" 1 known v w 1") => Some("*1\r\n:1\r\n"),
        asked if asked.starts_with("EVALSHA ") && asked.ends_with(" 1 known x w 9") => Some("*1\r\n:0\r\n"),
        "DEL known" => Some(":1\r\n"),
        _ => Some("-ERR what?\r\n"),
    })
    .await;
    let redis = redis(&options(address));
    assert_eq!(redis.get("known", 8).await, Ok(Some(b"abc".to_vec())));
    assert_eq!(redis.get("unknown", 8).await, Ok(None));
    assert_eq!(redis.get("long", 8).await, Err(RedisError::Malformed), "more than was asked for");
    assert_eq!(redis.set("known", b"v", 9).await, Ok(()));
    assert_eq!(redis.replace("known", "v", "w", 0).await, Ok(true));
    assert_eq!(redis.replace("known", "x", "w", 9).await, Ok(false), "it is another one by now");
    assert_eq!(redis.delete("known").await, Ok(()));
    assert!(matches!(redis.delete("other").await, Err(RedisError::Refused(why)) if why.contains("what?")));
}

#[tokio::test]
async fn a_silent_one_holds_nobody_up_twice_and_is_found_again() {
    let hangs = Arc::new(AtomicUsize::new(1));
    let told = hangs.clone();
    let address = saying(move |_, words| match (words[0].as_str(), told.load(Ordering::SeqCst)) {
        ("PING", 0 | 1) => Some("+PONG\r\n"),
        (_, 0) => Some("*1\r\n:1\r\n"),
        (_, 1) => {
            told.store(2, Ordering::SeqCst);
            SILENT
        }
        _ => SILENT,
    })
    .await;
    let redis = redis(&RedisOptions { timeout: Duration::from_millis(300), ..options(address) });
    let error = Err(RedisError::Timeout(Duration::from_millis(300)));
    let many = futures_util::future::join_all((0..100).map(|_| ask(&redis))).await;
    assert!(many.iter().all(|answer| *answer == error), "{many:?}");
    let began = clock::now();
    for _ in 0..1000 {
        assert_eq!(ask(&redis).await, error);
    }
    assert!(began.elapsed() < Duration::from_millis(250), "they were answered at once: {:?}", began.elapsed());
    hangs.store(0, Ordering::SeqCst);
    while ask(&redis).await != Ok(vec![1]) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_that_is_not_there_is_known_to_be_away() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let redis = redis(&options(address));
    assert!(matches!(ask(&redis).await, Err(RedisError::Connect(_))));
    assert!(matches!(ask(&redis).await, Err(RedisError::Connect(_))));
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = ended.clone();
    let address = server(move |stream, _| {
        let count = count.clone();
        async move {
            let mut stream = BufStream::new(stream);
            while let Some(words) = question(&mut stream).await {
                stream.write_all(if words[0] == "PING" { b"+PONG\r\n" } else { b"*0\r\n" }).await.unwrap();
                stream.flush().await.unwrap();
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let redis = redis(&RedisOptions { rest: Duration::from_millis(20), ..options(address) });
    for round in 1..3 {
        assert_eq!(ask(&redis).await, Ok(vec![]));
        while ended.load(Ordering::SeqCst) < round {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[test]
fn places_that_are_none_are_refused() {
    let local = options("127.0.0.1:1".parse().unwrap());
    for host in ["", "a b", "a/b", "u@h"] {
        assert!(Outbound::default().redis(&RedisOptions { host: host.to_owned(), ..local.clone() }).is_err(), "{host:?}");
    }
    let outbound = Outbound::default();
    let first = outbound.redis(&local).unwrap();
    assert!(Arc::ptr_eq(&first.0, &outbound.redis(&local).unwrap().0), "equal ones are one");
    let v6 = outbound.redis(&RedisOptions { host: "::1".to_owned(), ..local }).unwrap();
    assert_eq!(format!("{v6:?}"), "Redis([::1]:1/0)");
}
