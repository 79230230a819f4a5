//! After an upgrade: bytes both ways until both sides have ended. It knows nothing of what they mean.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use heddle_node::clock::{self, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::h1::Spare;
use crate::exchange::{Reason, Sent, Tunnel};
use crate::net::Deadline;

/// One direction of a tunnel.
#[derive(Default)]
struct Direction {
    /// What the target has not taken yet. Its room is the worker's while there is nothing.
    held: BytesMut,
    ended: bool,
    closed: bool,
    /// The target takes nothing more.
    deaf: bool,
    moved: u64,
}

/// Moves bytes both ways until both sides have ended. A side that ends its direction is told to the other (half-close); a tunnel in which
/// nothing moves for `idle` is closed, and one that lasts until `end`. Buffers are taken from `spare`, so a tunnel at rest holds none.
pub(super) async fn join(
    mut near: impl Tunnel,
    mut far: impl Tunnel,
    idle: Duration,
    end: Option<Instant>,
    spare: &Spare,
) -> Sent {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut patience = Deadline::none();
    let mut before = 0;
    let reason = poll_fn(|cx| {
        // Both are polled, whatever the other one says, and each failure ends the tunnel.
        let upwards = match up.poll_move(cx, spare, &mut near, &mut far) {
            // It has said all that it had to say, and listens no more: that is still on its way to the client.
            Poll::Ready(Err(Failed::Deaf)) => Poll::Ready(Ok(())),
            upwards => upwards,
        };
        let downwards = down.poll_move(cx, spare, &mut far, &mut near);
        match (upwards, downwards) {
            (Poll::Ready(Err(reason)), _) => return Poll::Ready(reason.of(Reason::ClientClosed, Reason::UpstreamReset)),
            (_, Poll::Ready(Err(reason))) => return Poll::Ready(reason.of(Reason::UpstreamReset, Reason::ClientClosed)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Reason::None),
            _ => {}
        }
        if up.moved + down.moved != before || !patience.is_set() {
            before = up.moved + down.moved;
            let silent = clock::now() + idle;
            patience.set(end.map_or(silent, |end| end.min(silent)));
        }
        // Its age is nobody's fault.
        let old = || end.is_some_and(|end| clock::now() >= end);
        patience.poll_passed(cx).map(|()| if old() { Reason::None } else { Reason::ClientClosed })
    })
    .await;
    Sent { sent: down.moved, received: up.moved, reason }
}

/// Which end failed.
enum Failed {
    Source,
    Target,
    /// The target had ended its own direction, and then all of it.
    Deaf,
    /// Neither: policies do not allow it any more.
    Refused,
}

impl Failed {
    fn of(self, source: Reason, target: Reason) -> Reason {
        match self {
            Failed::Source => source,
            Failed::Target | Failed::Deaf => target,
            Failed::Refused => Reason::Policy,
        }
    }
}

impl Direction {
    /// Moves what it can; ready when the source has ended and the target has been told.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        spare: &Spare,
        source: &mut (impl AsyncRead + Unpin),
        target: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Failed>> {
        if self.deaf {
            return Poll::Ready(Err(Failed::Deaf));
        }
        loop {
            while !self.held.is_empty() {
                let written = match ready!(Pin::new(&mut *target).poll_write(cx, &self.held)) {
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        self.deaf = true;
                        self.held = BytesMut::new();
                        return Poll::Ready(Err(Failed::Deaf));
                    }
                    Err(_) => return Poll::Ready(Err(Failed::Target)),
                };
                if written == 0 {
                    return Poll::Ready(Err(Failed::Target));
                }
                self.held.advance(written);
                self.moved += written as u64;
            }
            if self.ended {
                if !self.closed {
                    ready!(Pin::new(&mut *target).poll_shutdown(cx)).map_err(|_| Failed::Target)?;
                    self.closed = true;
                }
                return Poll::Ready(Ok(()));
            }
            spare.make_room(&mut self.held);
            // This future keeps no state of its own, so that dropping it when pending loses nothing.
            let read = std::pin::pin!(source.read_buf(&mut self.held)).poll(cx);
            let failed =
                |error: io::Error| if error.kind() == io::ErrorKind::PermissionDenied { Failed::Refused } else { Failed::Source };
            match read.map_err(failed)? {
                Poll::Ready(0) => {
                    self.ended = true;
                    spare.take_back(&mut self.held);
                }
                Poll::Ready(_) => {}
                Poll::Pending => {
                    spare.take_back(&mut self.held);
                    ready!(Pin::new(&mut *target).poll_flush(cx)).map_err(|_| Failed::Target)?;
                    return Poll::Pending;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn the_last_words_of_who_listens_no_more_arrive_whole() {
        let (mut client, near) = tokio::io::duplex(4);
        let (far, mut server) = tokio::io::duplex(64);
        server.write_all(b"all of the last words").await.unwrap();
        drop(server);
        client.write_all(b"more").await.unwrap();
        let spare = Spare::default();
        let (sent, said) = tokio::join!(join(near, far, Duration::from_secs(5), None, &spare), async {
            let mut said = Vec::new();
            client.read_to_end(&mut said).await.unwrap();
            said
        });
        assert_eq!(said, b"all of the last words");
        assert_eq!((sent.reason, sent.sent), (Reason::None, 21), "it was no reset");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_when_nothing_moves_and_at_its_age() {
        let spare = Spare::default();
        let (start, seconds) = (clock::now(), Duration::from_secs);
        for (idle, age, lasts, reason) in
            [(5, None, 5, Reason::ClientClosed), (5, Some(9), 5, Reason::ClientClosed), (50, Some(9), 9, Reason::None)]
        {
            let ((_client, near), (far, _server)) = (tokio::io::duplex(4), tokio::io::duplex(4));
            let began = clock::now();
            let sent = join(near, far, seconds(idle), age.map(|age| began + seconds(age)), &spare).await;
            assert_eq!((sent.reason, began.elapsed().as_secs()), (reason, lasts));
        }
        let (mut client, near) = tokio::io::duplex(4);
        let (far, mut server) = tokio::io::duplex(4);
        let end = clock::now() + seconds(20);
        let talk = async {
            let mut byte = [0];
            while client.write_all(b"x").await.is_ok() && server.read_exact(&mut byte).await.is_ok() {
                tokio::time::sleep(seconds(3)).await;
            }
        };
        let (sent, ()) = tokio::join!(join(near, far, seconds(5), Some(end), &spare), talk);
        assert_eq!((sent.reason, sent.received), (Reason::None, 7), "talking makes it no younger");
        assert!(start.elapsed() < seconds(60));
    }

    #[tokio::test]
    async fn a_tunnel_at_rest_holds_no_buffers_and_one_whose_target_is_slow_holds_what_it_must() {
        let spare = Spare::default();
        let (mut client, mut near) = tokio::io::duplex(1024);
        let (mut far, mut server) = tokio::io::duplex(16);
        let mut up = Direction::default();
        let mut turn = |up: &mut Direction| {
            poll_fn(|cx| Poll::Ready(up.poll_move(cx, &spare, &mut near, &mut far).is_pending())).now_or_never().unwrap()
        };
        client.write_all(&[b'x'; 16]).await.unwrap();
        assert!(turn(&mut up));
        assert_eq!((up.moved, up.held.capacity()), (16, 0));
        client.write_all(b"more").await.unwrap();
        assert!(turn(&mut up));
        assert_eq!((up.moved, &up.held[..]), (16, &b"more"[..]));
        let mut got = [0; 20];
        server.read_exact(&mut got[..16]).await.unwrap();
        assert!(turn(&mut up));
        assert_eq!((up.moved, up.held.capacity()), (20, 0));
        server.read_exact(&mut got[16..]).await.unwrap();
        assert_eq!(&got, b"xxxxxxxxxxxxxxxxmore");
    }
}
