//! One at a time: who changes capture on a host, or tries it, waits for whoever does so already. It knows nothing of what they do.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A name that only one process of a network namespace can have, and that is free again when it ends, however it ends.
const NAME: &str = "heddle-capture";
/// How long it is waited for. Nobody is kept from his work for longer: any user of the host could take the name.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is tried.
const AGAIN: Duration = Duration::from_millis(20);

/// Our turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _name: Option<UnixDatagram>,
}

impl Turn {
    /// Waits for it.
    pub(super) async fn take() -> Turn {
        let taken = tokio::time::timeout(PATIENCE, async {
            loop {
                let bound = SocketAddr::from_abstract_name(NAME).and_then(|name| UnixDatagram::bind_addr(&name));
                match bound {
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => tokio::time::sleep(AGAIN).await,
                    other => return other.ok(),
                }
            }
        });
        Turn { _name: taken.await.ok().flatten() }
    }
}
