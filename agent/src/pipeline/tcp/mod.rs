//! The life of a connection whose bytes nobody looks into: an upstream by its share, an endpoint that can be reached, the record of its end. The copying is
//! the listener's.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::{MeshPeer, TcpRoute, TcpShare};

use super::forward::hash_text;
use super::http::Pipeline;
use super::view::View;
use super::worker::Worker;
use crate::balance::hash_key;
use crate::exchange::{Answer, Attempt, Call, ConnectionInfo, Ending, Exchange, Reason, Response, Sent, Tunnel};
use crate::http::{RequestHead, ResponseHead};
use crate::observe::TcpShard;
use crate::tables::Tables;
use crate::upstream::{Dial, EndpointHandle, UpstreamError};

impl Pipeline {
    /// Leads a connection to an endpoint of its route; `None` is a connection that no route fits.
    pub(super) async fn lead(&self, connection: &Rc<ConnectionInfo>, call: Call, route: Option<&Arc<TcpRoute>>) -> Response {
        let view = self.worker.view();
        let counted = view.tables.tcp.get(&connection.listener).map(|stats| stats.own(self.worker.index).clone());
        let x = Exchange::new(connection.clone(), call.head, call.started, call.started_ms, view, self.worker.dice());
        let mut record = Record::begin(x, counted, self.worker.clone());
        let led = match route {
            Some(route) => self.reach(&mut record.x, route).await,
            None => Err(Reason::NoRoute),
        };
        // It may last for days: the tables of its beginning must not.
        record.x.directory =
            Rc::new(View::new(Arc::<Tables>::default(), self.worker.shared().hostname.clone(), self.worker.index));
        match led {
            Ok(io) => {
                let head = ResponseHead::new(200);
                record.x.record(&head);
                Response { head, upgrade: Some(io), ending: Some(record), ..Response::default() }
            }
            Err(reason) => {
                let head = Answer::of(reason).head;
                record.x.record(&head);
                record.x.answer.reason = reason;
                Response { head, reason, ending: Some(record), ..Response::default() }
            }
        }
    }

    async fn reach(&self, x: &mut Exchange, route: &TcpRoute) -> Result<Box<dyn Tunnel>, Reason> {
        let share = pick(&route.upstreams, &mut x.dice).ok_or(Reason::NoUpstream)?;
        let view = self.worker.view();
        let target = self.settled(view.tables.clusters.get(&share.upstream)).await?;
        let config = target.config();
        let key = hash_text(x, config).map(|text| hash_key(text.as_bytes()));
        let mut failed = Vec::new();
        let mut note = |endpoint: &EndpointHandle, error: &UpstreamError, took: Duration| {
            failed.push(attempt(endpoint, Duration::ZERO, Some((error.reason, took))));
        };
        let authority = config.mesh.as_ref().map(authority_within).unwrap_or_default();
        let (timeouts, attempts) = (&config.timeouts, route.connect_attempts);
        let dial = Dial { authority: &authority, timeouts, key, attempts, failed: Some(&mut note) };
        let opened = self.worker.pools.tunnel(&target, dial, &mut x.dice).await;
        x.attempts.extend(failed);
        let opened = opened.map_err(|error| error.reason)?;
        x.attempts.push(attempt(&opened.endpoint, opened.connect, None));
        Ok(opened.io)
    }
}

/// What a sidecar is told that the bytes are for: the service that it has proven to be, and the port of its application that is meant.
fn authority_within(peer: &MeshPeer) -> String {
    let id = peer.identities.first().map(|id| &**id).unwrap_or_default();
    let (namespace, service) = id.split_once("/ns/").and_then(|(_, path)| path.split_once("/svc/")).unwrap_or_default();
    format!("{service}.{namespace}:{}", peer.port.unwrap_or(0))
}

/// An upstream by its share.
fn pick<'s>(shares: &'s [TcpShare], dice: &mut fastrand::Rng) -> Option<&'s TcpShare> {
    let whole: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    if whole == 0 {
        return None;
    }
    let mut at = if shares.len() == 1 { 0 } else { dice.u64(..whole) };
    shares.iter().find(|share| {
        let here = at < u64::from(share.weight);
        at = at.saturating_sub(u64::from(share.weight));
        here
    })
}

fn attempt(endpoint: &EndpointHandle, connect: Duration, failed: Option<(Reason, Duration)>) -> Attempt {
    let (failure, total) = failed.unzip();
    Attempt {
        endpoint: endpoint.name().clone(),
        status: None,
        outcome: None,
        connect,
        header: None,
        total,
        failure,
        broke: false,
    }
}

/// A connection on its way to its end. Dropping it before that means that the client went away.
struct Record {
    x: Exchange,
    counted: Option<Arc<TcpShard>>,
    worker: Rc<Worker>,
    done: bool,
}

impl Record {
    fn begin(x: Exchange, counted: Option<Arc<TcpShard>>, worker: Rc<Worker>) -> Box<Record> {
        if let Some(counted) = &counted {
            counted.connections.inc();
            counted.active.inc();
        }
        Box::new(Record { x, counted, worker, done: false })
    }

    fn conclude(&mut self, sent: Sent) {
        self.done = true;
        let x = &mut self.x;
        x.answer.bytes_sent = sent.sent;
        x.answer.bytes_received = sent.received;
        if x.answer.reason == Reason::None {
            x.answer.reason = sent.reason;
        }
        let duration = clock::now().saturating_duration_since(x.started);
        x.answer.took = duration;
        if let Some(counted) = &self.counted {
            counted.active.dec();
            counted.bytes_in.add(sent.received);
            counted.bytes_out.add(sent.sent);
            counted.retries.add(x.attempts.len().saturating_sub(1) as u64);
            counted.ended(x.answer.reason);
        }
        self.worker.log(&self.x, duration);
    }
}

impl Ending for Record {
    fn ended(mut self: Box<Self>, sent: Sent) -> Option<Box<RequestHead>> {
        self.conclude(sent);
        None
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.done {
            self.x.answer.status = Reason::ClientClosed.status();
            self.conclude(Sent { reason: Reason::ClientClosed, ..Sent::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_by_weight() {
        let share = |upstream: &str, weight| TcpShare { upstream: upstream.into(), weight };
        let shares = [share("a", 3), share("off", 0), share("b", 1)];
        let mut dice = fastrand::Rng::with_seed(7);
        let mut of =
            |wanted: &str| (0..4_000).filter(|_| pick(&shares, &mut dice).is_some_and(|one| &*one.upstream == wanted)).count();
        let (a, off) = (of("a"), of("off"));
        assert!((2_850..3_150).contains(&a) && off == 0, "{a} {off}");
        assert_eq!(pick(&[share("only", 1)], &mut dice).map(|one| &*one.upstream), Some("only"));
        assert!(pick(&[], &mut dice).is_none());
    }
}
