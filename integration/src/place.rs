//! A loopback address for each test, so that tests run in parallel with the ports that users know.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

static NEXT: AtomicU16 = AtomicU16::new(20_000);

/// A folder of its own and a loopback address of its own (127.64.0.0/10, from the process id, which no other living process has).
pub struct Place {
    pub folder: TempDir,
    pub ip: IpAddr,
}

impl Place {
    pub fn new() -> Place {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, 64 | (high & 0x3f), middle, low));
        Place { folder: tempfile::tempdir().expect("a temporary folder"), ip }
    }

    /// An address that nothing else of this process uses.
    pub fn address(&self) -> SocketAddr {
        loop {
            let port = NEXT.fetch_add(1, Ordering::Relaxed);
            let address = SocketAddr::new(self.ip, port);
            if std::net::TcpListener::bind(address).is_ok() {
                return address;
            }
        }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the folder.
    pub fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Default for Place {
    fn default() -> Self {
        Place::new()
    }
}
