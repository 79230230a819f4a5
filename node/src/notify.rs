//! Tells a service manager how far a process has come (`sd_notify(3)`: a datagram of `KEY=value` lines). It does not know what the process is.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the socket.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells what it is told to whoever listens; nobody, mostly.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    socket: Option<String>,
}

impl Notifier {
    /// For the socket of [`VARIABLE`]: a path, or a name after `@`. Nobody is told anything without one.
    #[must_use]
    pub fn new(socket: Option<String>) -> Notifier {
        Notifier { socket: socket.filter(|name| name.starts_with(['/', '@', '.'])) }
    }

    /// Sends one state, such as `READY=1`. A manager that is not there is no reason to stop: it is logged.
    pub fn say(&self, state: &str) {
        if let Some(name) = &self.socket
            && let Err(error) = send(name, state)
        {
            tracing::warn!(%error, socket = name, state, "the service manager could not be told");
        }
    }
}

fn send(name: &str, state: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the process.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut room = [0; 100];
        let read = socket.recv(&mut room).unwrap();
        String::from_utf8(room[..read].to_vec()).unwrap()
    }

    #[test]
    fn paths_and_abstract_names_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        Notifier::new(Some(path.to_str().unwrap().to_owned())).say("READY=1");
        assert_eq!(heard(&by_path), "READY=1");
        let name = format!("heddle-notify-{}", std::process::id());
        let abstract_one = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(Some(format!("@{name}"))).say("STOPPING=1");
        assert_eq!(heard(&abstract_one), "STOPPING=1");
    }

    #[test]
    fn nobody_is_told_nothing() {
        for socket in [None, Some(String::new()), Some("vsock:2:1".to_owned()), Some("/nowhere/notify".to_owned())] {
            Notifier::new(socket).say("READY=1");
        }
    }
}
