//! Endpoints of `wolf-rbac` for clients (login, password, who am I): they pass questions on to the wolf server of an application. They decide nothing.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::{Flow, Resume};
use super::filter::{Inner, call, success};
use super::server::Server;
use super::token::Token;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{Method, Name};
use crate::outbound::Reply;

/// An endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Login,
    ChangePassword,
    UserInfo,
}

/// Longest body that is passed on.
const MAX_BODY: u64 = 64 * 1024;
/// What clients are told when the wolf server does not do what it is asked.
const FAILED: &str = "request to wolf-server failed!";

/// The endpoint that a request is for.
pub(super) fn endpoint(x: &Exchange) -> Option<Endpoint> {
    let name = x.request.path.strip_prefix("/apisix/plugin/wolf-rbac/")?;
    match (name, &x.request.method) {
        ("login", Method::Post) => Some(Endpoint::Login),
        ("change_pwd", Method::Put) => Some(Endpoint::ChangePassword),
        ("user_info", Method::Get) => Some(Endpoint::UserInfo),
        _ => None,
    }
}

/// A failure in the words of APISIX.
pub(super) fn failure(status: u16, message: &str) -> Answer {
    Answer::json(status, &json!({ "message": message }), Reason::Plugin)
}

fn fails(status: u16, message: &str) -> Flow {
    Flow::Answer(Box::new(failure(status, message)))
}

/// Serves an endpoint.
pub(super) fn serve(inner: &Arc<Inner>, endpoint: Endpoint, x: &mut Exchange) -> Flow {
    let inner = inner.clone();
    if endpoint == Endpoint::UserInfo {
        return pass_on(inner, endpoint, x, Map::new());
    }
    Flow::Body {
        limit: MAX_BODY,
        then: Box::new(move |x, body| match arguments(x, &body) {
            Some(arguments) => pass_on(inner, endpoint, x, arguments),
            None => fails(400, "invalid request"),
        }),
    }
}

/// The arguments of a request, from JSON or a form.
fn arguments(x: &Exchange, body: &Bytes) -> Option<Map<String, Value>> {
    let kind = x.request.fields.get_known(Name::ContentType).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with(b"application/json") {
        return serde_json::from_slice(body).ok();
    }
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = std::str::from_utf8(body).ok()?.split('&').filter_map(|pair| pair.split_once('='));
    Some(pairs.map(|(name, value)| (decoded(name), Value::String(decoded(value)))).collect())
}

fn pass_on(inner: Arc<Inner>, endpoint: Endpoint, x: &Exchange, arguments: Map<String, Value>) -> Flow {
    let found = match endpoint {
        Endpoint::Login => {
            let Some(appid) = arguments.get("appid").and_then(Value::as_str) else { return fails(400, "appid is missing") };
            let Some((_, server)) = inner.server(x, appid) else { return fails(400, "appid not found") };
            (Token { appid: appid.to_owned(), wolf: String::new() }, server)
        }
        _ => match inner.identify(x) {
            Ok((token, _, server)) => (token, server),
            Err(refusal) => return Flow::Answer(Box::new(refusal.clone())),
        },
    };
    let (token, server) = found;
    Flow::Wait(Box::pin(async move {
        let answer = ask(&inner, endpoint, &server, &token, arguments).await.unwrap_or_else(|status| failure(status, FAILED));
        Box::new(move |_: &mut Exchange| Flow::Answer(Box::new(answer))) as Resume
    }))
}

/// Asks the wolf server; an error is the status of the failure.
async fn ask(
    inner: &Inner,
    endpoint: Endpoint,
    server: &Server,
    token: &Token,
    arguments: Map<String, Value>,
) -> Result<Answer, u16> {
    let remote = server.remote(&inner.asking).map_err(|_| 500_u16)?;
    let (name, method) = match endpoint {
        Endpoint::Login => ("login.rest", Method::Post),
        Endpoint::ChangePassword => ("change_pwd", Method::Post),
        Endpoint::UserInfo => ("user_info", Method::Get),
    };
    let mut question = call(server.target(remote, name), &token.wolf);
    if method == Method::Post {
        question.body = Bytes::from(Value::Object(arguments).to_string());
    }
    question.method = method;
    let asked = inner.send(remote, question).await;
    let reply = asked.map_err(|error| {
        inner.complaints.failed("wolf-rbac", remote, &error);
        500_u16
    })?;
    let data = data(&reply)?;
    let user = data.get("userInfo").cloned().unwrap_or(Value::Null);
    Ok(match endpoint {
        Endpoint::Login => {
            let wolf = data.get("token").and_then(Value::as_str).ok_or(500_u16)?;
            success(json!({ "rbac_token": Token::text(&token.appid, wolf), "user_info": user }))
        }
        Endpoint::ChangePassword => success(json!({ "message": "success to change password" })),
        Endpoint::UserInfo => success(json!({ "user_info": user })),
    })
}

/// What the wolf server gives. A refusal of wolf (`ok` is false) is told with status 200, as APISIX does.
fn data(reply: &Reply) -> Result<Value, u16> {
    if reply.head.status != 200 {
        return Err(500);
    }
    let mut body: Value = serde_json::from_slice(&reply.body).map_err(|_| 500_u16)?;
    if body.get("ok") != Some(&Value::Bool(true)) {
        return Err(200);
    }
    Ok(body.get_mut("data").map(Value::take).unwrap_or_default())
}
