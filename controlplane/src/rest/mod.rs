//! The Admin REST API: APISIX's Admin API v3 over the keeper. It turns requests into intents and outcomes into answers; what a configuration means it does not know.

mod access;
mod configs;
mod envelope;
mod mesh;
mod openapi;
mod resources;
mod rollouts;
mod schemas;
mod serve;
mod show;
mod status;
mod target;
mod value;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{ConnectInfo, Request, State};
use axum::response::Response;
use heddle_node::clock;
use heddle_xds::catalog::Catalog;
use heddle_xds::server::Rollouts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::Value;

use access::{Failures, Given, Source};
pub(crate) use rollouts::{held, kept};
pub use serve::serve;
use target::Target;

use crate::access::Keys;
use crate::seal::Seal;
use crate::settings::Role;
use crate::state::Keeper;
use crate::store::Clock;

/// Largest body of a request, as APISIX.
const LARGEST_BODY: usize = 1_572_864;
/// A body must have arrived within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether a key is demanded.
    pub key_required: bool,
    /// Whether foreign web pages may ask (`Access-Control-Allow-Origin: *`); they still need a key.
    pub cors: bool,
    /// Names of this API, besides addresses and `localhost`, that a browser may use with a cookie.
    pub allowed_hosts: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { key_required: true, cors: false, allowed_hosts: Vec::new() }
    }
}

/// What the API works with.
pub struct Admin {
    /// Where the configuration is read and changed.
    pub keeper: Keeper,
    /// The plugins of the data plane.
    pub catalog: Arc<dyn Catalog>,
    /// Encrypts the secrets that answers to writes repeat.
    pub seal: Arc<Seal>,
    /// Who may ask.
    pub keys: Keys,
    /// What an operator may set.
    pub settings: Settings,
    /// The nodes as `GET /admin/nodes` shows them: an array of objects.
    pub nodes: Arc<dyn Fn() -> Value + Send + Sync>,
    /// How new versions spread over the nodes, and what is held.
    pub rollouts: Rollouts,
    /// The members of the fleet, as they are seen from here.
    pub members: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Services and instances of the mesh, and what was discovered beyond it: `{services: […], instances: […], discovered: […]}`.
    pub mesh: Arc<dyn Fn() -> Value + Send + Sync>,
    /// What other control planes have read otherwise from their providers: `[{provider, control_planes: […], since_ms}]`.
    pub differences: Arc<dyn Fn() -> Value + Send + Sync>,
    /// The metrics page that `GET /admin/metrics` shows.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Unix milliseconds, for `?ttl=`.
    pub clock: Clock,
}

struct Api {
    admin: Admin,
    failures: Mutex<Failures>,
}

/// Who asks.
struct Caller {
    author: Arc<str>,
    role: Role,
}

/// One admitted request.
struct Call<'a> {
    admin: &'a Admin,
    caller: &'a Caller,
    query: Vec<(String, String)>,
    headers: &'a HeaderMap,
}

impl Call<'_> {
    fn arg(&self, name: &str) -> Option<&str> {
        value::list::arg(&self.query, name)
    }
}

/// The API as a service. Serve it with connect info, so that failed keys are counted by source address.
pub fn router(admin: Admin) -> Router {
    Router::new().fallback(handle).with_state(Arc::new(Api { admin, failures: Mutex::new(Failures::default()) }))
}

async fn handle(State(api): State<Arc<Api>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Some(target) = target::parse(parts.uri.path()) else { return envelope::empty(StatusCode::NOT_FOUND) };
    let mut response = match (&parts.method, &target) {
        (&Method::HEAD, Target::Root) => envelope::empty(StatusCode::OK),
        (&Method::OPTIONS, _) if api.admin.settings.cors => envelope::empty(StatusCode::OK),
        _ => match admit(&api, &parts) {
            Ok(caller) => match read_body(&parts, body).await {
                Ok(body) => dispatch(&api.admin, &caller, &parts, target, body).await,
                Err(refusal) => refusal,
            },
            Err(refusal) => *refusal,
        },
    };
    dress(response.headers_mut(), api.admin.settings.cors);
    response
}

/// Headers of every answer.
fn dress(headers: &mut HeaderMap, cors: bool) {
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(HeaderName::from_static("x-api-version"), "v3");
    set(header::SERVER, "heddle");
    set(header::CACHE_CONTROL, "no-store");
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if cors {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        set(header::ACCESS_CONTROL_ALLOW_METHODS, "*");
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, "*, X-API-KEY, Content-Type, If-Match");
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, "*");
        set(header::ACCESS_CONTROL_MAX_AGE, "3600");
    }
}

/// Whether a request may go on, and whose it is. A key decides before anything of the request is acted on.
fn admit(api: &Api, parts: &Parts) -> Result<Caller, Box<Response>> {
    let given = access::given(&parts.uri, &parts.headers);
    let source = given.as_ref().map(|given| given.source);
    let caller = identify(api, parts, given)?;
    let refuse = |status, why: String| Err(Box::new(envelope::error(status, why)));
    if parts.method != Method::GET && caller.role == Role::Viewer {
        return Err(Box::new(envelope::unauthorized("invalid method for role viewer")));
    }
    let foreign_allowed = api.admin.settings.cors && source == Some(Source::Query);
    if !foreign_allowed && let Err(why) = access::origin(&parts.uri, &parts.headers, source, &api.admin.settings.allowed_hosts) {
        return refuse(StatusCode::FORBIDDEN, why);
    }
    if parts.method != Method::GET
        && parts.method != Method::DELETE
        && let Err(why) = access::content_type(&parts.headers, source)
    {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, why);
    }
    Ok(caller)
}

fn identify(api: &Api, parts: &Parts, given: Option<Given>) -> Result<Caller, Box<Response>> {
    if !api.admin.settings.key_required {
        return Ok(Caller { author: "anonymous".into(), role: Role::Admin });
    }
    let now = clock::now();
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
    if let Some(wait) = api.failures.lock().wait(peer, now) {
        let mut response =
            envelope::error(StatusCode::TOO_MANY_REQUESTS, "too many wrong keys from this address; try again later");
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        return Err(Box::new(response));
    }
    let Some(given) = given else { return Err(Box::new(envelope::unauthorized("missing apikey"))) };
    match api.admin.keys.find(&given.key) {
        Some((author, role)) => Ok(Caller { author, role }),
        None => {
            api.failures.lock().failed(peer, now);
            Err(Box::new(envelope::unauthorized("wrong apikey")))
        }
    }
}

/// Reads the body of a write, bounded in size and time.
async fn read_body(parts: &Parts, body: axum::body::Body) -> Result<bytes::Bytes, Response> {
    if !matches!(parts.method, Method::PUT | Method::POST | Method::PATCH) {
        return Ok(bytes::Bytes::new());
    }
    let too_large = || {
        envelope::error(StatusCode::PAYLOAD_TOO_LARGE, format!("request body is larger than {LARGEST_BODY} bytes or broke off"))
    };
    // One that announces too much is not waited for.
    if body.size_hint().lower() > LARGEST_BODY as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, LARGEST_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(envelope::error(StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time")),
    }
}

async fn dispatch(admin: &Admin, caller: &Caller, parts: &Parts, target: Target, body: bytes::Bytes) -> Response {
    let query = value::list::query(parts.uri.query().unwrap_or_default());
    let call = Call { admin, caller, query, headers: &parts.headers };
    let method = &parts.method;
    let get = *method == Method::GET;
    match target {
        Target::Collection(kind, parent) => resources::collection(&call, method, kind, parent, &body).await,
        Target::Item(key) => resources::item(&call, method, key, &body).await,
        Target::Attribute(key, path) => resources::attribute(&call, method, key, &path, &body).await,
        Target::PluginReload if *method == Method::PUT => envelope::text(StatusCode::OK, "text/plain", "done".to_owned()),
        Target::ValidateOne(name) if *method == Method::POST => schemas::validate_one(&name, &body),
        Target::ValidateAll if *method == Method::POST => configs::validate_all(&call, &body),
        Target::Later(why) => envelope::bad(why),
        Target::UnknownKind(name) => envelope::error(StatusCode::NOT_FOUND, format!("Unsupported resource type: {name}")),
        Target::PluginNames | Target::Plugins if get => schemas::plugins(&call, target == Target::Plugins),
        Target::PluginSchema(name) if get => schemas::plugin(&call, &name),
        Target::Schema(name) if get => schemas::schema(&name),
        Target::Status if get => status::status(&call),
        Target::History if get => status::history(&call).await,
        Target::Nodes if get => envelope::json(StatusCode::OK, &(admin.nodes)()),
        Target::Rollouts if get => rollouts::list(&call),
        Target::RolloutResume if *method == Method::POST => rollouts::resume(&call),
        Target::Members if get => envelope::json(StatusCode::OK, &(admin.members)()),
        Target::Mesh("discovered") if get => envelope::json(StatusCode::OK, &(admin.mesh)()["discovered"]),
        Target::Mesh(what) if get => mesh::list(&call, what),
        Target::Metrics if get => envelope::text(StatusCode::OK, "text/plain; version=0.0.4", (admin.metrics)()),
        Target::OpenApi if get => envelope::json(StatusCode::OK, openapi::document()),
        Target::Root => envelope::error(StatusCode::NOT_FOUND, "not found"),
        other => envelope::error(StatusCode::METHOD_NOT_ALLOWED, format!("not supported `{method}` method for {}", noun(&other))),
    }
}

fn noun(target: &Target) -> &'static str {
    match target {
        Target::Plugins | Target::PluginNames | Target::PluginReload | Target::PluginSchema(_) => "plugins",
        Target::Schema(_) | Target::ValidateOne(_) => "schema",
        Target::ValidateAll => "configs",
        Target::Status => "status",
        Target::OpenApi => "openapi",
        Target::History => "history",
        Target::Nodes => "nodes",
        Target::Rollouts | Target::RolloutResume => "rollouts",
        Target::Members => "members",
        Target::Mesh(_) => "mesh",
        Target::Metrics => "metrics",
        _ => "this path",
    }
}

#[cfg(test)]
mod tests;
