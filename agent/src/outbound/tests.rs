//! Calls against real servers on loopback: good ones, slow ones, dead ones and liars.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::testing::{constant, request, server};
use super::{Call, CallError, Outbound, RemoteOptions, Reply};
use crate::http::{Fields, Method};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn options() -> RemoteOptions {
    RemoteOptions { timeout: Duration::from_secs(20), ..RemoteOptions::default() }
}

async fn ask_with(address: SocketAddr, options: &RemoteOptions) -> Result<Reply, CallError> {
    Outbound::default().remote(&format!("http://{address}/"), options).unwrap().send(Call::default()).await
}

async fn ask(address: SocketAddr) -> Result<Reply, CallError> {
    ask_with(address, &options()).await
}

#[tokio::test]
async fn a_call_says_what_it_was_told_and_its_answer_comes_whole() {
    let address = server(|mut stream, _| async move {
        let (head, body) = request(&mut stream).await.unwrap();
        let said = format!("{head}{}", String::from_utf8(body).unwrap());
        let (first, rest) = said.split_at(10);
        let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\nx-end: 1\r\n\r\n", first.len(), rest.len());
        let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
        let answer = format!("{early}HTTP/1.1 403 No\r\nx-why: you\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let remote = Outbound::default().remote(&format!("http://{address}/check?a=1"), &options()).unwrap();
    let mut fields = Fields::new();
    fields.append("x-token", "t");
    fields.append("connection", "close");
    fields.append("content-length", "99");
    let call = Call { method: Method::Post, target: "/other?b=2".into(), fields, body: Bytes::from_static(b"hello") };
    let reply = remote.send(call).await.unwrap();
    assert_eq!((reply.head.status, reply.head.fields.get_str("x-why")), (403, Some("you")));
    let said = std::str::from_utf8(&reply.body).unwrap();
    let expected = format!(
        "POST /other?b=2 HTTP/1.1\r\nhost: {address}\r\nx-token: t\r\nuser-agent: heddle\r\ncontent-length: 5\r\n\r\nhello"
    );
    assert_eq!(said, expected);
}

#[tokio::test]
async fn connections_are_used_again_unless_told_otherwise() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let address = server(move |mut stream, _| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            while request(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let outbound = Outbound::default();
    // The same server with the same options is the same remote, whatever the target: also after a change of configuration.
    let held = outbound.remote(&format!("http://{address}/"), &options()).unwrap();
    for target in ["/a", "/b", "/c"] {
        let remote = outbound.remote(&format!("http://{address}{target}"), &options()).unwrap();
        assert_eq!(remote.send(Call::default()).await.unwrap().body, "ok");
        assert_eq!(held.send(Call::default()).await.unwrap().body, "ok");
    }
    assert_eq!(served.load(Ordering::Relaxed), 1);
    let fresh = RemoteOptions { keepalive: false, ..options() };
    let remote = outbound.remote(&format!("http://{address}/"), &fresh).unwrap();
    for _ in 0..2 {
        remote.send(Call::default()).await.unwrap();
    }
    assert_eq!(served.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_rested_connection_that_dies_silently_is_replaced_once() {
    // The first connection answers once and swallows the second question; whether the server has closed it already when that is sent is luck, so that it
    // closes it only after the question has come.
    let address = server(|mut stream, nth| async move {
        request(&mut stream).await.unwrap();
        stream.write_all(OK.as_bytes()).await.unwrap();
        if nth == 0 {
            let _ = request(&mut stream).await;
            return;
        }
        while request(&mut stream).await.is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await.unwrap();
        }
    })
    .await;
    let remote = Outbound::default().remote(&format!("http://{address}/"), &options()).unwrap();
    assert_eq!(remote.send(Call::default()).await.unwrap().body, "ok");
    let again = Call { method: Method::Post, ..Call::default() };
    assert_eq!(remote.send(again).await.unwrap().body, "ok", "the second connection's first answer");
    assert_eq!(remote.send(Call::default()).await.unwrap().body, "new");
}

#[tokio::test]
async fn a_connection_that_dies_amid_an_answer_is_not_tried_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = server(move |mut stream, nth| {
        let count = count.clone();
        async move {
            while request(&mut stream).await.is_some() {
                let answer = if count.fetch_add(1, Ordering::Relaxed) == 0 { OK } else { "HTTP/1.1 2" };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if answer != OK || nth > 0 {
                    return;
                }
            }
        }
    })
    .await;
    let remote = Outbound::default().remote(&format!("http://{address}/"), &options()).unwrap();
    remote.send(Call::default()).await.unwrap();
    assert_eq!(remote.send(Call::default()).await.unwrap_err(), CallError::Closed);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn slow_and_dead_servers_cost_no_more_than_the_timeout() {
    let silent = server(|mut stream, _| async move {
        let _ = request(&mut stream).await;
        std::future::pending::<()>().await;
    });
    let short = RemoteOptions { timeout: Duration::from_millis(50), ..options() };
    assert_eq!(ask_with(silent.await, &short).await.unwrap_err(), CallError::Timeout(short.timeout));
    // One byte now and then must not keep the call alive.
    let drip = server(|mut stream, _| async move {
        request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(ask_with(drip.await, &short).await.unwrap_err(), CallError::Timeout(short.timeout));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(ask(gone).await.unwrap_err(), CallError::Connect(_)));
    let closes = server(|stream, _| async move { drop(stream) }).await;
    assert_eq!(ask(closes).await.unwrap_err(), CallError::Closed);
    let nowhere = Outbound::default().remote("http://no.such.name.invalid/", &options()).unwrap();
    assert!(matches!(nowhere.send(Call::default()).await.unwrap_err(), CallError::Dns(_) | CallError::Timeout(_)));
}

#[tokio::test]
async fn what_liars_send_is_bounded_and_refused() {
    let small = RemoteOptions { max_body: 10, ..options() };
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\nx".to_owned(),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(11)),
    ] {
        assert_eq!(ask_with(constant(answer).await, &small).await.unwrap_err(), CallError::TooLarge(10));
    }
    let exact = constant("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789").await;
    assert_eq!(ask_with(exact, &small).await.unwrap().body.len(), 10);
    for answer in [
        "220 mail.example ESMTP\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", format!("x: {}\r\n", "y".repeat(4000)).repeat(20)),
        "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(40),
    ] {
        let error = ask(constant(answer.clone()).await).await.unwrap_err();
        assert!(matches!(error, CallError::Malformed(_)), "{answer:.60}: {error}");
    }
    // What comes behind an answer belongs to nobody: its connection is not used again.
    let behind = constant(format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")).await;
    let remote = Outbound::default().remote(&format!("http://{behind}/"), &options()).unwrap();
    for _ in 0..3 {
        assert_eq!(remote.send(Call::default()).await.unwrap().body, "ok");
    }
    for target in ["x", "/a b", "/a\r\nx: y", "/#", "*"] {
        let call = Call { target: target.into(), ..Call::default() };
        assert!(matches!(remote.send(call).await.unwrap_err(), CallError::Malformed(_)), "{target}");
    }
}

#[tokio::test]
async fn an_answer_without_length_ends_with_the_connection() {
    let address = server(|mut stream, _| async move {
        request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").await.unwrap();
    })
    .await;
    assert_eq!(ask(address).await.unwrap().body, "all of it");
    let cut = server(|mut stream, _| async move {
        request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nnot all of it").await.unwrap();
    })
    .await;
    assert_eq!(ask(cut).await.unwrap_err(), CallError::Closed);
}

#[tokio::test]
async fn a_large_question_may_be_refused_before_it_is_out() {
    let address = server(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let remote = Outbound::default().remote(&format!("http://{address}/"), &options()).unwrap();
    let call = Call { method: Method::Post, body: Bytes::from(vec![b'x'; 30_000_000]), ..Call::default() };
    assert_eq!(remote.send(call).await.unwrap().head.status, 413);
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_at_once_and_nothing_piles_up() {
    let address = server(|mut stream, _| async move {
        drop(request(&mut stream).await);
        std::future::pending::<()>().await;
    })
    .await;
    let bounded = RemoteOptions { max_in_flight: 2, ..options() };
    let remote = Outbound::default().remote(&format!("http://{address}/"), &bounded).unwrap();
    let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(remote.send(Call::default()))).collect();
    for call in &mut waiting {
        assert!(futures_util::poll!(call).is_pending());
    }
    assert_eq!(remote.send(Call::default()).await.unwrap_err(), CallError::Busy(2));
    // Whoever gives up makes room.
    waiting.pop();
    let mut next = Box::pin(remote.send(Call::default()));
    assert!(futures_util::poll!(&mut next).is_pending());
}

#[tokio::test]
async fn resting_connections_are_bounded_and_closed_in_time() {
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let address = server(move |mut stream, _| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            while request(&mut stream).await.is_some() {
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
            count.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let rests = RemoteOptions { keepalive_pool: 2, keepalive_timeout: Duration::from_millis(300), ..options() };
    let remote = Outbound::default().remote(&format!("http://{address}/"), &rests).unwrap();
    let calls = futures_util::future::join_all((0..5).map(|_| remote.send(Call::default()))).await;
    assert!(calls.iter().all(Result::is_ok));
    let until = async |wanted: usize| {
        while open.load(Ordering::SeqCst) > wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), until(2)).await.expect("no more than two rest");
    tokio::time::timeout(Duration::from_secs(20), until(0)).await.expect("none rests for long");
    assert!(remote.send(Call::default()).await.is_ok());
}

#[test]
fn it_works_on_one_runtime_after_another() {
    let outbound = Outbound::default();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            send.send(constant(OK).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let remote = outbound.remote(&format!("http://localhost:{}/", receive.recv().unwrap().port()), &options()).unwrap();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            assert_eq!(runtime.block_on(remote.send(Call::default())).unwrap().body, "ok");
        }
    }
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { issuer: Issuer::new(params, key), pem }
}

impl Ca {
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A TLS server for this name that says which server name it was asked for.
async fn tls_server(ca: &Ca, name: &str, clients: Option<&Ca>) -> SocketAddr {
    let (chain, key) = ca.issue(name);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    server(move |stream, nth| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let body = format!("{} on {nth}", stream.get_ref().1.server_name().unwrap_or("none"));
            while request(&mut stream).await.is_some() {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_for_the_name_that_is_asked() {
    let (trusted, other) = (ca(), ca());
    let port = tls_server(&trusted, "localhost", None).await.port();
    let with = |options: RemoteOptions| Outbound::default().remote(&format!("https://localhost:{port}/"), &options).unwrap();
    let ours = RemoteOptions { ca: Some(trusted.pem.clone()), ..options() };
    let remote = with(ours.clone());
    assert_eq!(remote.send(Call::default()).await.unwrap().body, "localhost on 0");
    assert_eq!(remote.send(Call::default()).await.unwrap().body, "localhost on 0", "used again");
    let theirs = RemoteOptions { ca: Some(other.pem.clone()), ..options() };
    assert!(matches!(with(theirs.clone()).send(Call::default()).await.unwrap_err(), CallError::Tls(_)));
    assert!(with(RemoteOptions { verify: false, ..theirs }).send(Call::default()).await.is_ok());
    let named = Outbound::default().remote(&format!("https://127.0.0.1:{port}/"), &ours).unwrap();
    assert!(matches!(named.send(Call::default()).await.unwrap_err(), CallError::Tls(_)), "another name");
    let clear = server(|mut stream, _| async move { stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap() }).await;
    let wrong = Outbound::default().remote(&format!("https://{clear}/"), &ours).unwrap();
    assert!(matches!(wrong.send(Call::default()).await.unwrap_err(), CallError::Tls(_)), "no TLS there");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks() {
    let (servers, clients) = (ca(), ca());
    let port = tls_server(&servers, "localhost", Some(&clients)).await.port();
    let anonymous = RemoteOptions { ca: Some(servers.pem.clone()), ..options() };
    let url = format!("https://localhost:{port}/");
    assert!(Outbound::default().remote(&url, &anonymous).unwrap().send(Call::default()).await.is_err());
    let known = RemoteOptions { identity: Some(clients.issue("gateway")), ..anonymous };
    let remote = Outbound::default().remote(&url, &known).unwrap();
    assert!(remote.send(Call::default()).await.is_ok());
}

#[test]
fn what_cannot_be_used_is_told_at_once() {
    let fails = |url: &str, options: RemoteOptions| Outbound::default().remote(url, &options).unwrap_err();
    assert!(fails("localhost", options()).contains("no URL to ask"));
    let broken = RemoteOptions { ca: Some("nothing".into()), ..options() };
    assert_eq!(fails("https://a/", broken), "CA: no certificate in it");
    let (chain, _) = ca().issue("a");
    let (_, key) = ca().issue("b");
    let mixed = RemoteOptions { identity: Some((chain.clone(), key)), verify: false, ..options() };
    assert!(fails("https://a/", mixed).contains("not usable"), "a key of another certificate");
    let keyless = RemoteOptions { identity: Some((chain.clone(), chain)), verify: false, ..options() };
    assert!(fails("https://a/", keyless).starts_with("client certificate: "));
}
