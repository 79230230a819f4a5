//! Bytes to and from the application that nobody looks into: connecting to it. The copying is the listener's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::{clock, sockets};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::http::{Pipeline, Served, refuse};
use super::judge::{Judge, WatchedTunnel};
use crate::authorize::Policies;
use crate::exchange::{Answer, Attempt, EndpointName, Exchange, Reason, Tunnel};
use crate::http::h2::frame::{PREFACE, write_settings};
use crate::http::{Body, Greeting, ResponseHead};
use crate::tables::{Application, Port};

/// How long connecting to the application may take: it is on this machine.
const CONNECT: Duration = Duration::from_secs(5);

impl Pipeline {
    /// Opens a tunnel to this port of the application; `far` is its far end where there is one already.
    pub(super) async fn tunnel_to(
        &self,
        x: &mut Exchange,
        (application, policies): (&Application, &Arc<Policies>),
        port: u16,
        far: Option<Box<dyn Tunnel>>,
    ) -> Result<Served, Box<Answer>> {
        // A captured connection goes where it wanted to go.
        let at = application.ports.at(port);
        let address = at.map_or(x.connection.local, |at| at.place.address);
        let began = clock::now();
        let connected = match far {
            Some(far) => Ok(far),
            None => connect(address).await,
        };
        x.attempts.push(Attempt {
            endpoint: EndpointName::new(address.ip().to_string().into(), address),
            status: None,
            outcome: None,
            connect: clock::now().saturating_duration_since(began),
            header: None,
            total: None,
            failure: connected.as_ref().err().copied(),
            broke: false,
        });
        let far = connected.map_err(refuse)?;
        let judge = Judge::new(&self.worker, (&x.connection, port), None, policies);
        let watched = WatchedTunnel { far, judge };
        Ok(Served {
            head: ResponseHead::new(200),
            body: Body::Empty,
            upgrade: Some(Box::new(watched)),
            reason: Reason::None,
            doubt: at.and_then(Port::heard).cloned(),
        })
    }
}

/// Whether what listens here answers the beginning of HTTP/2 in HTTP/2; `None` is that nobody says. Nothing is asked of it.
pub(super) async fn begins_http2(address: SocketAddr) -> Option<bool> {
    let mut far = connect(address).await.ok()?;
    let asking = async {
        let mut beginning = PREFACE.to_vec();
        write_settings(&mut beginning, &[]);
        // What it has said stands there to be read, also when it has hung up by now.
        let _ = far.write_all(&beginning).await;
        let mut said = BytesMut::new();
        while Greeting::of(&said) == Greeting::Perhaps {
            if far.read_buf(&mut said).await.is_ok_and(|read| read > 0) {
                continue;
            }
            break;
        }
        Greeting::of(&said) == Greeting::Http2
    };
    timeout(CONNECT, asking).await.ok()
}

pub(super) async fn connect(address: SocketAddr) -> Result<Box<dyn Tunnel>, Reason> {
    match timeout(CONNECT, sockets::connect(address)).await {
        Ok(Ok(stream)) => {
            // Small writes must not wait; where that cannot be set the connection works all the same.
            let _ = stream.set_nodelay(true);
            Ok(Box::new(stream))
        }
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "the application cannot be reached");
            Err(Reason::UpstreamConnect)
        }
        Err(_) => Err(Reason::UpstreamTimeout),
    }
}
