//! How the wrapper and its agent talk: the agent says by the socket of service managers that it is ready and where its endpoint is; there it is asked to
//! take nothing new in.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_node::token::{self, Token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};

use super::run::WrapperError;

/// The socket, in the agent's own folder.
const SOCKET: &str = "ready.sock";
/// What the agent says besides `READY=1`: where its endpoint really listens.
pub const ADMIN: &str = "X_HEDDLE_ADMIN=";
/// Largest state that is read.
const MAX_STATE: usize = 4096;
/// Longest answer of the endpoint that is read.
const MAX_ANSWER: u64 = 4096;
/// How long a drain may be waited for at the endpoint; whoever asked gives up long before.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Hears when an agent is ready.
pub(super) struct Readiness {
    socket: UnixDatagram,
    path: PathBuf,
    name: String,
}

impl Readiness {
    /// Listens in `folder`, which is made when it is not there.
    pub(super) fn bind(folder: &Path) -> Result<Readiness, WrapperError> {
        let path = folder.join(SOCKET);
        let failed = |source| WrapperError::Socket { path: path.display().to_string(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let path = folder.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        let name = path.to_str().map(str::to_owned).ok_or_else(|| failed(io::Error::other("its path is no UTF-8")))?;
        Ok(Readiness { socket, path, name })
    }

    /// What the agent is to have as `NOTIFY_SOCKET`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until an agent is ready; with where its endpoint is, when it says so.
    pub(super) async fn next(&mut self) -> Option<SocketAddr> {
        let mut room = [0; MAX_STATE];
        loop {
            let Ok(read) = self.socket.recv(&mut room).await else { return std::future::pending().await };
            if let Some(admin) = ready(&String::from_utf8_lossy(&room[..read])) {
                return admin;
            }
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        // Somebody may have tidied up already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Whether a state says that the agent is ready, and where its endpoint is.
fn ready(state: &str) -> Option<Option<SocketAddr>> {
    let admin = state.lines().find_map(|line| line.strip_prefix(ADMIN)?.parse().ok());
    state.lines().any(|line| line == "READY=1").then_some(admin)
}

/// Asks an agent to take nothing new in, by the token of its folder; ends when nothing comes in any more, or it cannot be asked.
pub(super) async fn drain_inbound(admin: SocketAddr, folder: PathBuf) {
    // An agent of before asks for none.
    let token = Token::read(&folder).ok();
    match tokio::time::timeout(PATIENCE, post(admin, "/drain?inbound", token.as_ref())).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200 ") => tracing::info!("nothing comes in any more"),
        Ok(Ok(answer)) => {
            tracing::warn!(answer = answer.lines().next().unwrap_or_default(), "the agent does not close what comes in")
        }
        Ok(Err(error)) => tracing::warn!(%error, %admin, "the agent cannot be asked to close what comes in"),
        Err(_) => {}
    }
}

async fn post(admin: SocketAddr, path: &str, token: Option<&Token>) -> io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let token = token.map(|token| format!("{}: {}\r\n", token::FIELD, token.text())).unwrap_or_default();
    let request = format!("POST {path} HTTP/1.1\r\nHost: {admin}\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_understood() {
        assert_eq!(ready("READY=1"), Some(None));
        assert_eq!(
            ready("STATUS=x\nREADY=1\nX_HEDDLE_ADMIN=127.0.0.1:15000\n"),
            Some(Some(SocketAddr::from(([127, 0, 0, 1], 15_000))))
        );
        assert_eq!(ready("READY=1\nX_HEDDLE_ADMIN=somewhere"), Some(None));
        for other in ["READY=0", "STOPPING=1", "X_HEDDLE_ADMIN=127.0.0.1:15000", ""] {
            assert_eq!(ready(other), None, "{other}");
        }
    }
}
