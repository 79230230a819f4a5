//! What is written down of discovery: endpoints as JSON, by keys below `discovery/consul/`. What cannot be read is as if it were not there.

use heddle_xds::model::{Endpoint, EndpointStatus};
use serde::{Deserialize, Serialize};

use super::Ask;

const CONSUL: &str = "discovery/consul/";
/// Bytes of one record: stores bound what is written at once.
pub(super) const MOST_BYTES: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Form {
    host: String,
    port: u16,
    weight: u32,
    zone: String,
    status: u8,
    labels: Vec<(String, String)>,
}

const STATUSES: [EndpointStatus; 4] =
    [EndpointStatus::Unknown, EndpointStatus::Healthy, EndpointStatus::Unhealthy, EndpointStatus::Draining];

pub(super) fn key(ask: &Ask) -> String {
    format!("{CONSUL}{}", ask.text())
}

/// The record of endpoints. What is too long goes without labels, and what is still too long with as many endpoints as fit: traffic needs addresses first.
pub(super) fn body(endpoints: &[Endpoint]) -> Vec<u8> {
    let whole = written(endpoints, true);
    if whole.len() <= MOST_BYTES {
        return whole;
    }
    let mut count = endpoints.len();
    loop {
        let short = written(&endpoints[..count], false);
        if short.len() <= MOST_BYTES || count == 0 {
            return short;
        }
        count = (count * MOST_BYTES / short.len()).min(count - 1);
    }
}

fn written(endpoints: &[Endpoint], labelled: bool) -> Vec<u8> {
    let status = |one: EndpointStatus| STATUSES.iter().position(|other| *other == one).and_then(|at| u8::try_from(at).ok());
    let form = |one: &Endpoint| Form {
        host: one.host.to_string(),
        port: one.port,
        weight: one.weight,
        zone: one.zone.to_string(),
        status: status(one.status).unwrap_or_default(),
        labels: one.labels.iter().filter(|_| labelled).map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    // Texts and numbers always have a form in JSON.
    serde_json::to_vec(&endpoints.iter().map(form).collect::<Vec<_>>()).unwrap_or_default()
}

pub(super) fn read(key: &str, body: &[u8]) -> Option<(Ask, Vec<Endpoint>)> {
    let ask = Ask::parse(key.strip_prefix(CONSUL)?)?;
    let forms: Vec<Form> = serde_json::from_slice(body).ok()?;
    let endpoint = |form: Form| Endpoint {
        host: form.host.into(),
        port: form.port,
        weight: form.weight,
        zone: form.zone.into(),
        status: STATUSES.get(usize::from(form.status)).copied().unwrap_or_default(),
        labels: form.labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..Endpoint::default()
    };
    Some((ask, forms.into_iter().map(endpoint).collect()))
}
