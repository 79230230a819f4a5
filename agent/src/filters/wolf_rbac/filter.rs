//! The filter of `wolf-rbac`.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use serde_json::{Value, json};
use tokio::time::timeout_at;

use super::super::asking::Complaints;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check, identity};
use super::api;
use super::config::Config;
use super::permission::{self, Permission};
use super::server::{self, Asking, Server};
use super::token::{self, Token};
use crate::exchange::{Answer, ConsumerInfo, Exchange, Reason};
use crate::http::{Fields, ResponseHead};
use crate::outbound::{Call, CallError, Remote, Reply};

/// Most questions about one request: a wolf server that fails (5xx) is asked again.
const TRIES: usize = 3;
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_millis(100);
/// Key of the fields for the client among the values of an exchange.
const INTRODUCTION: &str = "wolf-rbac";

struct WolfRbac {
    inner: Arc<Inner>,
}

/// What outlives the call of a phase, because an answer is waited for.
pub(super) struct Inner {
    pub(super) asking: Asking,
    missing: Answer,
    malformed: Answer,
    unknown: Answer,
    pub(super) complaints: Complaints,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let timeout = Duration::from_millis(config.timeout);
    let asking = Asking { outbound: context.outbound.clone(), verify: config.ssl_verify, timeout };
    let inner = Inner {
        asking,
        missing: api::failure(401, "Missing rbac token in request"),
        malformed: api::failure(401, "invalid rbac token: parse failed"),
        unknown: api::failure(401, "Invalid appid in rbac token"),
        complaints: Complaints::default(),
    };
    Ok(Arc::new(WolfRbac { inner: Arc::new(inner) }))
}

impl Filter for WolfRbac {
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::RESPONSE_HEAD)
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if let Some(endpoint) = api::endpoint(x) {
            return api::serve(&self.inner, endpoint, x);
        }
        let (token, consumer, server) = match self.inner.identify(x) {
            Ok(found) => found,
            Err(refusal) => return refused(refusal),
        };
        let question = permission::query(&token.appid, &x.request.path, x.request.method.as_str(), &x.remote.ip().to_string());
        let inner = self.inner.clone();
        Flow::Wait(Box::pin(async move {
            let permission = inner.ask(&server, &question, &token.wolf).await;
            Box::new(move |x: &mut Exchange| decided(x, consumer, &server, &permission)) as Resume
        }))
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(introduction) = x.slot::<Fields>(INTRODUCTION) {
            head.fields.set_all(introduction);
        }
    }
}

fn decided(x: &mut Exchange, consumer: Arc<ConsumerInfo>, server: &Server, permission: &Permission) -> Flow {
    let introduction = server.introduction(&permission.user).laid_out();
    server.introduce(x, &introduction);
    x.put(INTRODUCTION, introduction);
    if permission.status != 200 {
        return Flow::Answer(Box::new(permission.refusal()));
    }
    identity::attach(x, consumer);
    Flow::Continue
}

fn refused(answer: &Answer) -> Flow {
    Flow::Answer(Box::new(answer.clone()))
}

impl Inner {
    /// The token of a request, the consumer that it is for and that one's server.
    pub(super) fn identify(&self, x: &Exchange) -> Result<(Token, Arc<ConsumerInfo>, Arc<Server>), &Answer> {
        let text = token::find(x).ok_or(&self.missing)?;
        let token = Token::parse(&text).ok_or(&self.malformed)?;
        let (consumer, server) = self.server(x, &token.appid).ok_or(&self.unknown)?;
        Ok((token, consumer, server))
    }

    /// The consumer of an application, and its server.
    pub(super) fn server(&self, x: &Exchange, appid: &str) -> Option<(Arc<ConsumerInfo>, Arc<Server>)> {
        let consumer = x.directory.find_credential("wolf-rbac", appid.as_bytes())?;
        let server = server::of(consumer.proof.as_ref())?;
        Some((consumer, server))
    }

    async fn ask(&self, server: &Server, question: &str, wolf: &str) -> Permission {
        let remote = match server.remote(&self.asking) {
            Ok(remote) => remote,
            Err(error) => return Permission::refused(500, format!("check permission failed! error: {error}")),
        };
        let target = format!("{}?{question}", server.target(remote, "access_check"));
        let mut tries = 0;
        loop {
            tries += 1;
            match self.send(remote, call(target.clone(), wolf)).await {
                Ok(reply) if reply.head.status >= 500 && tries < TRIES => tokio::time::sleep(PAUSE).await,
                Ok(reply) => return Permission::read(&reply),
                Err(error) => {
                    self.complaints.failed("wolf-rbac", remote, &error);
                    return Permission::refused(500, format!("check permission failed! error: {error}"));
                }
            }
        }
    }

    /// Sends a question within the route's time.
    pub(super) async fn send(&self, remote: &Remote, call: Call) -> Result<Reply, CallError> {
        let timeout = self.asking.timeout;
        timeout_at(clock::now() + timeout, remote.send(call)).await.unwrap_or(Err(CallError::Timeout(timeout)))
    }
}

/// A question with the token of wolf.
pub(super) fn call(target: String, wolf: &str) -> Call {
    let mut fields = Fields::new();
    fields.append("content-type", "application/json; charset=utf-8");
    if !wolf.is_empty() {
        fields.append("x-rbac-token", wolf);
    }
    Call { target, fields, ..Call::default() }
}

/// An answer that an endpoint gives.
pub(super) fn success(body: Value) -> Answer {
    Answer::json(200, &json!(body), Reason::Answered)
}
