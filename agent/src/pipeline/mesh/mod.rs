//! The life of a request that goes through the mesh: to the application beside this node, or from it. It knows no connections.

mod callees;
mod inbound;
mod judge;
mod outbound;
mod tcp;
mod version;

use std::rc::Rc;

use super::finish::Finish;
use super::http::{Pipeline, Served, after_proxy, respond};
use super::plan::Plan;
use crate::exchange::{Call, ConnectionInfo, Destination, Door, Exchange, Interim, Response, Tunnel};
use crate::http::{Body, Method};
use outbound::{Found, Way};

pub use callees::Callees;

/// What a connection asks for besides the request.
struct Asked<'a> {
    wants_upgrade: bool,
    interim: &'a Interim,
    /// The connection to where a tunnel leads, when there is one already.
    far: Option<Box<dyn Tunnel>>,
}

impl Pipeline {
    /// Answers a request of a connection of the mesh.
    pub(super) async fn through_mesh(
        &self,
        connection: &Rc<ConnectionInfo>,
        call: Call,
        far: Option<Box<dyn Tunnel>>,
    ) -> Response {
        let (view, way) = match &connection.door {
            Door::Outbound(destination) => {
                let opaque = call.head.method == Method::Connect && call.head.protocol.is_none();
                // Of a proxy CONNECT asks for what it names; elsewhere it was made up for bytes.
                let authority = if opaque && *destination != Destination::Host { "" } else { &call.head.authority };
                let leaves = connection.peer.ip().is_loopback() && (opaque || self.worker.callees().outside.is_some());
                let Found { view, way } = Box::pin(self.way(destination, authority, leaves)).await;
                (view, Some((destination, way)))
            }
            Door::Inbound { .. } | Door::Gateway | Door::Bytes(_) => (self.worker.view(), None),
        };
        // Where it was going is decided once for a captured connection: whoever finds no service by it now must be able to find somebody outside by its next one.
        let leads_nowhere = matches!(way, Some((Destination::Captured(_), Err(_) | Ok(Way::Outside(_)))));
        let mut x = Exchange::new(connection.clone(), call.head, call.started, call.started_ms, view.clone(), self.worker.dice());
        x.body = call.body;
        let mut finish = Finish::begin(x, Plan::new(view), self.worker.clone());
        if let Some(tracer) = self.worker.tracer() {
            tracer.begin(&mut finish.x);
        }
        let asked = Asked { wants_upgrade: call.wants_upgrade, interim: &call.interim, far };
        let served = match way {
            Some((destination, way)) => self.outbound(&mut finish, asked, destination, way).await,
            None => self.inbound(&mut finish, asked).await,
        };
        let mut served = match served {
            Ok(served) => served,
            Err(answer) => {
                finish.x.body = Body::Empty;
                Served::from(answer)
            }
        };
        if finish.plan.acts_after_proxy() && served.upgrade.is_none() {
            served = after_proxy(&mut finish, served).await;
        }
        let mut response = respond(finish, None, served);
        response.close |= leads_nowhere;
        response
    }
}
