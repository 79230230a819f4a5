//! From a request to an endpoint's answer: which upstream, which endpoint, and whether to try another one.

mod bounded;

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::{Balancer, HashOn, PassHost, Timeouts, Upstream};
use tokio::time::Instant;

use super::http::{Pipeline, Served};
use super::plan::Plan;
use super::steered::Steered;
use crate::balance::{Tried, hash_key};
use crate::exchange::{Answer, Attempt, Exchange, Interim, Reason, Template, Variable};
use crate::http::{Body, CASE_FIELD, Fields, Method, Name, PORT_FIELD, Version, note_case, restore_case};
use crate::upstream::{
    Edition, EndpointCore, EndpointHandle, OutgoingRequest, Picked, Seen, Sent, Target, UpstreamError, UpstreamResponse,
};

/// What stays the same over all tries of a request.
pub(super) struct Campaign<'a> {
    pub(super) target: &'a Target,
    pub(super) timeouts: Timeouts,
    pub(super) upgrade: bool,
    interim: &'a Interim,
    tries: usize,
    deadline: Option<Instant>,
}

/// Why no endpoint's answer came.
pub(super) enum Unserved {
    /// A filter has answered.
    Answered(Box<Answer>),
    /// No try was successful, and whether an endpoint may have seen the request.
    Failed(Reason, Seen),
}

impl Unserved {
    /// What the client gets.
    pub(super) fn into_answer(self) -> Box<Answer> {
        match self {
            Unserved::Answered(answer) => answer,
            Unserved::Failed(reason, _) => refuse(reason),
        }
    }
}

impl Pipeline {
    /// Sends the request to an endpoint of its upstream; tries again elsewhere when that is safe.
    pub(super) async fn forward(
        &self,
        x: &mut Exchange,
        plan: &Plan,
        mut body: Body,
        upgrade: bool,
        interim: &Interim,
    ) -> Result<Served, Box<Answer>> {
        if x.steering.is_some() {
            return Box::pin(self.steered(x, plan, body, upgrade, interim)).await;
        }
        let target = self.target(x, plan).await.map_err(refuse)?;
        if target.drops(&mut x.dice) {
            return Err(refuse(Reason::DropOverload));
        }
        let campaign = Campaign::new(plan, &target, upgrade, interim);
        self.tries(x, plan, &campaign, &mut body, None).await.map_err(Unserved::into_answer)
    }

    /// Tries endpoints of one upstream. `steered` is there where filters ask for more than the upstream says.
    pub(super) async fn tries(
        &self,
        x: &mut Exchange,
        plan: &Plan,
        campaign: &Campaign<'_>,
        body: &mut Body,
        mut steered: Option<&mut Steered<'_>>,
    ) -> Result<Served, Unserved> {
        let target = campaign.target;
        let key = hash_text(x, target.config()).map(|text| hash_key(text.as_bytes()));
        let (mut tried, mut seen) = (Tried::new(), Seen::Never);
        loop {
            let now = clock::now();
            let picked = match &steered {
                None => target.pick(key, &tried, seen, &mut x.dice, now),
                Some(steered) => steered.pick(target, key, &mut tried, seen, &mut x.dice, now),
            };
            let picked = match picked {
                Ok(picked) => picked,
                Err(error) => {
                    return steered.and_then(Steered::take_kept).ok_or_else(|| Unserved::Failed(last_reason(x, &error), seen));
                }
            };
            if let Some(answer) = plan.before_proxy(x).await {
                return Err(Unserved::Answered(answer));
            }
            tried.push(picked.id());
            let endpoint = picked.endpoint().clone();
            let began = if plan.waits_before_proxy() { clock::now() } else { now };
            let streamed = matches!(body, Body::Stream(_));
            let timeouts = steered.as_ref().map_or(campaign.timeouts, |steered| steered.within(campaign.timeouts));
            match self.attempt(x, campaign, picked, body, (began, timeouts)).await {
                Ok(response) => {
                    let served = answered(x, &endpoint, response);
                    let Some(steered) = &mut steered else { return Ok(served) };
                    if let Some(served) = steered.judge(x, campaign, served) {
                        return Ok(served);
                    }
                    seen = Seen::Perhaps;
                }
                Err(error) => {
                    failed(x, &endpoint, &error, began);
                    if error.sent != Sent::Nothing {
                        seen = Seen::Perhaps;
                    }
                    let replayable = !streamed || error.sent == Sent::Nothing;
                    let again = match &mut steered {
                        None => campaign.may_try_again(x, &error, replayable, tried.len()),
                        Some(steered) => steered.may_try_again(x, campaign, &error, replayable, tried.len()),
                    };
                    if !again {
                        return Err(Unserved::Failed(steered.map_or(error.reason, |steered| steered.reason(&error)), seen));
                    }
                }
            }
            if let Some(steered) = &mut steered {
                steered.rest(x, body).await.map_err(|reason| Unserved::Failed(reason, seen))?;
            }
        }
    }

    /// The upstream that a filter or the route names, once its names have been looked up.
    pub(super) async fn target(&self, x: &Exchange, plan: &Plan) -> Result<Target, Reason> {
        let edition = match &x.upstream_override {
            Some(named) => plan.view().tables.clusters.get(named),
            None => plan.route().and_then(|seen| seen.cluster.as_ref()),
        };
        self.settled(edition).await
    }

    /// An upstream as this worker sees it in the tables of the request, once its names have been looked up.
    pub(super) async fn settled(&self, edition: Option<&Arc<Edition>>) -> Result<Target, Reason> {
        let edition = edition.ok_or(Reason::NoUpstream)?;
        let mut target = self.worker.pools.target(edition);
        if target.view().endpoints.is_empty() && target.view().pending > 0 {
            target.settle(edition).await;
        }
        Ok(target)
    }

    async fn attempt(
        &self,
        x: &mut Exchange,
        campaign: &Campaign<'_>,
        picked: Picked,
        body: &mut Body,
        (began, timeouts): (Instant, Timeouts),
    ) -> Result<UpstreamResponse, UpstreamError> {
        let host = campaign.host(x, picked.endpoint());
        let tunnel_over_h2 = campaign.upgrade && x.request.version == Version::Http2;
        if tunnel_over_h2 {
            // RFC 8441 section 5: the method of the HTTP/1 handshake is GET, and it needs a key, whose echo only we could check.
            x.request.method = Method::Get;
            x.request.fields.set("upgrade", "websocket");
            x.request.fields.set("sec-websocket-key", "aGVkZGxlLWhlZGRsZS1oZQ==");
        }
        // In the mesh it is the other side that says who calls, and whoever says it himself stands in the audit. Another try may go to somebody outside.
        let told = if campaign.target.config().is_in_mesh() { set_aside(&mut x.request.fields) } else { Vec::new() };
        let sent = if campaign.target.config().mesh.is_some() {
            self.send_in_mesh(x, campaign, picked, body, (began, timeouts)).await
        } else {
            let request = OutgoingRequest {
                head: &x.request,
                host: host.as_deref().unwrap_or(&x.request.authority),
                upgrade: campaign.upgrade,
                timeouts,
            };
            self.worker.pools.send(picked, &request, body, campaign.interim, began).await
        };
        told.iter().for_each(|value| x.request.fields.append_known(Name::XForwardedClientCert, value));
        sent
    }

    /// To a peer of the mesh, with the case of the fields as the client spelled them, which HTTP/2 does not carry.
    async fn send_in_mesh(
        &self,
        x: &mut Exchange,
        campaign: &Campaign<'_>,
        picked: Picked,
        body: &mut Body,
        (began, timeouts): (Instant, Timeouts),
    ) -> Result<UpstreamResponse, UpstreamError> {
        if x.request.version == Version::Http2 {
            x.request.fields.remove(CASE_FIELD);
        } else {
            note_case(&mut x.request.fields);
        }
        // Nobody says it but us: who is outside would choose a port that is not meant for it.
        x.request.fields.remove(PORT_FIELD);
        if let Some(port) = campaign.target.config().mesh.as_ref().and_then(|peer| peer.port) {
            x.request.fields.append(PORT_FIELD, port.to_string());
        }
        let host = campaign.host(x, picked.endpoint());
        let request = OutgoingRequest {
            head: &x.request,
            host: host.as_deref().unwrap_or(&x.request.authority),
            upgrade: campaign.upgrade,
            timeouts,
        };
        let sent = self.worker.pools.send(picked, &request, body, campaign.interim, began).await;
        // Another try may go to somebody who would not take it off.
        x.request.fields.remove(CASE_FIELD);
        x.request.fields.remove(PORT_FIELD);
        sent.map(|mut response| {
            restore_case(&mut response.head.fields);
            response
        })
    }
}

/// Takes off what plugins, or proxies of ours, tell of the client's certificate.
fn set_aside(fields: &mut Fields) -> Vec<Vec<u8>> {
    if !fields.contains_known(Name::XForwardedClientCert) {
        return Vec::new();
    }
    let told = fields.get_all_known(Name::XForwardedClientCert).map(<[u8]>::to_vec).collect();
    fields.remove_known(Name::XForwardedClientCert);
    told
}

/// The client is told what went wrong with the last endpoint rather than that no other was left.
fn last_reason(x: &Exchange, error: &UpstreamError) -> Reason {
    let last = x.attempts.last().and_then(|attempt| attempt.failure);
    last.unwrap_or(error.reason)
}

fn answered(x: &mut Exchange, endpoint: &EndpointHandle, response: UpstreamResponse) -> Served {
    x.attempts.push(Attempt {
        endpoint: endpoint.name().clone(),
        status: Some(response.head.status),
        outcome: Some(response.head.outcome()),
        connect: response.connect,
        header: Some(response.header),
        total: None,
        failure: None,
        broke: false,
    });
    Served { head: response.head, body: response.body, upgrade: response.upgraded, reason: Reason::None, doubt: None }
}

fn failed(x: &mut Exchange, endpoint: &EndpointHandle, error: &UpstreamError, began: Instant) {
    tracing::debug!(endpoint = %endpoint.address, error = %error, "a try has failed");
    x.attempts.push(Attempt {
        endpoint: endpoint.name().clone(),
        status: None,
        outcome: None,
        connect: Duration::ZERO,
        header: None,
        total: Some(clock::now().saturating_duration_since(began)),
        failure: Some(error.reason),
        broke: error.broke,
    });
}

impl<'a> Campaign<'a> {
    pub(super) fn new(plan: &Plan, target: &'a Target, upgrade: bool, interim: &'a Interim) -> Campaign<'a> {
        let config = target.config();
        let others = target.view().endpoints.len().saturating_sub(1);
        Campaign {
            timeouts: plan.timeouts().unwrap_or(config.timeouts),
            upgrade,
            interim,
            tries: config.retries.map_or(others, |retries| retries as usize) + 1,
            deadline: (!config.retry_timeout.is_zero()).then(|| clock::now() + config.retry_timeout),
            target,
        }
    }

    /// What the endpoint sees as host; `None` is what the client named.
    fn host(&self, x: &Exchange, endpoint: &EndpointCore) -> Option<String> {
        if x.host_override.is_some() {
            return x.host_override.clone();
        }
        let config = self.target.config();
        match &config.pass_host {
            PassHost::Pass => None,
            PassHost::Rewrite(host) => Some(host.to_string()),
            PassHost::Node => {
                let port = endpoint.address.port();
                let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.to_string() };
                Some(if port == config.scheme.default_port() { host } else { format!("{host}:{port}") })
            }
        }
    }

    pub(super) fn may_try_again(&self, x: &Exchange, error: &UpstreamError, replayable: bool, tries: usize) -> bool {
        let in_time = self.deadline.is_none_or(|deadline| clock::now() < deadline);
        // In the mesh a request that a peer may have seen is repeated only when the connection was lost under it, and never for being slow or answered badly.
        let fits = !self.target.config().is_in_mesh() || error.reason == Reason::UpstreamReset;
        // Who may have seen that one asks to leave HTTP may have left it, whatever the method.
        let idempotent = fits && !self.upgrade && x.request.method.is_idempotent();
        tries < self.tries && in_time && error.may_retry(idempotent, replayable)
    }
}

fn refuse(reason: Reason) -> Box<Answer> {
    Box::new(Answer::of(reason))
}

/// The text that consistent hashing is keyed by; the client address where it is missing.
pub(super) fn hash_text(x: &Exchange, config: &Upstream) -> Option<String> {
    let Balancer::ConsistentHash(on, _) = &config.balancer else { return None };
    let text = match on {
        HashOn::Header(name) => x.request.fields.get_str(name).map(str::to_owned),
        HashOn::Cookie(name) => x.request.cookie(name).map(str::to_owned),
        HashOn::Consumer => x.consumer.as_ref().map(|consumer| consumer.username.to_string()),
        HashOn::Var(name) => Variable::new(name).get(x).map(|value| value.into_owned()),
        HashOn::VarsCombination(template) => Some(Template::new(template).render(x)),
    };
    Some(text.filter(|text| !text.is_empty()).unwrap_or_else(|| x.remote.ip().to_string()))
}
