//! The messages of `envoy.service.auth.v3.Authorization/Check`, as values of ours. It knows neither requests nor configurations.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use heddle_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use heddle_proto::envoy::config::core::v3::socket_address::{PortSpecifier, Protocol};
use heddle_proto::envoy::config::core::v3::{Address, HeaderValueOption, SocketAddress, address};
use heddle_proto::envoy::service::auth::v3 as auth;
use heddle_proto::envoy::service::auth::v3::attribute_context as attributes;
use prost::Message;

/// The method that is called.
pub(super) const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What is told of a request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Question {
    pub(super) source: Option<Peer>,
    pub(super) destination: Option<Peer>,
    /// Unix milliseconds of its first byte.
    pub(super) started_ms: u64,
    pub(super) id: String,
    pub(super) method: String,
    /// Path with its query.
    pub(super) path: String,
    pub(super) host: String,
    pub(super) scheme: String,
    pub(super) protocol: String,
    /// Length of the body, -1 where it is not known.
    pub(super) size: i64,
    pub(super) headers: BTreeMap<String, String>,
    /// As text, where it shall be told as that.
    pub(super) body: String,
    /// As bytes, where it shall be told as those.
    pub(super) raw_body: Vec<u8>,
    pub(super) context: BTreeMap<String, String>,
    pub(super) server_name: Option<String>,
}

/// An end of the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) principal: String,
    /// PEM, percent-encoded.
    pub(super) certificate: String,
}

/// What was decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed(Allowed),
    Denied(Denied),
    /// Whoever decides could not, and says what a client may be told then.
    Failed(Denied),
}

/// What becomes of a request that may pass.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    /// Fields of the request: they are set, or put behind what is there.
    pub(super) headers: Vec<Edit>,
    pub(super) removed: Vec<String>,
    /// Fields of the answer.
    pub(super) answered: Vec<Edit>,
    pub(super) query: Vec<(String, String)>,
    pub(super) query_removed: Vec<String>,
}

/// What the client gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Denied {
    /// None where it is not said.
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<Edit>,
    pub(super) body: String,
}

/// A field.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
    pub(super) how: How,
}

/// What becomes of a field that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It is replaced.
    Set,
    /// It stays, and this comes beside it.
    Add,
    /// It stays.
    IfAbsent,
    /// It is replaced; where there is none, there is none afterwards.
    IfThere,
}

/// A question as gRPC sends it.
pub(super) fn question(told: Question) -> Bytes {
    let http = attributes::HttpRequest {
        id: told.id,
        method: told.method,
        headers: told.headers,
        path: told.path,
        host: told.host,
        scheme: told.scheme,
        size: told.size,
        protocol: told.protocol,
        body: told.body,
        raw_body: told.raw_body,
        ..Default::default()
    };
    let time = prost_types::Timestamp {
        seconds: i64::try_from(told.started_ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(told.started_ms % 1000 * 1_000_000).unwrap_or(0),
    };
    let context = auth::AttributeContext {
        source: told.source.map(peer),
        destination: told.destination.map(peer),
        request: Some(attributes::Request { time: Some(time), http: Some(http) }),
        context_extensions: told.context,
        tls_session: told.server_name.map(|sni| attributes::TlsSession { sni }),
    };
    let message = auth::CheckRequest { attributes: Some(context) };
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    // Bodies and fields are bounded far below this.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut out);
    out.freeze()
}

fn peer(peer: Peer) -> attributes::Peer {
    let socket = SocketAddress {
        protocol: Protocol::Tcp.into(),
        address: peer.address.ip().to_canonical().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(peer.address.port().into())),
        ..Default::default()
    };
    attributes::Peer {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        principal: peer.principal,
        certificate: peer.certificate,
        ..Default::default()
    }
}

/// What an answer of gRPC says.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decision(body: &[u8]) -> Result<Decision, String> {
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX>() else { return Err("no message".to_owned()) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err("a compressed message".to_owned());
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err("more or less than one message".to_owned());
    }
    let answer = auth::CheckResponse::decode(message).map_err(|error| error.to_string())?;
    let code = answer.status.map_or(0, |status| status.code);
    Ok(match (code, answer.http_response) {
        (0, Some(auth::check_response::HttpResponse::OkResponse(ok))) => Decision::Allowed(allowed(ok)),
        (0, _) => Decision::Allowed(Allowed::default()),
        (_, Some(auth::check_response::HttpResponse::ErrorResponse(error))) => Decision::Failed(denied(error)),
        (_, Some(auth::check_response::HttpResponse::DeniedResponse(said))) => Decision::Denied(denied(said)),
        _ => Decision::Denied(Denied::default()),
    })
}

fn allowed(ok: auth::OkHttpResponse) -> Allowed {
    Allowed {
        headers: ok.headers.into_iter().filter_map(by_append).collect(),
        removed: ok.headers_to_remove,
        answered: ok.response_headers_to_add.into_iter().filter_map(by_action).collect(),
        query: ok.query_parameters_to_set.into_iter().map(|one| (one.key, one.value)).collect(),
        query_removed: ok.query_parameters_to_remove,
    }
}

fn denied(said: auth::DeniedHttpResponse) -> Denied {
    let status = said.status.and_then(|status| u16::try_from(status.code).ok());
    Denied {
        status: status.filter(|status| (200..600).contains(status)),
        headers: said.headers.into_iter().filter_map(by_append).collect(),
        body: said.body,
    }
}

/// Of fields of requests and refusals only `append` counts, which is off where it is not said.
fn by_append(option: HeaderValueOption) -> Option<Edit> {
    let how = if option.append == Some(true) { How::Add } else { How::Set };
    edit(option, how)
}

/// Of fields of answers `append` counts where it is said, else the action.
fn by_action(option: HeaderValueOption) -> Option<Edit> {
    let how = match (option.append, HeaderAppendAction::try_from(option.append_action)) {
        (Some(true), _) | (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => How::Add,
        (None, Ok(HeaderAppendAction::AddIfAbsent)) => How::IfAbsent,
        (None, Ok(HeaderAppendAction::OverwriteIfExists)) => How::IfThere,
        _ => How::Set,
    };
    edit(option, how)
}

fn edit(option: HeaderValueOption, how: How) -> Option<Edit> {
    let header = option.header?;
    let value = if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
    Some(Edit { name: header.key, value, how })
}

#[cfg(test)]
pub(super) mod testing {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use heddle_proto::envoy::config::core::v3::{HeaderValue, QueryParameter};

    /// A message as gRPC sends it.
    pub(in super::super) fn framed(message: &impl Message) -> Bytes {
        let bytes = message.encode_to_vec();
        [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat().into()
    }

    pub(in super::super) fn header(name: &str, value: &str, append: Option<bool>, action: i32) -> HeaderValueOption {
        let header = Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..Default::default() });
        HeaderValueOption { header, append, append_action: action, keep_empty_value: false }
    }

    /// A consent.
    pub(in super::super) fn consent() -> Bytes {
        let query = |key: &str, value: &str| QueryParameter { key: key.to_owned(), value: value.to_owned() };
        let ok = auth::OkHttpResponse {
            headers: vec![
                header("X-User", "ann", None, 0),
                header("x-group", "b", Some(true), 0),
                header("x-new", "n", Some(true), 0),
                header("connection", "x-user", None, 0),
                header("bad name", "x", None, 0),
                header("x-bad", "a\r\nb", None, 0),
            ],
            headers_to_remove: vec!["Cookie".to_owned(), "host".to_owned(), ":path".to_owned()],
            response_headers_to_add: vec![
                header("x-seen", "1", None, 0),
                header("x-both", "2", None, 1),
                header("x-over", "3", None, 3),
                header("x-lost", "4", None, 3),
                header("x-set", "5", Some(false), 0),
            ],
            query_parameters_to_set: vec![query("b", "d e"), query("n", "1")],
            query_parameters_to_remove: vec!["gone".to_owned()],
        };
        answered(0, Some(auth::check_response::HttpResponse::OkResponse(ok)))
    }

    /// A refusal, or that there is no decision.
    pub(in super::super) fn refusal(failed: bool, status: i32) -> Bytes {
        let said = auth::DeniedHttpResponse {
            status: Some(heddle_proto::envoy::r#type::v3::HttpStatus { code: status }),
            headers: vec![header("set-cookie", "a=1", None, 0), header("set-cookie", "b=2", Some(true), 0)],
            body: "no".to_owned(),
        };
        let response = auth::check_response::HttpResponse::DeniedResponse;
        let error = auth::check_response::HttpResponse::ErrorResponse;
        answered(7, Some(if failed { error(said) } else { response(said) }))
    }

    /// An answer with this code.
    pub(in super::super) fn answered(code: i32, http_response: Option<auth::check_response::HttpResponse>) -> Bytes {
        let status = Some(heddle_proto::google::rpc::Status { code, ..Default::default() });
        framed(&auth::CheckResponse { status, http_response })
    }

    /// What was asked, read back.
    pub(in super::super) fn asked(body: &[u8]) -> auth::AttributeContext {
        auth::CheckRequest::decode(&body[PREFIX..]).unwrap().attributes.unwrap()
    }
}
