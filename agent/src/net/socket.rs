//! A TCP socket whose reads and writes are nothing but system calls: libc's own, in a program with several threads, make each a point at which a thread
//! could be cancelled, and that costs as much again. It knows no protocol.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

/// What one read brings at most into room that nobody has written to yet.
const SCRATCH: usize = 16 * 1024;
/// A read that brought more is taken for a part of something large.
const LARGE: usize = SCRATCH / 4;

thread_local! {
    /// Room for reads: what is read is copied from here, since only room that has been written to can be given to the system without `unsafe`.
    static ROOM: RefCell<[u8; SCRATCH]> = const { RefCell::new([0; SCRATCH]) };
}

/// A TCP connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Whether much comes at a time: then it is read to its place at once instead of being copied.
    large: bool,
    /// Whom the runtime will wake when there is something to read; see [`Socket::poll_read_with`].
    reader: Option<Waker>,
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        Socket { stream, large: false, reader: None }
    }
}

impl Socket {
    /// The runtime's view of it.
    pub fn get_ref(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads once there is something, at most `wanted` bytes.
    ///
    /// Whoever is to be woken stays so until something comes. A future that waits for several things is polled whenever one of them has come, and need not
    /// take the runtime's lock to say again that it still waits for the others: while the runtime sees nothing here, nobody has been woken for it.
    fn poll_read_with(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        mut work: impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let mut waits = self.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker()));
        loop {
            if !waits {
                // A task that has had its turn is asked to let others work: it is polled again soon, but nobody is noted for what comes here.
                let is_noted = coop::has_budget_remaining();
                if self.stream.poll_read_ready(cx)?.is_pending() {
                    self.reader = is_noted.then(|| cx.waker().clone());
                    return Poll::Pending;
                }
            }
            match attempt(&self.stream, Interest::READABLE, wanted, &mut work) {
                Attempt::NotReady if waits => return Poll::Pending,
                Attempt::Done(result) => {
                    self.reader = None;
                    return Poll::Ready(result);
                }
                Attempt::NotReady | Attempt::Nothing => waits = false,
            }
        }
    }

    /// Writes once the system takes something, at most `wanted` bytes.
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        wanted: usize,
        mut work: impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            if let Attempt::Done(result) = attempt(&self.stream, Interest::WRITABLE, wanted, &mut work) {
                return Poll::Ready(result);
            }
        }
    }

    /// Reads by way of this thread's room.
    fn poll_copy(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        ROOM.with_borrow_mut(|room| {
            let room = &mut room[..SCRATCH.min(buf.remaining())];
            let read = ready!(self.poll_read_with(cx, room.len(), |stream| {
                rustix::net::recv(stream, &mut *room, RecvFlags::empty()).map(|(read, _)| read)
            }))?;
            buf.put_slice(&room[..read]);
            Poll::Ready(Ok(read))
        })
    }
}

/// What came of one try.
enum Attempt {
    /// The runtime knows of nothing to be done; the system has not been asked.
    NotReady,
    /// The system had, or took, nothing.
    Nothing,
    Done(io::Result<usize>),
}

/// Does `work` on up to `wanted` bytes if the socket is ready for it.
///
/// Work that did less than was wanted has met the end of what the system has, or takes, for now: the runtime is told so, as by its own reads and
/// writes, and waits for more before the next try.
fn attempt(
    stream: &TcpStream,
    interest: Interest,
    wanted: usize,
    work: &mut impl FnMut(&TcpStream) -> rustix::io::Result<usize>,
) -> Attempt {
    let (mut did, mut asked) = (0, false);
    let tried = stream.try_io(interest, || {
        asked = true;
        did = work(stream)?;
        if did > 0 && did < wanted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match tried {
        Ok(()) => Attempt::Done(Ok(did)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && did > 0 => Attempt::Done(Ok(did)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && !asked => Attempt::NotReady,
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Attempt::Nothing,
        Err(error) => Attempt::Done(Err(error)),
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if buf.initialized().len() == buf.capacity() {
            let room = buf.initialize_unfilled();
            let read = ready!(self.poll_read_with(cx, room.len(), |stream| {
                rustix::net::recv(stream, &mut *room, RecvFlags::empty()).map(|(read, _)| read)
            }))?;
            buf.advance(read);
        } else if self.large {
            // The runtime's own way of waiting; it may wait for somebody else.
            self.reader = None;
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            self.large = buf.filled().len() - before >= LARGE;
        } else {
            self.large = ready!(self.poll_copy(cx, buf))? >= LARGE;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, bytes.len(), |stream| rustix::net::send(stream, bytes, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        self.poll_write_with(cx, wanted, |stream| rustix::io::writev(stream, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Socket::from(near), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn large_and_small_pieces_arrive_whole_both_ways() {
        let (near, far) = pair().await;
        let (mut read, mut write) = tokio::io::split(near);
        let (mut far_read, mut far_write) = far.into_split();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (there, back) = (sent.clone(), sent.clone());
        let echo = tokio::spawn(async move { tokio::io::copy(&mut far_read, &mut far_write).await.unwrap() });
        let writer = tokio::spawn(async move {
            let slices = [IoSlice::new(&there[..10]), IoSlice::new(&there[10..300])];
            assert_eq!(write.write_vectored(&slices).await.unwrap(), 300);
            write.write_all(&there[300..]).await.unwrap();
            write.shutdown().await.unwrap();
        });
        // Room that nobody has written to, and room that somebody has, in turn.
        let (mut got, mut fresh) = (Vec::new(), [0; 5000]);
        loop {
            let mut piece = BytesMut::with_capacity(40_000);
            let read_now = read.read_buf(&mut piece).await.unwrap() + {
                got.extend_from_slice(&piece);
                let len = read.read(&mut fresh).await.unwrap();
                got.extend_from_slice(&fresh[..len]);
                len
            };
            if read_now == 0 {
                break;
            }
        }
        assert!(got == back);
        writer.await.unwrap();
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_after_its_task_has_had_its_turn_is_woken_all_the_same() {
        let (mut near, mut far) = pair().await;
        let polls = std::cell::Cell::new(0);
        let mut said = [0; 3];
        let reading = std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            while polls.get() == 1 && coop::has_budget_remaining() {
                let _ = pin!(coop::consume_budget()).poll(cx);
            }
            pin!(near.read_exact(&mut said)).poll(cx)
        });
        let writing = async {
            while polls.get() < 2 {
                tokio::task::yield_now().await;
            }
            far.write_all(b"now").await
        };
        let both = async { tokio::join!(reading, writing) };
        let done = tokio::time::timeout(std::time::Duration::from_secs(10), both).await.expect("it is woken");
        assert!(done.0.is_ok() && done.1.is_ok());
        assert_eq!(&said, b"now");
    }

    #[tokio::test]
    async fn a_short_read_waits_for_more_without_asking_the_system_again() {
        let (mut near, mut far) = pair().await;
        far.write_all(b"one").await.unwrap();
        let mut input = BytesMut::with_capacity(64);
        assert_eq!(near.read_buf(&mut input).await.unwrap(), 3);
        assert!(near.get_ref().try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        far.write_all(b"two").await.unwrap();
        assert_eq!(near.read_buf(&mut input).await.unwrap(), 3);
        assert_eq!(&input[..], b"onetwo");
        drop(far);
        assert_eq!(near.read_buf(&mut input).await.unwrap(), 0);
    }

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_asks_again_and_again_is_woken_once_and_so_is_who_takes_his_place() {
        let (mut near, mut far) = pair().await;
        let (first, second) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let look = |near: &mut Socket, who: &Arc<Count>| {
            let mut input = BytesMut::with_capacity(64);
            let waker = Waker::from(who.clone());
            match pin!(near.read_buf(&mut input)).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(read) => Some(read.unwrap()),
                Poll::Pending => None,
            }
        };
        for round in 1..4 {
            for _ in 0..3 {
                assert_eq!(look(&mut near, &first), None);
            }
            assert_eq!(look(&mut near, &second), None);
            assert_eq!(look(&mut near, &first), None);
            far.write_all(b"one").await.unwrap();
            while first.0.load(Ordering::Relaxed) < round {
                tokio::task::yield_now().await;
            }
            assert_eq!(look(&mut near, &first), Some(3));
            assert_eq!(
                (first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed)),
                (round, 0),
                "the last one to ask is woken"
            );
        }
        drop(far);
        assert_eq!(near.read_buf(&mut BytesMut::with_capacity(1)).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn writing_to_one_who_has_gone_is_an_error_and_no_signal() {
        let (mut near, far) = pair().await;
        socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(far);
        let failed = async {
            loop {
                if let Err(error) = near.write_all(&[0; 1000]).await {
                    return error.kind();
                }
            }
        };
        assert!(matches!(failed.await, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset));
    }
}
