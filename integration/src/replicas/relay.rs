//! A way between two processes that can be cut and opened again.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Hands connections on, as long as it is not cut.
pub struct Relay {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    cut: bool,
    open: Vec<TcpStream>,
}

impl Relay {
    /// From an address of its own to this one.
    pub fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, state) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(State::default())));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Whoever cannot be handed on is hung up on.
                let _ = hand_on(stream, target, &shared);
            }
        });
        Relay { address, state }
    }

    /// Ends all connections, and takes none from now on.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.cut = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).cut = false;
    }
}

fn hand_on(stream: TcpStream, target: SocketAddr, shared: &Mutex<State>) -> io::Result<()> {
    let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if state.cut {
        return Ok(());
    }
    let onward = TcpStream::connect(target)?;
    for (from, to) in [(stream.try_clone()?, onward.try_clone()?), (onward.try_clone()?, stream.try_clone()?)] {
        std::thread::spawn(move || {
            let (mut from, mut to) = (from, to);
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    state.open.extend([stream, onward]);
    Ok(())
}
