//! Drives the API in process over a real keeper and a store in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod any;
mod meta;
mod resources;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use heddle_node::config::Secret;
use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place, PluginKind};
use heddle_xds::server::Rollouts;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Admin, Settings, router};
use crate::access::Keys;
use crate::seal::Seal;
use crate::settings::{AdminKey, Role};
use crate::state::Keeper;
use crate::store::{Memory, Store};
use crate::validate::Rules;

const ADMIN: &str = "admin-key";
const VIEWER: &str = "viewer-key";

/// `key-auth` (consumer: `key`, secret) and `cors` (`max_age` is a number).
struct Plugins([Descriptor; 2]);

impl Plugins {
    fn new() -> Plugins {
        let one = |name, priority, kind, unique, secret| Descriptor {
            name,
            priority,
            version: "0.1",
            kind,
            unique_consumer_field: unique,
            encrypt_fields: secret,
            prefer_route: false,
        };
        Plugins([one("cors", 4000, PluginKind::Plain, None, &[]), one("key-auth", 2500, PluginKind::Auth, Some("key"), &["key"])])
    }
}

impl Catalog for Plugins {
    fn descriptors(&self) -> &[Descriptor] {
        &self.0
    }

    fn schema(&self, name: &str, place: Place) -> Option<Value> {
        match (name, place) {
            ("cors", Place::Route) => Some(json!({"type": "object", "properties": {"max_age": {"type": "integer"}}})),
            ("key-auth", Place::Route) => Some(json!({"type": "object", "title": "route"})),
            ("key-auth", Place::Consumer) => Some(json!({"type": "object", "required": ["key"]})),
            _ => None,
        }
    }

    fn check(&self, name: &str, place: Place, config: &Value) -> Result<(), Vec<ConfigFault>> {
        let fault = |path: &str, message: &str| Err(vec![ConfigFault { path: path.to_owned(), message: message.to_owned() }]);
        match (name, place) {
            ("key-auth", Place::Consumer) if config.get("key").is_none() => fault("", "property \"key\" is required"),
            ("cors", _) if config.get("max_age").is_some_and(|age| !age.is_number()) => {
                fault("max_age", "wrong type: expected integer, got string")
            }
            _ => Ok(()),
        }
    }
}

fn mesh() -> Value {
    let service = |service: &str, live: u64| json!({ "service": service, "protocol": "http", "live": live, "fault": null });
    let instance = |service: &str, node: &str, zone: &str, state: &str| json!({ "service": service, "node": node, "zone": zone, "state": state });
    let mut partner = service("partner/cart", 0);
    partner["federated"] = "partner.example".into();
    json!({
        "services": [service("shop/web", 2), service("shop/cart", 0), service("default/web", 1), partner],
        "instances": [
            instance("shop/web", "web-1", "a", "live"), instance("shop/web", "web-2", "b", "draining"), instance("default/web", "w", "a", "live"),
        ],
        "discovered": [],
    })
}

async fn admin_over(store: Arc<dyn Store>, settings: Settings) -> (Admin, Keeper) {
    let catalog: Arc<dyn Catalog> = Arc::new(Plugins::new());
    let keeper = Keeper::start(store, Arc::new(Rules::new(catalog.clone())), Arc::new(|| 1_000_000)).await.unwrap();
    let key = |name: &str, key: &str, role| AdminKey { name: name.into(), key: Secret::new(key), role };
    let admin = Admin {
        keeper: keeper.clone(),
        catalog,
        seal: Arc::new(Seal::new(&[3; 32]).unwrap()),
        keys: Keys::new(&[key("ops", ADMIN, Role::Admin), key("eyes", VIEWER, Role::Viewer)]),
        settings,
        nodes: Arc::new(|| json!([{"id": "gw-1"}])),
        rollouts: Rollouts::default(),
        members: Arc::new(|| json!({"members": [{"id": "gw-1", "state": "alive"}]})),
        mesh: Arc::new(mesh),
        differences: Arc::new(|| json!([])),
        metrics: Arc::new(|| "heddle_store_revision 1\n".to_owned()),
        clock: Arc::new(|| 1_000_000),
    };
    (admin, keeper)
}

async fn api_with(settings: Settings) -> (Router, Keeper) {
    let (admin, keeper) = admin_over(Arc::new(Memory::new(Arc::new(|| 1_000_000))), settings).await;
    (router(admin), keeper)
}

async fn api() -> Router {
    api_with(Settings::default()).await.0
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn error(&self) -> String {
        self.json()["error_msg"].as_str().unwrap_or_default().to_owned()
    }
}

async fn send(api: &Router, mut request: Request) -> Answer {
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    let response = api.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

/// `METHOD /path` with the admin's key.
async fn call(api: &Router, line: &str, body: impl Into<Option<Value>>) -> Answer {
    call_with(api, line, &[("x-api-key", ADMIN)], body.into().map(|v| v.to_string()).unwrap_or_default()).await
}

async fn call_with(api: &Router, line: &str, headers: &[(&str, &str)], body: String) -> Answer {
    let (method, path) = line.split_once(' ').unwrap();
    let path =
        if path.starts_with("/apisix") || path.starts_with("/admin") { path.to_owned() } else { format!("/apisix/admin{path}") };
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(api, request.body(Body::from(body)).unwrap()).await
}
