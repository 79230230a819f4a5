//! What a policy is told about a request, in the words of APISIX. It asks nobody.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::config::Config;
use crate::exchange::Exchange;
use crate::http::Name;

/// Which parts are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts {
    route: bool,
    service: bool,
    consumer: bool,
}

impl Parts {
    pub(super) fn of(config: &Config) -> Parts {
        Parts { route: config.with_route, service: config.with_service, consumer: config.with_consumer }
    }

    /// The document that is sent.
    pub(super) fn document(self, x: &Exchange) -> Value {
        let local = x.connection.local;
        let mut input = json!({
            "type": "http",
            "request": request(x),
            "var": {
                "server_addr": local.ip().to_canonical().to_string(),
                "server_port": local.port().to_string(),
                "remote_addr": x.remote.ip().to_canonical().to_string(),
                "remote_port": x.remote.port().to_string(),
                "timestamp": x.started_ms / 1000,
            },
        });
        let info = x.routed().map(|route| route.info());
        if self.route {
            input["route"] = info.map_or(
                Value::Null,
                |info| json!({ "id": info.id, "name": info.name, "uri": info.uri, "service_id": info.service_id }),
            );
        }
        if self.service {
            let service = info.filter(|info| !info.service_id.is_empty());
            input["service"] = service.map_or(Value::Null, |info| json!({ "id": info.service_id, "name": info.service }));
        }
        if self.consumer {
            input["consumer"] = x.consumer.as_ref().map_or(Value::Null, |consumer| {
                json!({
                    "username": consumer.username, "group_id": consumer.group_id, "credential_id": consumer.credential_id,
                    "custom_id": consumer.custom_id, "labels": consumer.labels,
                })
            });
        }
        json!({ "input": input })
    }
}

fn request(x: &Exchange) -> Value {
    let mut headers = Map::new();
    headers.insert("host".to_owned(), Value::String(x.request.authority.clone()));
    for field in x.request.fields.iter().filter(|field| field.id != Name::Host) {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        add(&mut headers, name, Value::String(String::from_utf8_lossy(field.value).into_owned()));
    }
    let mut query = Map::new();
    for pair in x.request.query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = match pair.split_once('=') {
            Some((name, value)) => (name, Value::String(decoded(value))),
            None => (pair, Value::Bool(true)),
        };
        add(&mut query, decoded(name), value);
    }
    json!({
        "scheme": x.scheme(),
        "method": x.request.method.as_str(),
        "host": x.request.host(),
        "port": x.connection.local.port(),
        "path": x.request.path,
        "headers": headers,
        "query": query,
    })
}

/// Adds a value; several under one name become an array.
fn add(map: &mut Map<String, Value>, name: String, value: Value) {
    match map.get_mut(&name) {
        None => drop(map.insert(name, value)),
        Some(Value::Array(all)) => all.push(value),
        Some(one) => *one = Value::Array(vec![one.take(), value]),
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
