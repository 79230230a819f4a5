//! Filters: the code of plugins. One folder per plugin, one shape; `registry` lists them. A filter sees the exchange, never tables or sockets.

mod asking;
mod chain;
mod check;
mod context;
mod credential;
mod fields;
mod identity;
mod ip_strategy;
mod keep;
mod limits;
mod meta;
#[cfg(test)]
mod properties;
mod registry;
mod set_cookie;
#[cfg(test)]
pub(crate) mod testing;

mod acl;
mod api_breaker;
mod attach_consumer_label;
mod authz_casbin;
mod basic_auth;
mod batch_requests;
mod body_transformer;
mod brotli;
mod buffering;
mod client_control;
mod compress;
mod consumer_restriction;
mod cors;
mod csrf;
mod data_mask;
mod degraphql;
mod digest_auth;
mod echo;
mod error_page;
mod ext_authz;
mod failover;
mod fault_injection;
mod forward_auth;
mod grpc_web;
mod gzip;
mod headers;
mod hmac_auth;
mod ip_restriction;
mod jose;
mod jwe_decrypt;
mod jwt_auth;
mod key_auth;
mod ldap_auth;
mod limit_conn;
mod limit_count;
mod limit_req;
mod mocking;
mod multi_auth;
mod opa;
mod openid_connect;
mod pass_client_cert;
mod prometheus;
mod proxy_cache;
mod proxy_mirror;
mod proxy_rewrite;
mod public_api;
mod real_ip;
mod redirect;
mod referer_restriction;
mod request_id;
mod request_validation;
mod response_rewrite;
mod retry;
mod sticky;
mod traffic_split;
mod ua_restriction;
mod uri_blocker;
mod wolf_rbac;
mod workflow;
mod zstd;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use heddle_xds::catalog::{ConfigFault, Descriptor, Place};
use serde_json::Value;

use crate::exchange::{Answer, Exchange, Proof};
use crate::http::{Body, BodyError, ResponseHead};

pub use chain::{BodyEdits, Chain, Parts, keep_content};
pub use context::BuildContext;
pub use credential::{Credential, credentials, masked};
#[cfg(feature = "bench")]
pub use hmac_auth::canonical;
pub use keep::Keep;
pub use limits::Uses;
pub use registry::Registry;

use meta::Meta;

/// The phases that a filter takes part in; a chain is split by them when tables are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phases(u16);

impl Phases {
    /// Before everything: identify, rewrite, answer at once.
    pub const REWRITE: Phases = Phases(1);
    /// Decide: limits, restrictions, choice of the upstream.
    pub const ACCESS: Phases = Phases(2);
    /// Just before each try.
    pub const BEFORE_PROXY: Phases = Phases(4);
    /// The request body.
    pub const REQUEST_BODY: Phases = Phases(8);
    /// The response head, the gateway's own answers included.
    pub const RESPONSE_HEAD: Phases = Phases(16);
    /// The response body.
    pub const RESPONSE_BODY: Phases = Phases(32);
    /// After the last byte.
    pub const LOG: Phases = Phases(64);
    /// The whole answer, the gateway's own included, before its head is edited; may wait, and may replace it.
    pub const AFTER_PROXY: Phases = Phases(128);
    /// The content coding of the response, behind all other changes of its body; the best offer wins.
    pub const ENCODE: Phases = Phases(256);
    /// After the last byte and before `LOG`: what logs must not show is taken out.
    pub const REDACT: Phases = Phases(512);

    /// Each phase by itself, in the order in which they come.
    const ALL: [Phases; 10] = [
        Phases::REWRITE,
        Phases::ACCESS,
        Phases::BEFORE_PROXY,
        Phases::REQUEST_BODY,
        Phases::RESPONSE_HEAD,
        Phases::RESPONSE_BODY,
        Phases::LOG,
        Phases::AFTER_PROXY,
        Phases::ENCODE,
        Phases::REDACT,
    ];

    /// Place of a single phase in [`Phases::ALL`].
    const fn number(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    /// Both.
    pub const fn and(self, other: Phases) -> Phases {
        Phases(self.0 | other.0)
    }

    /// Whether `other` is among them.
    pub const fn has(self, other: Phases) -> bool {
        self.0 & other.0 != 0
    }
}

/// What a filter says after looking at a request.
pub enum Flow {
    /// Go on.
    Continue,
    /// End the request with this answer.
    Answer(Box<Answer>),
    /// Something on the network or the clock must be waited for; then the exchange is looked at again.
    Wait(Pin<Box<dyn Future<Output = Resume>>>),
    /// The whole request body is needed; only in `REWRITE` and `ACCESS`, since it is on its way upstream after them. It stays in the exchange.
    Body {
        /// Most bytes (413 above).
        limit: u64,
        /// Looks at the exchange again, with the body.
        then: WithBody,
    },
}

/// What a filter does once the request body is there.
pub type WithBody = Box<dyn FnOnce(&mut Exchange, Bytes) -> Flow>;

/// How good a content coding is for a response (RFC 9110 section 12.5.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offer {
    /// What the client thinks of it, in thousandths, 1 to 1000.
    pub weight: u16,
    /// What we think of it, among those that the client likes equally.
    pub preference: i32,
}

/// What a filter does after it has waited.
pub type Resume = Box<dyn FnOnce(&mut Exchange) -> Flow>;

/// How a filter changes a body.
pub enum BodyEdit {
    /// Other content altogether.
    Replace(Bytes),
    /// All content at once, at most `limit` bytes (413 or 502 above).
    Buffer {
        /// Most bytes held.
        limit: u64,
        /// Makes the new content.
        edit: Box<dyn FnOnce(Bytes) -> Result<Bytes, BodyError>>,
    },
    /// Piece by piece; called with `None` at the end, when a last piece may be given.
    Stream(Box<dyn FnMut(Option<Bytes>) -> Result<Bytes, BodyError>>),
}

/// A plugin with one configuration, compiled once and shared by all workers.
///
/// Only the methods of the phases that [`Filter::phases`] names are called. None of them blocks: what must wait returns [`Flow::Wait`].
pub trait Filter: Send + Sync {
    /// The phases it takes part in.
    fn phases(&self) -> Phases;
    /// Phase `REWRITE`.
    fn rewrite(&self, _x: &mut Exchange) -> Flow {
        Flow::Continue
    }
    /// Phase `ACCESS`.
    fn access(&self, _x: &mut Exchange) -> Flow {
        Flow::Continue
    }
    /// Phase `BEFORE_PROXY`.
    fn before_proxy(&self, _x: &mut Exchange) -> Flow {
        Flow::Continue
    }
    /// Phase `REQUEST_BODY`; asked once, before the body is read.
    fn request_body(&self, _x: &mut Exchange) -> Option<BodyEdit> {
        None
    }
    /// Phase `AFTER_PROXY`; `x.answer.reason` says whether the gateway answers itself. Not asked of a response that opens a tunnel.
    fn after_proxy(&self, _x: &mut Exchange, _head: &mut ResponseHead, _body: &mut Body) -> Flow {
        Flow::Continue
    }
    /// Phase `RESPONSE_HEAD`.
    fn response_head(&self, _x: &mut Exchange, _head: &mut ResponseHead) {}
    /// Phase `RESPONSE_BODY`; asked once, after all heads. `Content-Length` is removed by the pipeline when an edit is given.
    fn response_body(&self, _x: &mut Exchange, _head: &mut ResponseHead) -> Option<BodyEdit> {
        None
    }
    /// Phase `ENCODE`: how good its content coding is for this response, whose body has this length when that is known.
    fn offer(&self, _x: &mut Exchange, _head: &mut ResponseHead, _length: Option<u64>) -> Option<Offer> {
        None
    }
    /// Phase `ENCODE`: encodes the body; called when its offer was the best.
    fn encode(&self, _x: &mut Exchange, _head: &mut ResponseHead, body: Body) -> Body {
        body
    }
    /// Phase `REDACT`.
    fn redact(&self, _x: &mut Exchange) {}
    /// Phase `LOG`.
    fn log(&self, _x: &Exchange) {}
    /// What it has counted since it is configured, for the metrics page: names of events and sums. They are told by origin, so one that counts asks
    /// [`BuildContext::origin`] for it.
    fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// A plugin: facts, schema, check and compilation. Each folder exports one as `PLUGIN`.
pub struct Plugin {
    /// Facts.
    pub descriptor: Descriptor,
    /// JSON Schema at a place.
    pub schema: fn(Place) -> Option<Value>,
    /// All faults of a configuration (without `_meta`).
    pub check: fn(Place, &Value) -> Result<(), Vec<ConfigFault>>,
    /// Compiles a configuration that has passed `check`.
    pub build: fn(&Value, &BuildContext<'_>) -> Built,
    /// Compiles a consumer's configuration into what its credential is proven against; `None` where the unique value proves everything, and for
    /// plugins that identify nobody.
    pub credential: Option<fn(&Value) -> Proven>,
}

/// What a credential is proven against, or all faults of its configuration.
pub type Proven = Result<Proof, Vec<ConfigFault>>;

/// A compiled filter, or all faults of its configuration.
pub type Built = Result<Arc<dyn Filter>, Vec<ConfigFault>>;
