//! The filter of `grpc-web`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BodyEdit, BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::Config;
use super::decode::{Base64, Limit};
use super::{encode, status};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::grpc::{self, GRPC, is_grpc};
use crate::http::{Body, FieldName, Fields, Method, Name, ResponseHead};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

const GRPC_ACCEPT_ENCODING: FieldName = FieldName::of("grpc-accept-encoding");
const ALLOW_ORIGIN: FieldName = FieldName::of("Access-Control-Allow-Origin");
const ALLOW_METHODS: FieldName = FieldName::of("Access-Control-Allow-Methods");
const ALLOW_HEADERS: FieldName = FieldName::of("Access-Control-Allow-Headers");
const EXPOSE_HEADERS: FieldName = FieldName::of("Access-Control-Expose-Headers");
const VARY: FieldName = FieldName::of("Vary");

struct GrpcWeb {
    /// What pages are told of CORS, where that is ours to say: the fields that they may send.
    allow_headers: Option<String>,
    limit: Option<u64>,
    preflight: Box<Answer>,
    /// To whom neither POST nor a preflight it is.
    method: Box<Answer>,
    content: Box<Answer>,
    path: Box<Answer>,
}

/// What is noted of a call: the request is base64, and so is the answer.
const ASKS_TEXT: u64 = 1;
const TAKES_TEXT: u64 = 2;

pub(super) fn build(value: &Value, _: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut method = Answer::empty(405, Reason::Plugin);
    method.head.fields.append("Allow", "POST, OPTIONS");
    let wrong = |message: &str| Box::new(Answer::json(400, &json!({ "message": message }), Reason::Plugin));
    Ok(Arc::new(GrpcWeb {
        allow_headers: (!config.transparent).then_some(config.cors_allow_headers),
        limit: config.max_req_body_size,
        preflight: Box::new(Answer::empty(204, Reason::Answered)),
        method: Box::new(method),
        content: wrong(
            "expected gRPC-Web: Content-Type application/grpc-web or application/grpc-web-text, +proto or nothing behind it",
        ),
        path: wrong("expected a path that ends with /service/method right behind what the route says"),
    }))
}

impl Filter for GrpcWeb {
    fn phases(&self) -> Phases {
        let phases = Phases::REWRITE.and(Phases::REQUEST_BODY).and(Phases::AFTER_PROXY);
        if self.allow_headers.is_some() { phases.and(Phases::RESPONSE_HEAD) } else { phases }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let strict = self.allow_headers.is_some();
        if strict {
            match x.request.method {
                Method::Post => {}
                Method::Options => return Flow::Answer(self.preflight.clone()),
                _ => return Flow::Answer(self.method.clone()),
            }
        }
        let Some(asks_text) = is_text(&x.request.fields, Name::ContentType) else {
            return if strict { Flow::Answer(self.content.clone()) } else { Flow::Continue };
        };
        if strict {
            let Some(path) = called(x) else { return Flow::Answer(self.path.clone()) };
            if path.len() < x.request.path.len() {
                x.request.path = path.to_owned();
            }
        }
        let told = self.told(&x.request.fields, asks_text);
        x.note(self.address(), [told, 0, 0, 0]);
        let fields = &mut x.request.fields;
        fields.set_known(Name::ContentType, GRPC);
        // Scripts of pages know no compression of messages.
        fields.set_named(&GRPC_ACCEPT_ENCODING, "identity");
        if asks_text {
            fields.remove_known(Name::ContentLength);
        }
        Flow::Continue
    }

    fn request_body(&self, x: &mut Exchange) -> Option<BodyEdit> {
        let asks_text = self.noted(x)? & ASKS_TEXT != 0;
        let mut limit = self.limit.map(Limit::of);
        let mut base64 = asks_text.then(Base64::default);
        if limit.is_none() && base64.is_none() {
            return None;
        }
        Some(BodyEdit::Stream(Box::new(move |piece| {
            if let (Some(limit), Some(piece)) = (&mut limit, &piece) {
                limit.count(piece)?;
            }
            match &mut base64 {
                Some(base64) => base64.decode(piece.as_deref()),
                None => Ok(piece.unwrap_or_default()),
            }
        })))
    }

    fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Flow {
        let Some(noted) = self.noted(x).or_else(|| self.refused(x, head.status)) else { return Flow::Continue };
        let text = noted & TAKES_TEXT != 0;
        let is_grpc = x.answer.reason == Reason::None && head.fields.get_known(Name::ContentType).is_some_and(is_grpc);
        head.fields.set_known(Name::ContentType, if text { TEXT } else { BINARY });
        if is_grpc {
            head.fields.remove_known(Name::ContentLength);
            *body = encode::web(std::mem::take(body), text);
            return Flow::Continue;
        }
        if let Some(beginning) = status::at_hand(body) {
            tell(x, head, &beginning);
            *body = Body::Empty;
            return Flow::Continue;
        }
        let (mut head, body) = (std::mem::take(head), std::mem::take(body));
        Flow::Wait(Box::pin(async move {
            let beginning = status::beginning(body).await;
            Box::new(move |x: &mut Exchange| {
                tell(x, &mut head, &beginning);
                Flow::Answer(Box::new(Answer { head, body: bytes::Bytes::new(), reason: x.answer.reason }))
            }) as Resume
        }))
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let Some(allowed) = &self.allow_headers else { return };
        let fields = &mut head.fields;
        // Whoever looks at origins says it to caches; then it is not for us to let others in.
        let judged = fields.get_named(&ALLOW_ORIGIN).is_some() || fields.get_all_named(&VARY).any(names_origin);
        if !judged {
            fields.set_named(&ALLOW_ORIGIN, "*");
        }
        fields.append_named(&EXPOSE_HEADERS, "grpc-message,grpc-status");
        if x.request.method == Method::Options && !judged {
            fields.set_named(&ALLOW_METHODS, "POST");
            fields.set_named(&ALLOW_HEADERS, allowed);
        }
    }
}

impl GrpcWeb {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// What is to be noted of a call with these fields.
    fn told(&self, fields: &Fields, asks_text: bool) -> u64 {
        let takes_text = is_text(fields, Name::Accept).unwrap_or(self.allow_headers.is_some() && asks_text);
        (u64::from(asks_text) * ASKS_TEXT) | (u64::from(takes_text) * TAKES_TEXT)
    }

    /// The same of a call that was refused before it came here: what guards the route goes first.
    fn refused(&self, x: &Exchange, status: u16) -> Option<u64> {
        let is_refused = x.answer.reason != Reason::None && status >= 400 && x.request.method == Method::Post;
        let asks_text = is_text(&x.request.fields, Name::ContentType).filter(|_| is_refused)?;
        Some(self.told(&x.request.fields, asks_text))
    }

    /// What is noted of the call, where it is one.
    fn noted(&self, x: &Exchange) -> Option<u64> {
        x.notes(self.address()).next().map(|[told, ..]| told)
    }
}

/// Whether a field names one of the media types of gRPC-Web, and that of base64.
fn is_text(fields: &Fields, name: Name) -> Option<bool> {
    let value = fields.get_known(name)?;
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |known: &str| kind.eq_ignore_ascii_case(known.as_bytes());
    match () {
        () if is("application/grpc-web") || is(BINARY) => Some(false),
        () if is("application/grpc-web-text") || is(TEXT) => Some(true),
        () => None,
    }
}

fn names_origin(vary: &[u8]) -> bool {
    vary.split(|byte| *byte == b',').any(|name| name.trim_ascii().eq_ignore_ascii_case(b"origin"))
}

/// What a request calls: the last two segments of its path. All before them is said by the route, or by who has rewritten the path to these two; what a route
/// says of a service is no way to another one.
fn called(x: &Exchange) -> Option<&str> {
    let path = x.request.path.as_str();
    let method = path.rfind('/')?;
    let service = path[..method].rfind('/')?;
    if service + 1 == method || method + 1 == path.len() {
        return None;
    }
    let before = &path[..service];
    let said = if path == x.original.path { x.routed().map_or(Some(0), |route| route.said(path)) } else { Some(0) };
    let fits = said.is_none_or(|said| {
        let names_service = before.rsplit('/').next().is_some_and(|segment| segment.contains('.'));
        before.matches('/').count() <= said && !names_service
    });
    fits.then(|| &path[service..])
}

/// Says in the words of gRPC what is no answer of gRPC.
fn tell(x: &Exchange, head: &mut ResponseHead, message: &[u8]) {
    grpc::tell(head, message);
    if x.answer.reason == Reason::UpstreamTimeout {
        grpc::tell_late(head);
    }
}
