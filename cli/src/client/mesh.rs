//! `heddle mesh`: asks a control plane which services and which instances of them it knows, and how they stand.

use std::time::Duration;

use heddle_controlplane::settings::ADMIN_KEY_FILE;
use serde_json::Value;

use super::table;
use crate::args::{MeshArgs, MeshCommand, Shape};
use crate::ask::Question;

/// How long the control plane may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Most of an answer: a hundred thousand instances.
const MOST_ANSWER: u64 = 64 * 1024 * 1024;
/// The headings of services.
const SERVICES: [&str; 7] = ["SERVICE", "PROTOCOL", "ADDRESS", "LIVE", "ENDPOINTS", "RESOURCE", "FAULT"];
/// The headings of instances.
const INSTANCES: [&str; 10] = ["SERVICE", "NODE", "ADDRESS", "ZONE", "PROTOCOL", "PORTS", "VERSION", "LABELS", "STATE", "SINCE"];

/// Asks, and writes down the answer.
///
/// # Errors
/// Nobody answers, or it refuses.
pub fn mesh(args: &MeshArgs, now_ms: u64) -> Result<String, String> {
    let target = target(&args.command);
    let key = args.key.clone().or_else(|| std::fs::read_to_string(args.data_dir.join(ADMIN_KEY_FILE)).ok());
    let key = key.as_deref().map(str::trim);
    let question =
        Question { at: args.at, method: "GET", target: &target, key, token: None, patience: PATIENCE, most: MOST_ANSWER };
    let answer = question.ask().map_err(|error| {
        format!("{} does not answer: {error}; is a control plane running there, and is --at its admin.address?", args.at)
    })?;
    match answer.status {
        200 => {}
        401 => {
            return Err(format!(
                "{} refuses: {}\n  give the admin key with --key or HEDDLE_ADMIN_KEY, or --data-dir of a control plane on this machine",
                args.at,
                answer.body.trim()
            ));
        }
        status => return Err(format!("{} answers {status}: {}", args.at, answer.body.trim())),
    }
    let found: Value = serde_json::from_str(&answer.body)
        .map_err(|error| format!("{} answers no list: {error}; narrow it, when it is a large one", args.at))?;
    let rows = |row: &dyn Fn(&Value) -> Vec<String>| found.as_array().into_iter().flatten().map(row).collect::<Vec<_>>();
    Ok(match args.output {
        Shape::Json => format!("{found:#}\n"),
        Shape::Table => match &args.command {
            MeshCommand::Services { .. } => table(&SERVICES, &rows(&service)),
            MeshCommand::Instances { .. } => table(&INSTANCES, &rows(&|item| instance(item, now_ms))),
        },
    })
}

/// What is asked for: a path, and the filters behind it.
fn target(command: &MeshCommand) -> String {
    let (path, filters) = match command {
        MeshCommand::Services { service, namespace, faulty } => (
            "services",
            vec![("service", service.clone()), ("namespace", namespace.clone()), ("faulty", faulty.then(|| "true".into()))],
        ),
        MeshCommand::Instances { service, namespace, zone, node, state } => {
            let state = state.map(|state| state.name().to_owned());
            let named = [("service", service), ("namespace", namespace), ("zone", zone), ("node", node)];
            ("instances", named.into_iter().map(|(name, value)| (name, value.clone())).chain([("state", state)]).collect())
        }
    };
    let filters = filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?))));
    let query = filters.collect::<Vec<_>>().join("&");
    format!("/apisix/admin/mesh/{path}{}{query}", if query.is_empty() { "" } else { "?" })
}

/// A value within a query.
fn escaped(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn service(item: &Value) -> Vec<String> {
    let draining = item["draining"].as_u64().filter(|draining| *draining > 0);
    let live =
        item["live"].to_string() + draining.map(|draining| format!(" (+{draining} draining)")).unwrap_or_default().as_str();
    vec![
        text(item, "service"),
        text(item, "protocol"),
        text(item, "vip"),
        live,
        item["endpoints"].to_string(),
        text(item, "resource"),
        text(item, "fault"),
    ]
}

fn instance(item: &Value, now_ms: u64) -> Vec<String> {
    let listed = |name: &str, between: char| {
        let pairs = item[name].as_object().into_iter().flatten();
        let pairs: Vec<String> =
            pairs.map(|(name, value)| format!("{name}{between}{}", value.as_str().unwrap_or_default())).collect();
        if pairs.is_empty() { "-".to_owned() } else { pairs.join(",") }
    };
    let address = match item["address"].as_str().unwrap_or_default() {
        v6 if v6.contains(':') => format!("[{v6}]:{}", item["port"]),
        address => format!("{address}:{}", item["port"]),
    };
    vec![
        text(item, "service"),
        text(item, "node"),
        address,
        text(item, "zone"),
        text(item, "protocol"),
        listed("ports", '/'),
        text(item, "version"),
        listed("labels", '='),
        text(item, "state"),
        crate::output::ago(now_ms.saturating_sub(item["since"].as_u64().unwrap_or(now_ms))),
    ]
}

/// A text, `-` where there is none.
fn text(item: &Value, name: &str) -> String {
    item[name].as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_and_instances_are_tables() {
        let one = json!({"service": "shop/cart", "identity": "spiffe://x/ns/shop/svc/cart", "vip": "240.240.0.1", "protocol": "http",
            "resource": null, "endpoints": 2, "live": 2, "draining": 1, "fault": null});
        assert_eq!(
            table(&SERVICES, &[service(&one)]),
            "SERVICE    PROTOCOL  ADDRESS      LIVE             ENDPOINTS  RESOURCE  FAULT\n\
             shop/cart  http      240.240.0.1  2 (+1 draining)  2          -         -\n"
        );
        let one = json!({"service": "shop/cart", "node": "cart-1", "zone": "a", "address": "10.0.0.7", "port": 15_006, "protocol": "http",
            "ports": {"5432": "tcp", "9090": "grpc"}, "version": "v2", "labels": {"track": "canary", "team": "shop"}, "state": "live", "since": 1_000});
        assert_eq!(
            table(&INSTANCES, &[instance(&one, 61_000)]),
            "SERVICE    NODE    ADDRESS         ZONE  PROTOCOL  PORTS               VERSION  LABELS                  STATE  SINCE\n\
             shop/cart  cart-1  10.0.0.7:15006  a     http      5432/tcp,9090/grpc  v2       track=canary,team=shop  live   60s\n"
        );
        assert_eq!(instance(&json!({"address": "fd00::1", "port": 1}), 0)[2], "[fd00::1]:1");
    }

    #[test]
    fn filters_travel_in_the_query() {
        let none = MeshCommand::Services { service: None, namespace: None, faulty: false };
        assert_eq!(target(&none), "/apisix/admin/mesh/services");
        let some = MeshCommand::Instances {
            service: Some("shop/c&rt".into()),
            namespace: None,
            zone: Some("eu 1a".into()),
            node: None,
            state: clap::ValueEnum::from_str("live", false).ok(),
        };
        assert_eq!(target(&some), "/apisix/admin/mesh/instances?service=shop%2Fc%26rt&zone=eu%201a&state=live");
    }
}
