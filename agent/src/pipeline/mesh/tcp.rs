//! Bytes to and from the application that nobody looks into: connecting to it. The copying is the listener's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::{clock, sockets};
use tokio::time::timeout;

use super::super::http::{Pipeline, Served, refuse};
use super::judge::{Judge, WatchedTunnel};
use crate::authorize::Policies;
use crate::exchange::{Answer, Attempt, EndpointName, Exchange, Reason, Tunnel};
use crate::http::{Body, ResponseHead};
use crate::tables::Application;

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
        let address = match application.further(port) {
            Some(further) => further.place.address,
            None if port == application.address.port() => application.address,
            None => x.connection.local,
        };
        let began = clock::now();
        let connected = match far {
            Some(far) => Ok(far),
            None => connect(address).await,
        };
        x.attempts.push(Attempt {
            endpoint: EndpointName::new(address.ip().to_string().into(), address),
            status: None,
            connect: clock::now().saturating_duration_since(began),
            header: None,
            total: None,
            failure: connected.as_ref().err().copied(),
        });
        let far = connected.map_err(refuse)?;
        let judge = Judge::new(&self.worker, (&x.connection, port), None, policies);
        let watched = WatchedTunnel { far, judge };
        Ok(Served {
            head: ResponseHead::new(200),
            body: Body::Empty,
            upgrade: Some(Box::new(watched)),
            reason: Reason::None,
            declared: application.further(port).is_some(),
        })
    }
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
