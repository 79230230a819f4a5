//! Consul service registrations: clients are told the sidecar's port, the application's checks stay, and the sidecar gets one. It does not know whether Consul runs.

use serde_json::{Map, Value, json};

use super::super::settings::{InjectSettings, PROBE_PORT};
use super::{INBOUND_PORT, ServiceWishes};

/// The key of `meta` that says what was injected. Consul takes letters, digits, `_` and `-`.
const STATUS: &str = "heddle-status";
/// The key that names the service to other sidecars.
const SERVICE: &str = "heddle-service";
/// The id of our check.
const CHECK: &str = "heddle-ready";

/// The registration with its sidecar: of a configuration file (`service`, `services`) or of the API (`Name`).
///
/// # Errors
/// All reasons why a service gets none, one a line.
pub fn consul(file: &str, text: &str, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<String, String> {
    each_service(file, text, &|service| {
        remove(service);
        add(service, wishes, settings)
    })
}

/// The registration without its sidecar.
///
/// # Errors
/// It is no registration.
pub fn without_consul(file: &str, text: &str) -> Result<String, String> {
    each_service(file, text, &|service| {
        remove(service);
        Ok(())
    })
}

type Step<'s> = dyn Fn(&mut Map<String, Value>) -> Result<(), String> + 's;

fn each_service(file: &str, text: &str, step: &Step<'_>) -> Result<String, String> {
    if !text.trim_start().starts_with('{') {
        return Err(format!("{file}: expected a registration as JSON; Consul reads service.json like service.hcl"));
    }
    let mut whole: Value = serde_json::from_str(text).map_err(|error| format!("{file}: expected JSON: {error}"))?;
    let listed = whole.get("services").is_some();
    let single = whole.get("service").is_some();
    let services: Vec<&mut Value> = match &mut whole {
        Value::Object(map) if listed => map.get_mut("services").and_then(Value::as_array_mut).into_iter().flatten().collect(),
        Value::Object(map) if single => map.get_mut("service").into_iter().collect(),
        whole if key(whole.as_object(), "name").is_some() => vec![whole],
        _ => return Err(format!("{file}: expected `service`, `services`, or a registration of the API with a `Name`")),
    };
    let mut faults = Vec::new();
    for (index, service) in services.into_iter().enumerate() {
        let name = key(service.as_object(), "name").and_then(|name| service.get(name)?.as_str());
        let title = name.map_or_else(|| format!("services[{index}]"), |name| format!("service {name}"));
        let done = service.as_object_mut().ok_or("expected a map".to_owned()).and_then(step);
        if let Err(message) = done {
            faults.push(format!("{file}: {title}: {message}"));
        }
    }
    if faults.is_empty() { Ok(format!("{whole:#}\n")) } else { Err(faults.join("\n")) }
}

/// A key as this registration writes it: `name` in files, `Name` in the API.
fn key(service: Option<&Map<String, Value>>, name: &str) -> Option<String> {
    let service = service?;
    let written = service.keys().find(|key| key.replace('_', "").eq_ignore_ascii_case(&name.replace('_', "")))?;
    Some(written.clone())
}

/// The key under which something new is written.
fn styled(service: &Map<String, Value>, name: &str) -> String {
    let upper = service.keys().any(|key| key == "Name");
    key(Some(service), name)
        .unwrap_or_else(|| if upper { format!("{}{}", name[..1].to_uppercase(), &name[1..]) } else { name.to_owned() })
}

fn of<'v>(service: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    service.get(&key(Some(service), name)?)
}

fn remove(service: &mut Map<String, Value>) {
    let meta_key = styled(service, "meta");
    let Some(meta) = service.get_mut(&meta_key).and_then(Value::as_object_mut) else { return };
    let Some(status) = meta.shift_remove(STATUS) else { return };
    meta.shift_remove(SERVICE);
    let status: Value = status.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let made = |what: &str| status.get("made").and_then(Value::as_array).is_some_and(|made| made.iter().any(|one| one == what));
    if made("meta") && meta.is_empty() {
        service.shift_remove(&meta_key);
    }
    let port = styled(service, "port");
    service.insert(port, status.get("port").cloned().unwrap_or_default());
    let checks_key = styled(service, "checks");
    if let Some(checks) = service.get_mut(&checks_key).and_then(Value::as_array_mut) {
        checks.retain(|check| {
            !check.as_object().and_then(|check| check.values().find(|value| *value == CHECK)).is_some_and(|_| true)
        });
        if made("checks") && checks.is_empty() {
            service.shift_remove(&checks_key);
        }
    }
}

fn add(service: &mut Map<String, Value>, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<(), String> {
    let in_other_mesh = of(service, "connect").is_some_and(|connect| !connect.is_null())
        || of(service, "proxy").is_some_and(|proxy| !proxy.is_null());
    let kind = of(service, "kind").and_then(Value::as_str).unwrap_or_default();
    if in_other_mesh || !kind.is_empty() {
        return Err(
            "it is in Consul's own mesh (`connect`, `proxy` or `kind`); two meshes cannot both have its traffic".to_owned()
        );
    }
    let port = of(service, "port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    if port.is_none() && wishes.port.is_none() {
        return Err("expected a `port` at which the application listens, found none; say --port PORT".to_owned());
    }
    if port == Some(INBOUND_PORT) {
        return Err(format!("expected another port than {INBOUND_PORT}, which is the sidecar's"));
    }
    let known = wishes.known(of(service, "name").and_then(Value::as_str), port)?;
    let mut made = Vec::new();
    for part in ["meta", "checks"] {
        if of(service, part).is_none() {
            made.push(part);
        }
    }
    let original = of(service, "port").cloned().unwrap_or_default();
    let status = json!({ "version": env!("CARGO_PKG_VERSION"), "port": original, "made": made }).to_string();
    let upper = service.keys().any(|key| key == "Name");
    let port_key = styled(service, "port");
    service.insert(port_key, INBOUND_PORT.into());
    let meta_key = styled(service, "meta");
    let meta = service.entry(meta_key).or_insert_with(|| json!({})).as_object_mut().ok_or("meta: expected a map")?;
    meta.insert(STATUS.to_owned(), status.into());
    let domain = settings.trust_domain.as_deref().map_or_else(String::new, |domain| format!("spiffe://{domain}/"));
    meta.insert(SERVICE.to_owned(), format!("{domain}ns/{}/svc/{}", known.namespace, known.name).into());
    let url = format!("http://127.0.0.1:{PROBE_PORT}/ready");
    let check = if upper {
        json!({ "CheckID": CHECK, "Name": "Heddle sidecar", "HTTP": url, "Interval": "5s", "Timeout": "2s" })
    } else {
        json!({ "id": CHECK, "name": "Heddle sidecar", "http": url, "interval": "5s", "timeout": "2s" })
    };
    let checks_key = styled(service, "checks");
    let checks = service.entry(checks_key).or_insert_with(|| json!([])).as_array_mut().ok_or("checks: expected a list")?;
    checks.push(check);
    Ok(())
}
