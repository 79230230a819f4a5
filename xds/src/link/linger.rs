//! Calls that are answered before all of them was heard: the rest is listened to for a little while, so that no reset follows the answer at its heels. It knows
//! no service.
//!
//! A server that wants nothing more of a request whose end has not come resets its stream behind the answer (RFC 9113 section 8.1). Clients must not discard
//! the answer for that, but some do: they see the reset when they are about to send, and look at what has come no more.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use hyper::body::{Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::codegen::{Body as Hears, Service};
use tower::Layer;

/// How long the rest of a call is waited for. Whoever sends its call in one go ends it within one round trip.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of it that are heard, and thrown away: more than a request has that is judged by its head.
const MOST: usize = 2 << 20;

/// For a gRPC server: listens to the rest of calls whose message its services did not want.
#[derive(Debug, Clone, Copy, Default)]
pub struct Linger;

impl<S> Layer<S> for Linger {
    type Service = Lingering<S>;

    fn layer(&self, service: S) -> Lingering<S> {
        Lingering(service)
    }
}

/// Services behind [`Linger`].
#[derive(Debug, Clone)]
pub struct Lingering<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Lingering<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        // One that has ended with its head stays as it is.
        self.0.call(request.map(|body| Body::new(Heard::new(body))))
    }
}

/// The body of a request. Dropping it before its end leaves the rest to a task, which holds the stream open.
#[derive(Debug)]
pub struct Heard<B: Hears + Send + Unpin + 'static> {
    /// `None` when there is nothing more to come.
    rest: Option<B>,
}

impl<B: Hears + Send + Unpin + 'static> Heard<B> {
    /// All that there is of this body.
    pub fn new(body: B) -> Heard<B> {
        Heard { rest: Some(body) }
    }
}

impl<B: Hears + Send + Unpin + 'static> Hears for Heard<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Hears + Send + Unpin + 'static> Drop for Heard<B> {
    fn drop(&mut self) {
        // Without a runtime there is no connection any more.
        if let Some(rest) = self.rest.take().filter(|rest| !rest.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // Late or not, the stream is let go.
                let _ = timeout(PATIENCE, forget(rest)).await;
            });
        }
    }
}

/// Hears the rest of a body to its end, or as much of it as one is ready to hear.
async fn forget(mut rest: impl Hears + Unpin) {
    let mut left = MOST;
    while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut rest).poll_frame(context)).await {
        let heard = frame.data_ref().map_or(0, Buf::remaining);
        let Some(more) = left.checked_sub(heard) else { return };
        left = more;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_node::clock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tonic::service::Routes;
    use tonic::transport::Server;

    use super::super::Connection;
    use super::*;

    /// Frames of HTTP/2, and their flags (RFC 9113 section 6).
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    const END_HEADERS: u8 = 4;
    const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// The head of a call, in fields without indexing and without Huffman coding.
    fn head() -> Vec<u8> {
        let fields =
            [(":method", "POST"), (":scheme", "http"), (":path", "/no.Such/Call"), (":authority", "a"), ("te", "trailers")];
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
    }

    /// Who has begun a call that is refused by its head.
    struct Caller(DuplexStream);

    impl Caller {
        async fn begin() -> Caller {
            let (near, far) = tokio::io::duplex(1 << 20);
            let incoming = tokio_stream::iter([Ok::<_, std::io::Error>(Connection::memory(far))]);
            let server = Server::builder().layer(Linger).add_routes(Routes::default());
            tokio::spawn(server.serve_with_incoming(incoming));
            let mut caller = Caller(near);
            caller.0.write_all(START).await.unwrap();
            caller.say(HEADERS, END_HEADERS, 1, &head()).await;
            caller
        }

        async fn say(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
            let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
            let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
            self.0.write_all(&frame).await.unwrap();
        }

        /// The next frame but for settings, which are taken in, and windows: its kind, its flags, and its content unless that is a field block.
        async fn hears(&mut self) -> (u8, u8, Vec<u8>) {
            loop {
                let mut start = [0; 9];
                self.0.read_exact(&mut start).await.unwrap();
                let mut payload = vec![0; usize::from(start[1]) << 8 | usize::from(start[2])];
                self.0.read_exact(&mut payload).await.unwrap();
                match start[3] {
                    HEADERS => return (HEADERS, start[4] & END_STREAM, Vec::new()),
                    RESET | PING => return (start[3], start[4], payload),
                    SETTINGS if start[4] != ACK => self.say(SETTINGS, ACK, 0, &[]).await,
                    _ => {}
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_hears_the_answer_and_no_reset_when_the_call_ends_soon() {
        let mut caller = Caller::begin().await;
        assert_eq!(caller.hears().await, (HEADERS, END_STREAM, Vec::new()));
        // The rest was under way when the answer came.
        caller.say(PING, 0, 0, b"so far..").await;
        assert_eq!(caller.hears().await, (PING, ACK, b"so far..".to_vec()), "the stream is still there");
        caller.say(DATA, 0, 1, &[0; 5]).await;
        caller.say(DATA, END_STREAM, 1, &[0; 5]).await;
        tokio::time::sleep(2 * PATIENCE).await;
        caller.say(PING, 0, 0, b"the end.").await;
        assert_eq!(caller.hears().await, (PING, ACK, b"the end.".to_vec()), "and it has ended by itself");
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_ends_a_refused_call_or_says_too_much_is_reset_behind_the_answer() {
        let no_error = vec![0; 4];
        let (mut silent, start) = (Caller::begin().await, clock::now());
        assert_eq!(silent.hears().await, (HEADERS, END_STREAM, Vec::new()));
        assert_eq!(silent.hears().await, (RESET, 0, no_error.clone()));
        assert!((clock::now() - start).abs_diff(PATIENCE) < PATIENCE / 10, "{:?}", clock::now() - start);

        let (mut talker, start) = (Caller::begin().await, clock::now());
        assert_eq!(talker.hears().await, (HEADERS, END_STREAM, Vec::new()));
        let (mut said, mut heard) = (0, None);
        while heard.is_none() {
            said += 16 * 1024;
            talker.say(DATA, 0, 1, &[0; 16 * 1024]).await;
            talker.say(PING, 0, 0, &[0; 8]).await;
            heard = Some(talker.hears().await).filter(|(kind, ..)| *kind == RESET).map(|(.., code)| code);
        }
        assert_eq!((heard, said > MOST && said < 2 * MOST), (Some(no_error), true), "{said}");
        assert!(clock::now() - start < PATIENCE / 10, "{:?}", clock::now() - start);
    }
}
