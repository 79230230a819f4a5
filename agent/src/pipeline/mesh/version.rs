//! The version of HTTP in which an application is asked that has not said which one it speaks: found out by asking, and kept for the requests that follow. It
//! knows no callers but for what they speak themselves.

use std::sync::Arc;

use super::super::http::{Pipeline, Served};
use super::super::plan::Plan;
use super::super::replay::Replay;
use super::tcp::begins_http2;
use crate::exchange::{Answer, Exchange, Interim, Reason};
use crate::http::{Body, Heard, Version};
use crate::tables::Port;

/// Longest body of a request that is kept until the application has answered for the first time: long enough for all but uploads.
const KEPT: u64 = 64 * 1024;

/// What is asked for, besides the request.
pub(super) struct Asking<'a> {
    pub(super) plan: &'a Plan,
    pub(super) port: &'a Port,
    /// Whether the caller is a member of the mesh.
    pub(super) is_member: bool,
    pub(super) websocket: bool,
    pub(super) interim: &'a Interim,
}

impl Pipeline {
    /// Sends a request to a port of the application, in the version of HTTP that is spoken there.
    pub(super) async fn ask(&self, x: &mut Exchange, asking: &Asking<'_>, body: Body) -> Result<Served, Box<Answer>> {
        let Asking { plan, port, websocket, interim, .. } = *asking;
        let Some((heard, over_http2)) = &port.auto else {
            lead_to(x, port);
            return self.forward(x, plan, body, websocket, interim).await;
        };
        if websocket {
            return self.websocket(x, asking, body, (heard, over_http2)).await;
        }
        if x.request.names_grpc() {
            x.upstream_override = Some(over_http2.clone());
            let served = self.forward(x, plan, body, websocket, interim).await;
            if served.is_ok() && is_answered(x) && heard.answers_grpc() {
                self.count(asking, "grpc");
            }
            return served;
        }
        // A caller in clear speaks what it believes that the application speaks.
        let stays_http2 = !asking.is_member && x.request.version == Version::Http2 && !heard.is_without_http2();
        let version = if stays_http2 { Some(Version::Http2) } else { heard.version() };
        match version {
            Some(Version::Http2) => self.in_http2(x, asking, body, (heard, over_http2)).await,
            Some(Version::Http10 | Version::Http11) => self.in_http1(x, asking, body, heard).await,
            None => self.find_out(x, asking, body, (heard, over_http2)).await,
        }
    }

    /// Over HTTP/2 few let one ask to leave HTTP: only who does not speak HTTP/1 is asked so, whatever else it was heard to speak.
    async fn websocket(
        &self,
        x: &mut Exchange,
        asking: &Asking<'_>,
        body: Body,
        (heard, over_http2): (&Heard, &Arc<str>),
    ) -> Result<Served, Box<Answer>> {
        let Asking { plan, port, interim, .. } = *asking;
        lead_to(x, port);
        match self.forward(x, plan, body, true, interim).await {
            // It has looked at nothing.
            Err(answer) if answer.reason == Reason::UpstreamHttp2 => self.note(asking, heard, Version::Http2),
            // As far as anybody knows it has understood nothing.
            Err(_) if heard.version() == Some(Version::Http2) && is_broken(x) => {}
            Err(answer) if is_broken(x) => {
                if !self.hung_up(asking, heard).await {
                    return Err(answer);
                }
            }
            served => {
                if served.is_ok() && is_answered(x) && heard.version().is_none() {
                    self.note(asking, heard, Version::Http11);
                }
                return served;
            }
        }
        // What has left HTTP has no body, and HTTP/2 has no room for one.
        x.upstream_override = Some(over_http2.clone());
        self.forward(x, plan, Body::Empty, true, interim).await
    }

    async fn in_http2(
        &self,
        x: &mut Exchange,
        asking: &Asking<'_>,
        body: Body,
        (heard, over_http2): (&Heard, &Arc<str>),
    ) -> Result<Served, Box<Answer>> {
        let Asking { plan, port, websocket, interim, .. } = *asking;
        // One that was never heard to speak HTTP/2 has most likely understood nothing.
        let may_repeat = heard.version() != Some(Version::Http2) && x.request.method.is_idempotent() && x.steering.is_none();
        let (body, again) = if may_repeat { Again::of(body) } else { (body, Again::Gone) };
        let led = x.upstream_override.replace(over_http2.clone());
        let answer = match self.forward(x, plan, body, websocket, interim).await {
            Ok(served) => return Ok(served),
            Err(answer) => answer,
        };
        // Another application may have taken its place. What becomes of one request says nothing of that, as a caller may bring it about.
        if !is_broken(x) || begins_http2(port.place.address).await != Some(false) {
            return Err(answer);
        }
        heard.lacks_http2();
        match again.body() {
            Some(body) => {
                x.upstream_override = led;
                self.in_http1(x, asking, body, heard).await
            }
            None => Err(answer),
        }
    }

    async fn in_http1(&self, x: &mut Exchange, asking: &Asking<'_>, body: Body, heard: &Heard) -> Result<Served, Box<Answer>> {
        let Asking { plan, port, websocket, interim, .. } = *asking;
        lead_to(x, port);
        let served = self.forward(x, plan, body, websocket, interim).await;
        match &served {
            Ok(_) if is_answered(x) => heard.stays(),
            Err(answer) if answer.reason == Reason::UpstreamHttp2 => self.note(asking, heard, Version::Http2),
            Err(_) if is_broken(x) => {
                self.hung_up(asking, heard).await;
            }
            Ok(_) | Err(_) => {}
        }
        served
    }

    /// The first request, in HTTP/1: an application that speaks HTTP/2 only says so at once, or hangs up, and has looked at nothing.
    async fn find_out(
        &self,
        x: &mut Exchange,
        asking: &Asking<'_>,
        body: Body,
        (heard, over_http2): (&Heard, &Arc<str>),
    ) -> Result<Served, Box<Answer>> {
        let Asking { plan, port, websocket, interim, .. } = *asking;
        let (body, again) = Again::of(body);
        lead_to(x, port);
        // Filters have rules of their own for what is repeated.
        let is_safe = x.request.method.is_idempotent() && x.steering.is_none();
        let answer = match self.forward(x, plan, body, websocket, interim).await {
            Ok(served) => {
                if is_answered(x) {
                    self.note(asking, heard, Version::Http11);
                }
                return Ok(served);
            }
            Err(answer) => answer,
        };
        let is_unseen = answer.reason == Reason::UpstreamHttp2;
        if is_unseen {
            self.note(asking, heard, Version::Http2);
        } else if !is_broken(x) || !self.hung_up(asking, heard).await {
            return Err(answer);
        }
        match again.body().filter(|_| is_unseen || is_safe) {
            Some(body) => {
                x.upstream_override = Some(over_http2.clone());
                self.forward(x, plan, body, websocket, interim).await
            }
            None => Err(answer),
        }
    }

    /// The application has hung up on a request in HTTP/1 without a word, as some do that speak HTTP/2 only, and others whose handler fails.
    /// Whether it speaks HTTP/2 as far as anybody knows, and has not answered in HTTP/1 before.
    async fn hung_up(&self, asking: &Asking<'_>, heard: &Heard) -> bool {
        let known = heard.version();
        if !heard.hangs_up() {
            return false;
        }
        match begins_http2(asking.port.place.address).await {
            Some(true) => {}
            Some(false) => {
                heard.stays();
                return false;
            }
            None => return false,
        }
        // An answer that has come in the meantime says more.
        if heard.version() == known && heard.is_doubtful() {
            self.note(asking, heard, Version::Http2);
        }
        known.is_none() && heard.version() == Some(Version::Http2)
    }

    fn note(&self, asking: &Asking<'_>, heard: &Heard, version: Version) {
        if heard.speaks(version) {
            self.count(asking, if version == Version::Http2 { "http2" } else { "http1" });
        }
    }

    fn count(&self, asking: &Asking<'_>, protocol: &'static str) {
        // Of callers in clear each connection is counted by its first bytes.
        if asking.is_member {
            self.worker.callees().stats.detected(asking.port.place.port, protocol);
        }
    }
}

/// A body that may be sent again.
enum Again {
    /// It is short and at hand.
    Held(Option<bytes::Bytes>),
    /// It is kept as it goes by.
    Kept(Replay),
    /// It is not to be sent again.
    Gone,
}

impl Again {
    fn of(mut body: Body) -> (Body, Again) {
        let again = match &body {
            Body::Empty => Again::Held(None),
            Body::Full(bytes) => Again::Held(Some(bytes.clone())),
            Body::Stream(_) => Again::Kept(Replay::of(&mut body, KEPT)),
        };
        (body, again)
    }

    /// It from its beginning, where that is there still.
    fn body(self) -> Option<Body> {
        match self {
            Again::Held(bytes) => Some(bytes.map_or(Body::Empty, Body::from)),
            Again::Kept(replay) => {
                let mut body = Body::Empty;
                replay.is_whole().then(|| replay.rewind(&mut body))?;
                Some(body)
            }
            Again::Gone => None,
        }
    }
}

/// Leads to the upstream of a port, where that is not the one of the route.
fn lead_to(x: &mut Exchange, port: &Port) {
    if let Some(upstream) = &port.upstream {
        x.upstream_override = Some(upstream.clone());
    }
}

/// Whether the last try was answered by the application.
fn is_answered(x: &Exchange) -> bool {
    x.attempts.last().is_some_and(|attempt| attempt.status.is_some())
}

/// Whether it failed with its connection, which says more than what became of one request.
fn is_broken(x: &Exchange) -> bool {
    x.attempts.last().is_some_and(|attempt| attempt.broke)
}
