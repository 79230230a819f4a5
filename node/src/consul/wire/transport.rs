//! HTTP/1.1 exchanges with one server: connections that are kept, bodies that are bounded, time that is limited. It knows nothing of Consul's API.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::consul::ConsulError;
use crate::consul::settings::split;
use crate::sockets;

/// Bytes of one answer: ten thousand instances of one service with everything that Consul says of them.
pub(in crate::consul) const MAX_BODY: usize = 32 * 1024 * 1024;
/// Connections that are kept without use.
const IDLE: usize = 8;

/// One server.
pub(in crate::consul) struct Target {
    /// As it was written.
    pub(in crate::consul) address: String,
    host: String,
    port: u16,
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// A whole answer.
pub(in crate::consul) struct Raw {
    pub(in crate::consul) status: u16,
    pub(in crate::consul) headers: HeaderMap,
    pub(in crate::consul) body: Bytes,
}

impl Target {
    /// A server at `address`; `connector` gives TLS with the name to expect, when the address asks for it.
    pub(in crate::consul) fn new(
        address: &str,
        name: Option<&str>,
        connector: impl FnOnce() -> Result<Arc<rustls::ClientConfig>, ConsulError>,
    ) -> Result<Target, ConsulError> {
        let (secure, host, port) = split(address).map_err(|why| ConsulError::Settings(format!("Consul's address: {why}")))?;
        let tls = if secure {
            let name = name.unwrap_or(&host).to_owned();
            let server = ServerName::try_from(name.clone()).map_err(|_| {
                ConsulError::Settings(format!("Consul's address: `{name}` is not a name that a certificate can have"))
            })?;
            Some((TlsConnector::from(connector()?), server))
        } else {
            None
        };
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Ok(Target { address: address.to_owned(), host, port, authority, tls, idle: Mutex::default() })
    }

    /// What goes into `Host`.
    pub(in crate::consul) fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request and takes its whole answer, within `limit`.
    pub(in crate::consul) async fn exchange(
        &self,
        request: &Request<Full<Bytes>>,
        connect: Duration,
        limit: Duration,
    ) -> Result<Raw, ConsulError> {
        let path = request.uri().path();
        let slow = |after| ConsulError::Slow { address: self.address.clone(), path: path.to_owned(), after };
        let kept = self.idle.lock().pop();
        if let Some(kept) = kept {
            // It may have been closed meanwhile, which says nothing of the server.
            match tokio::time::timeout(limit, self.over(kept, request)).await {
                Ok(Err(ConsulError::Unreachable { .. })) => {}
                Ok(answer) => return answer,
                Err(_) => return Err(slow(limit)),
            }
        }
        let fresh = tokio::time::timeout(connect, self.connect()).await.map_err(|_| slow(connect))??;
        tokio::time::timeout(limit, self.over(fresh, request)).await.map_err(|_| slow(limit))?
    }

    async fn over(&self, mut sender: SendRequest<Full<Bytes>>, request: &Request<Full<Bytes>>) -> Result<Raw, ConsulError> {
        sender.ready().await.map_err(|error| self.unreachable(&error))?;
        let answer = sender.send_request(request.clone()).await.map_err(|error| self.unreachable(&error))?;
        let (head, body) = answer.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                let path = request.uri().path().to_owned();
                return Err(ConsulError::TooLarge { address: self.address.clone(), path, limit: MAX_BODY });
            }
            Err(error) => return Err(self.unreachable(&*error)),
        };
        let mut idle = self.idle.lock();
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push(sender);
        }
        Ok(Raw { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ConsulError> {
        let stream = sockets::connect_to(&self.host, self.port).await.map_err(|error| self.unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        match &self.tls {
            None => self.shake(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| self.unreachable(&error))?;
                self.shake(stream).await
            }
        }
    }

    async fn shake<S>(&self, stream: S) -> Result<SendRequest<Full<Bytes>>, ConsulError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.unreachable(&error))?;
        // It ends when the sender is dropped or the server closes; what went wrong the request tells.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> ConsulError {
        let mut why = error.to_string();
        if let Some(source) = error.source() {
            why = format!("{why}: {source}");
        }
        ConsulError::Unreachable { address: self.address.clone(), why }
    }
}
