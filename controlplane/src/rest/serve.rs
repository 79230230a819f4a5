//! Serves the API on a socket: bounded in connections and time, drained like everything else. It knows nothing of what is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use heddle_node::drain::DrainWatch;
use heddle_xds::link::Heard;
use hyper::Version;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::{Admin, router};

/// Connections at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 1024;
/// Time for a request head, and for an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a request head.
const LARGEST_HEAD: usize = 64 * 1024;
/// Streams of an HTTP/2 connection.
const MOST_STREAMS: u32 = 64;
/// Pause after a failed accept (mostly: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves the API until a drain begins, then finishes what was begun. A forced drain cuts it off.
pub async fn serve(listener: TcpListener, admin: Admin, mut drain: DrainWatch) {
    let router = router(admin);
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = drain.draining() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (router, drain) = (router.clone(), drain.clone());
                tokio::spawn(async move {
                    connection(stream, peer, router, drain).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin address does not accept a connection; are there too many open files?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, drain: DrainWatch) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        // In HTTP/1 the connection is the stream: there it is the server that reads on behind an answer, or closes.
        let in_streams = request.version() == Version::HTTP_2;
        let mut request = request.map(|body| if in_streams { Body::new(Heard::new(body)) } else { Body::new(body) });
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(LARGEST_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MOST_STREAMS).max_header_list_size(LARGEST_HEAD as u32);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let (mut draining, mut forced) = (drain.clone(), drain);
    let ended = tokio::select! {
        biased;
        () = forced.forced() => return,
        ended = served.as_mut() => ended,
        () = draining.draining() => {
            served.as_mut().graceful_shutdown();
            tokio::select! {
                () = forced.forced() => return,
                ended = served => ended,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection to the admin address ended early");
    }
}
