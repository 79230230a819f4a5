//! The filters that run for one request: those of global rules before those of the route, and of the consumer once it is known.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use heddle_xds::model::Timeouts;

use super::view::{Seen, View};
use crate::exchange::{Answer, Exchange};
use crate::filters::{BodyEdits, Chain, Phases, keep_content};
use crate::http::{Body, Fields, Name, ResponseHead};

/// The filters of one request, with the view that keeps them alive.
pub struct Plan {
    view: Rc<View>,
    /// Its number.
    route: Option<u32>,
    merged: Option<Arc<Chain>>,
}

impl Plan {
    /// The filters for a request on this view; those of a route come with [`Plan::take_route`].
    pub fn new(view: Rc<View>) -> Plan {
        Plan { view, route: None, merged: None }
    }

    /// The view that the request runs on.
    pub fn view(&self) -> &Rc<View> {
        &self.view
    }

    /// Takes the filters of the route of this number, which has matched.
    pub fn take_route(&mut self, number: u32) {
        self.route = Some(number);
    }

    /// Whether the route lets WebSocket upgrades pass. Not asked for every request: it lies where the route has its cold parts.
    pub fn lets_websocket_pass(&self) -> bool {
        self.route().is_some_and(|seen| seen.route.target.enable_websocket)
    }

    /// The route that has matched.
    pub fn route(&self) -> Option<&Seen> {
        self.view.seen(self.route?)
    }

    /// Timeouts that the route sets over its upstream's.
    pub fn timeouts(&self) -> Option<Timeouts> {
        self.route()?.timeouts()
    }

    /// How long the whole exchange may take, where the route bounds it.
    pub fn max_duration(&self) -> Option<Duration> {
        self.route()?.max_duration()
    }

    /// The chains in the order in which they run.
    fn chains(&self) -> [&Chain; 2] {
        let [global, own] = self.view.chains(self.route());
        [global, self.merged.as_deref().unwrap_or(own)]
    }

    /// Those of them that have something to do in a phase whose filters may wait: a future that does nothing costs more than looking.
    fn acting(&self, phase: Phases) -> impl Iterator<Item = &Chain> {
        self.chains().into_iter().filter(move |chain| chain.acts_in(phase))
    }

    /// Phase `REWRITE`: global rules, the route, then what the consumer brings.
    pub async fn rewrite(&mut self, x: &mut Exchange) -> Option<Box<Answer>> {
        for chain in self.acting(Phases::REWRITE) {
            if let Some(answer) = chain.rewrite(x).await {
                return Some(answer);
            }
        }
        let chain = self.view.merged(&self.route()?.route, x.consumer.as_ref()?)?;
        let answer = chain.rewrite_added(x).await;
        self.merged = Some(chain);
        answer
    }

    /// Phase `ACCESS`.
    pub async fn access(&self, x: &mut Exchange) -> Option<Box<Answer>> {
        for chain in self.acting(Phases::ACCESS) {
            if let Some(answer) = chain.access(x).await {
                return Some(answer);
            }
        }
        // What later phases ask of the body by variables must be kept before it goes upstream.
        if self.chains().into_iter().any(Chain::wants_content) { keep_content(x).await.err() } else { None }
    }

    /// Whether some filter acts between the choice of an endpoint and the try.
    pub fn waits_before_proxy(&self) -> bool {
        self.acting(Phases::BEFORE_PROXY).next().is_some()
    }

    /// Phase `BEFORE_PROXY`, before each try.
    pub async fn before_proxy(&self, x: &mut Exchange) -> Option<Box<Answer>> {
        for chain in self.acting(Phases::BEFORE_PROXY) {
            if let Some(answer) = chain.before_proxy(x).await {
                return Some(answer);
            }
        }
        None
    }

    /// Phase `REQUEST_BODY`.
    pub fn request_body(&self, x: &mut Exchange) -> BodyEdits {
        let mut edits = BodyEdits::new();
        self.chains().into_iter().for_each(|chain| chain.request_body(x, &mut edits));
        edits
    }

    /// Whether some filter looks at whole answers.
    pub fn acts_after_proxy(&self) -> bool {
        self.acting(Phases::AFTER_PROXY).next().is_some()
    }

    /// Phase `AFTER_PROXY`; an answer replaces what was served.
    pub async fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Option<Box<Answer>> {
        for chain in self.acting(Phases::AFTER_PROXY) {
            if let Some(answer) = chain.after_proxy(x, head, body).await {
                return Some(answer);
            }
        }
        None
    }

    /// Phase `RESPONSE_HEAD`.
    pub fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        self.chains().into_iter().for_each(|chain| chain.response_head(x, head));
    }

    /// Phase `RESPONSE_BODY`.
    pub fn response_body(&self, x: &mut Exchange, head: &mut ResponseHead) -> BodyEdits {
        let mut edits = BodyEdits::new();
        self.chains().into_iter().for_each(|chain| chain.response_body(x, head, &mut edits));
        edits
    }

    /// Phase `ENCODE`: the body in the content coding that suits best, if any is offered. Where two are as good, the route's goes before that of a
    /// global rule.
    pub fn encode(&self, x: &mut Exchange, head: &mut ResponseHead, body: Body) -> Body {
        let mut best = None;
        let length = body.remaining().or_else(|| content_length(&head.fields));
        self.acting(Phases::ENCODE).for_each(|chain| chain.offers(x, head, length, &mut best));
        match best {
            Some((_, filter)) => filter.encode(x, head, body),
            None => body,
        }
    }

    /// Whether some filter may encode the response.
    pub fn encodes(&self) -> bool {
        self.acting(Phases::ENCODE).next().is_some()
    }

    /// Phase `REDACT`.
    pub fn redact(&self, x: &mut Exchange) {
        self.chains().into_iter().for_each(|chain| chain.redact(x));
    }

    /// Phase `LOG`.
    pub fn log(&self, x: &Exchange) {
        self.chains().into_iter().for_each(|chain| chain.log(x));
    }
}

/// The length that a head tells.
fn content_length(fields: &Fields) -> Option<u64> {
    std::str::from_utf8(fields.get_known(Name::ContentLength)?).ok()?.parse().ok()
}
