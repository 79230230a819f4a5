//! Serving a connection whose bytes nobody looks into: one tunnel from its first byte to its last. It knows not where it leads.

use std::rc::Rc;

use heddle_node::clock;

use super::super::site::{Link, Worker};
use super::super::tunnel::join;
use super::wary::opaque;
use crate::exchange::{Call, Interim, Reason, Sent, Service, Tunnel};
use crate::http::digits::AddressText;
use crate::http::{Body, Method, RequestHead};
use crate::net::Io;

/// Serves a connection to its end. `far` is the connection to where it leads, where there is one already.
pub(super) async fn serve<S: Service>(worker: &Rc<Worker<S>>, link: &Link, io: Io, far: Option<Box<dyn Tunnel>>) {
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
    let mut response = worker.service.tunnel(&link.info, call, far).await;
    let idle = link.site.limits().idle_timeout;
    let sent = match response.upgrade.take() {
        Some(far) => join(io, opaque(far, &link.site), idle, &worker.spare).await,
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
