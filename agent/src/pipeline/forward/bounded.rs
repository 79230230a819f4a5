//! Exchanges that end after a time however far they have come. It knows no endpoints, and nothing of those that last as long as they like.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::clock::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout_at;

use super::super::http::{Pipeline, Served, refuse};
use super::super::plan::Plan;
use crate::exchange::{Answer, Exchange, Interim, Reason, Tunnel};
use crate::http::{Body, BodyError, BodySource, Frame};
use crate::net::Deadline;

impl Pipeline {
    /// [`Pipeline::forward`] of an exchange that lasts no longer than this from its beginning: its tries end with it, and so does what comes of its answer.
    pub(in crate::pipeline) async fn forward_within(
        &self,
        limit: Duration,
        x: &mut Exchange,
        plan: &Plan,
        (body, upgrade): (Body, bool),
        interim: &Interim,
    ) -> Result<Served, Box<Answer>> {
        let due = x.started + limit;
        let Ok(served) = timeout_at(due, self.forward(x, plan, body, upgrade, interim)).await else {
            return Err(refuse(Reason::UpstreamTimeout));
        };
        served.map(|served| Served {
            body: bounded(served.body, due),
            upgrade: served.upgrade.map(|far| Box::new(BoundedTunnel { far, late: at(due) }) as Box<dyn Tunnel>),
            ..served
        })
    }
}

fn at(due: Instant) -> Deadline {
    let mut late = Deadline::none();
    late.set(due);
    late
}

/// A body that breaks off when it is due. One that is at hand has come in time.
fn bounded(body: Body, due: Instant) -> Body {
    match body {
        Body::Stream(_) => Body::Stream(Box::new(Bounded { body, late: at(due) })),
        whole => whole,
    }
}

struct Bounded {
    body: Body,
    late: Deadline,
}

impl BodySource for Bounded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        // Looked at first: one that never waits would never end.
        if self.late.poll_passed(cx).is_ready() {
            // The endpoint hears of it now, and not when the client has taken what is on its way.
            self.body = Body::Empty;
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        self.body.poll_frame(cx)
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }
}

/// The far side of a tunnel that ends when it is due.
struct BoundedTunnel {
    far: Box<dyn Tunnel>,
    late: Deadline,
}

impl AsyncRead for BoundedTunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.late.is_set() && self.late.poll_passed(cx).is_pending() {
            return Pin::new(&mut self.far).poll_read(cx, into);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for BoundedTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Who takes nothing from the far side may go on talking to it.
        if self.late.poll_passed(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.far).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.late.poll_passed(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.far).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.far).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::rc::Rc;
    use std::sync::Arc;

    use heddle_node::clock;
    use heddle_xds::model::{self, Resource};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    use super::*;
    use crate::exchange::{Call, Response, Sent, Service};
    use crate::outbound::Outbound;
    use crate::pipeline::worker::tests::worker;
    use crate::secrets::References;
    use crate::tables::{Compiler, Tables};

    const SECOND: Duration = Duration::from_secs(1);

    /// One route to an endpoint, which has a second for each exchange where that is wanted.
    fn tables(port: u16, bounded: bool) -> Arc<Tables> {
        let pool = crate::upstream::Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let references = References::new(Arc::new(|_: &str| None), "".into(), Outbound::default());
        let mut compiler = Compiler::new(1, pool, Outbound::default(), references);
        let endpoint = model::Endpoint { host: "127.0.0.1".into(), port, weight: 1, ..model::Endpoint::default() };
        let route = model::Route {
            id: "r".into(),
            name: "".into(),
            service_id: "".into(),
            service_name: "".into(),
            matches: model::RouteMatch { uris: vec!["/*".into()], ..model::RouteMatch::default() },
            priority: 0,
            created: 0,
            plugins: Vec::new(),
            upstream: Some(model::UpstreamRef { name: "u".into() }),
            timeouts: None,
            enable_websocket: true,
            max_duration: bounded.then_some(SECOND),
        };
        let endpoints = model::Endpoints { upstream: "u".into(), endpoints: vec![endpoint].into() };
        for resource in
            [Resource::Upstream(Arc::new(model::Upstream::new("u"))), Resource::Endpoints(endpoints), Resource::Route(route)]
        {
            compiler.set(resource).unwrap();
        }
        compiler.tables()
    }

    /// An endpoint that begins its answer with this, and goes on with a dot each quarter of a second; it tells when it was left.
    async fn dripping(beginning: &'static str) -> (u16, Rc<tokio::sync::Notify>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, left) = (listener.local_addr().unwrap().port(), Rc::<tokio::sync::Notify>::default());
        let tell = left.clone();
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = stream.read(&mut asked).await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            for _ in 0..12 {
                let more: &[u8] = if beginning.is_empty() { b"" } else { b"." };
                tokio::select! {
                    () = tokio::time::sleep(SECOND / 4) => if stream.write_all(more).await.is_err() { break },
                    _ = stream.read(&mut asked) => break,
                }
            }
            tell.notify_one();
        });
        (port, left)
    }

    async fn ask(port: u16, bounded: bool, fields: &[(&'static str, &'static str)]) -> Response {
        let (_publisher, newest) = watch::channel(tables(port, bounded));
        let worker = worker();
        worker.follow(newest);
        let x = crate::exchange::testing::get("a", "/");
        let mut head = x.request;
        fields.iter().for_each(|(name, value)| head.fields.append(*name, *value));
        let (started, wants_upgrade) = (clock::now(), head.fields.get_str("upgrade").is_some());
        let call = Call { head, body: Body::Empty, wants_upgrade, interim: Interim::none(), started, started_ms: 0 };
        Pipeline::new(worker).call(&x.connection, call).await
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    fn end(response: &mut Response, reason: Reason) {
        response.ending.take().unwrap().ended(Sent { reason, ..Sent::default() });
    }

    #[test]
    fn what_has_not_begun_in_time_is_told_late_in_the_words_of_the_client() {
        run(async {
            let told = async |fields: &[(&'static str, &'static str)]| {
                let (port, left) = dripping("").await;
                let mut response = ask(port, true, fields).await;
                end(&mut response, Reason::None);
                left.notified().await;
                let code = response.head.fields.get_str("grpc-status").map(str::to_owned);
                (response.reason, response.head.status, code)
            };
            assert_eq!(told(&[]).await, (Reason::UpstreamTimeout, 504, None));
            let call = told(&[("content-type", "application/grpc")]).await;
            assert_eq!(call, (Reason::UpstreamTimeout, 200, Some("4".to_owned())));
        });
    }

    #[test]
    fn an_answer_that_goes_on_for_longer_is_cut_and_its_endpoint_left() {
        const OPEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n:";
        run(async {
            let (port, left) = dripping(OPEN).await;
            let mut response = ask(port, true, &[]).await;
            let (mut came, began) = (Vec::new(), clock::now());
            let error = loop {
                match response.body.frame().await {
                    Some(Ok(Frame::Data(bytes))) => came.extend_from_slice(&bytes),
                    Some(Err(error)) => break error,
                    other => panic!("{other:?} after {came:?}"),
                }
            };
            assert_eq!((response.head.status, error), (200, BodyError::Timeout));
            assert!(clock::now() - began < 2 * SECOND && came.starts_with(b":..") && came.len() < 8, "{came:?}");
            end(&mut response, Reason::UpstreamTimeout);
            left.notified().await;
            let (port, _left) = dripping(OPEN).await;
            let mut free = ask(port, false, &[]).await;
            end(&mut free, Reason::None);
            assert_eq!(free.body.collect(99).await.unwrap().len(), 13, "nothing bounds the others");
        });
    }

    #[test]
    fn a_tunnel_ends_in_time_too() {
        const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        run(async {
            let (port, left) = dripping(SWITCHED).await;
            let fields = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-key", "aGVkZGxlLWhlZGRsZS1oZQ==")];
            let mut response = ask(port, true, &fields).await;
            assert_eq!(response.head.status, 101);
            let mut far = response.upgrade.take().unwrap();
            let mut came = Vec::new();
            let error = far.read_to_end(&mut came).await.unwrap_err();
            assert!((io::ErrorKind::TimedOut, true) == (error.kind(), came.len() < 8), "{error} after {came:?}");
            drop(far);
            end(&mut response, Reason::None);
            left.notified().await;
        });
    }
}
