//! What goes on for long after it was allowed: tunnels, WebSockets, streams of either direction. It is judged again whenever the policies change, and ends
//! when none allows it any more. It copies no bytes of its own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::futures::OwnedNotified;

use super::super::worker::Worker;
use super::inbound::plainer;
use crate::authorize::{Called, Caller, Policies, RequestFacts};
use crate::exchange::{ConnectionInfo, Door, Exchange, Tunnel};
use crate::http::{Body, BodyError, BodySource, Fields, Frame};

/// What policies look at in a request, kept for as long as it goes on.
pub(super) struct Kept {
    method: String,
    path: String,
    host: String,
    fields: Fields,
}

impl Kept {
    /// Of a request, as it is now.
    pub(super) fn of(x: &Exchange, method: &str) -> Rc<Kept> {
        let (path, host) = (x.request.path.clone(), x.request.authority.clone());
        Rc::new(Kept { method: method.to_owned(), path, host, fields: x.request.fields.clone() })
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: &self.method, path: &self.path, host: &self.host, fields: &self.fields }
    }
}

/// Asks the policies of now about one thing that they have allowed before.
pub(super) struct Judge {
    worker: Rc<Worker>,
    connection: Rc<ConnectionInfo>,
    /// The port of the application that is called.
    port: u16,
    /// `None`: bytes that nobody looks into.
    kept: Option<Rc<Kept>>,
    /// Those by which it was judged last.
    policies: Arc<Policies>,
    /// Rings when there are others. Most things are over before they have to wait for anything.
    bell: Option<Pin<Box<OwnedNotified>>>,
}

impl Judge {
    /// Of something that `policies` have allowed.
    pub(super) fn new(
        worker: &Rc<Worker>,
        (connection, port): (&Rc<ConnectionInfo>, u16),
        kept: Option<Rc<Kept>>,
        policies: &Arc<Policies>,
    ) -> Judge {
        Judge { worker: worker.clone(), connection: connection.clone(), port, kept, policies: policies.clone(), bell: None }
    }

    /// Whether it is allowed no more.
    pub(super) fn refuses(&mut self) -> bool {
        let Some(policies) = self.worker.other_policies(&self.policies) else { return false };
        self.policies = policies;
        let Door::Inbound { peer, .. } = &self.connection.door else { return false };
        let caller = Caller { peer: peer.as_deref(), address: self.connection.transport_peer.ip() };
        let allows = |request| self.policies.still_allows(&caller, &Called { port: self.port, request });
        let Some(kept) = self.kept.as_deref() else { return !allows(None) };
        let plainer = plainer(&kept.path);
        let read_so = plainer.as_deref().is_none_or(|path| allows(Some(RequestFacts { path, ..kept.facts() })));
        !(allows(Some(kept.facts())) && read_so)
    }

    /// Ready once it is allowed no more; until then the task is woken when that may have changed.
    fn poll_refuses(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let worker = &self.worker;
            let bell = self.bell.get_or_insert_with(|| Box::pin(worker.judging_anew()));
            let rings = bell.as_mut().poll(cx).is_ready();
            if rings {
                self.bell = None;
            }
            // Kept after the bell was hung up, so that no change is missed.
            if self.refuses() {
                return Poll::Ready(());
            }
            if !rings {
                return Poll::Pending;
            }
        }
    }
}

/// A body that ends early when it is allowed no more.
pub(super) fn watched(body: Body, judge: impl FnOnce() -> Judge) -> Body {
    match body {
        Body::Stream(source) => Body::Stream(Box::new(WatchedBody { source, judge: judge() })),
        whole => whole,
    }
}

struct WatchedBody {
    source: Box<dyn BodySource>,
    judge: Judge,
}

impl BodySource for WatchedBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = self.source.poll_frame(cx);
        let refused = match polled {
            Poll::Ready(_) => self.judge.refuses(),
            Poll::Pending => self.judge.poll_refuses(cx).is_ready(),
        };
        if refused { Poll::Ready(Some(Err(BodyError::Refused))) } else { polled }
    }

    fn remaining(&self) -> Option<u64> {
        self.source.remaining()
    }
}

/// The far end of a tunnel that ends when it is allowed no more.
pub(super) struct WatchedTunnel {
    pub(super) far: Box<dyn Tunnel>,
    pub(super) judge: Judge,
}

impl AsyncRead for WatchedTunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.judge.poll_refuses(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, "no policy allows this any more")));
        }
        Pin::new(&mut self.far).poll_read(cx, buf)
    }
}

impl AsyncWrite for WatchedTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.far).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.far).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.far.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_shutdown(cx)
    }
}
