//! Serving a connection whose bytes nobody looks into: one tunnel from its first byte to its last. It knows not where it leads.

use std::rc::Rc;
use std::time::Duration;

use heddle_node::clock;

use super::super::site::{Link, Worker};
use super::super::tunnel::join;
use super::wary::opaque;
use crate::exchange::{Call, Door, Interim, Reason, Sent, Service, Tunnel};
use crate::http::digits::AddressText;
use crate::http::{Body, Method, RequestHead};
use crate::net::Io;

/// Where nothing limits how long nothing may move; keeps the sum with a point in time in range.
const NEVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// Serves a connection to its end. `far` is the connection to where it leads, where there is one already.
pub(in super::super) async fn serve<S: Service>(worker: &Rc<Worker<S>>, link: &Link, mut io: Io, far: Option<Box<dyn Tunnel>>) {
    let destination = AddressText::of(link.info.local);
    // What an HTTP client would say that asks for the same; logs show it so.
    let head = RequestHead {
        method: Method::Connect,
        authority: String::from_utf8_lossy(destination.whole()).into_owned(),
        ..RequestHead::default()
    };
    let call = Call {
        head: Box::new(head),
        body: Body::Empty,
        wants_upgrade: true,
        interim: Interim::none(),
        started: clock::now(),
        started_ms: clock::unix_ms(),
    };
    let end = age(link).map(|age| call.started + age);
    let mut response = worker.service.tunnel(&link.info, call, far).await;
    let sent = match response.upgrade.take() {
        Some(far) => {
            let sent = join(&mut io, opaque(far, response.doubt.take()), patience(link), end, &worker.spare).await;
            if sent.reason == Reason::UpstreamReset {
                // What came is not all there was to come.
                io.reset_on_close();
            }
            sent
        }
        None => {
            io.reset_on_close();
            Sent { reason: Reason::None, ..Sent::default() }
        }
    };
    if let Some(ending) = response.ending.take() {
        // The head was made here: its buffers are no connection's.
        drop(ending.ended(sent));
    }
}

/// How old it may become.
fn age(link: &Link) -> Option<Duration> {
    let age = link.site.limits().max_connection_duration;
    (matches!(link.info.door, Door::Bytes(_)) && !age.is_zero()).then(|| age.min(NEVER))
}

/// How long nothing may move.
fn patience(link: &Link) -> Duration {
    match &link.info.door {
        Door::Bytes(Some(route)) if route.idle_timeout.is_zero() => NEVER,
        Door::Bytes(Some(route)) => route.idle_timeout.min(NEVER),
        _ => link.site.limits().idle_timeout,
    }
}
