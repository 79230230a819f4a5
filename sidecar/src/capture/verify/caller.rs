//! Somebody whose traffic is captured: sockets that belong to a user whom the rules do not let pass. It knows nothing of what is done with them.
//!
//! The kernel judges a packet by the user who *made* its socket, and users are a matter of threads: where this process itself is let pass, a thread of its own
//! makes the socket as somebody else and ends. There is no second process to be started, found or buried.

use std::io;
use std::net::SocketAddr;

use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_res_uid;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use super::super::settings::{CaptureSettings, MAX_ENTRIES};

/// The user of those who are nobody, first; otherwise the first that is captured and that this host lets one be.
const NOBODY: u32 = 65_534;

/// Makes sockets that are captured.
#[derive(Debug)]
pub(super) struct Caller {
    /// Whose they are to be; none where they may be our own.
    user: Option<u32>,
    /// The users whose traffic passes; all of them may, where an agent is known by its mark.
    passing: Option<Vec<u32>>,
}

impl Caller {
    /// One whom these settings do not let pass.
    pub(super) fn find(settings: &CaptureSettings) -> Result<Caller, String> {
        let users: Vec<u32> = settings.proxy_uid.into_iter().chain(settings.exclude_uids.iter().copied()).collect();
        let passes = |uid: u32| users.contains(&uid);
        let caller = |user| Caller { user, passing: settings.proxy_mark.is_none().then(|| users.clone()) };
        let own = geteuid().as_raw();
        if !passes(own) {
            return Ok(caller(None));
        }
        let last = u32::try_from(MAX_ENTRIES).unwrap_or(u32::MAX).saturating_add(2);
        let others: Vec<u32> = [NOBODY].into_iter().chain(1..=last).filter(|uid| !passes(*uid)).collect();
        let found = apart(move || {
            let mut last = io::Error::from(io::ErrorKind::PermissionDenied);
            for uid in others {
                match become_user(uid) {
                    Ok(()) => return Ok(uid),
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => last = error,
                    Err(error) => return Err(error),
                }
            }
            Err(last)
        });
        found.map(|uid| caller(Some(uid))).map_err(|error| {
            format!(
                "this process is user {own}, whose traffic passes, and may not send anything as another user ({error}): run it as root with CAP_SETUID, or as a user that is captured"
            )
        })
    }

    /// Whether what this user sends passes, or may.
    pub(super) fn lets_pass(&self, uid: u32) -> bool {
        self.passing.as_ref().is_none_or(|users| users.contains(&uid))
    }

    /// A connection that leaves no trace when it is closed.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(Domain::for_address(to), Type::STREAM, Protocol::TCP)?;
        super::doors::leave_nothing(&socket)?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// A socket for questions to one address.
    pub(super) fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.socket(Domain::for_address(to), Type::DGRAM, Protocol::UDP)?;
        socket.connect(&to.into())?;
        UdpSocket::from_std(socket.into())
    }

    fn socket(&self, domain: Domain, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let make = move || Socket::new(domain, kind, Some(protocol));
        let socket = match self.user {
            None => make()?,
            Some(uid) => apart(move || become_user(uid).and_then(|()| make()))?,
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Does something on a thread that ends with it.
fn apart<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread has failed"))?
}

/// Makes this thread, and no other, somebody else in what it makes; whose it is to others stays, so that they may do nothing to it.
fn become_user(uid: u32) -> io::Result<()> {
    Ok(set_thread_res_uid(None::<Uid>, Uid::from_raw(uid), None::<Uid>)?)
}
