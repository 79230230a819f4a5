//! `heddle endpoints`: asks an agent how the endpoints of its upstreams stand, and why.

use std::time::Duration;

use serde_json::Value;

use crate::args::{EndpointsArgs, Shape};
use crate::ask::{Answer, Question};
use crate::client::table;
use crate::output::ago;

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most of an answer: a hundred thousand endpoints.
const MOST_ANSWER: u64 = 64 * 1024 * 1024;

/// Asks, and writes down the answer.
///
/// # Errors
/// Nobody answers, or there is no such upstream.
pub fn run(args: &EndpointsArgs, now_ms: u64) -> Result<String, String> {
    let Answer { status, body } = ask(args)?;
    if status != 200 {
        return Err(format!("the agent at {} answers {status}: {}", args.agent, body.trim()));
    }
    let found: Value = serde_json::from_str(&body).map_err(|error| format!("{} answers no endpoints: {error}", args.agent))?;
    match args.output {
        Shape::Json => Ok(format!("{found:#}\n")),
        Shape::Table => Ok(shown(&found, now_ms)),
    }
}

fn ask(args: &EndpointsArgs) -> Result<Answer, String> {
    let path = args.upstream.as_ref().map(|name| format!("/{}", escaped(name))).unwrap_or_default();
    let target = format!("/endpoints{path}");
    let question = Question {
        at: args.agent,
        method: "GET",
        target: &target,
        key: None,
        token: None,
        patience: PATIENCE,
        most: MOST_ANSWER,
    };
    question.ask().map_err(|error| {
        format!("the agent at {} does not answer: {error}; is it running, and is --agent its agent.admin?", args.agent)
    })
}

/// A name within a path, its slashes as they are.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn shown(found: &Value, now_ms: u64) -> String {
    let mut rows = Vec::new();
    let upstreams = || found["upstreams"].as_array().into_iter().flatten();
    for upstream in upstreams() {
        let name = upstream["name"].as_str().unwrap_or_default();
        rows.extend(upstream["endpoints"].as_array().into_iter().flatten().map(|endpoint| row(name, endpoint, now_ms)));
    }
    let mut text = table(&["UPSTREAM", "ENDPOINT", "ZONE", "WEIGHT", "STATE", "SINCE", "WHY", "CHECKED BY"], &rows);
    for upstream in upstreams().filter(|upstream| upstream["panic"].as_bool() == Some(true)) {
        let name = upstream["name"].as_str().unwrap_or_default();
        text.push_str(&format!("{name}: too few endpoints stand, so that health is ignored (panic)\n"));
    }
    text
}

fn row(upstream: &str, endpoint: &Value, now_ms: u64) -> Vec<String> {
    let text = |name: &str| Some(endpoint[name].as_str().unwrap_or_default()).filter(|text| !text.is_empty()).unwrap_or("-");
    let list = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let why = |reason: &Value| {
        let found = reason["found"].as_str().map(|found| format!(" ({found})")).unwrap_or_default();
        format!("{}{found} by {}", reason["source"].as_str().unwrap_or_default(), list(&reason["by"]))
    };
    let whys: Vec<String> = endpoint["reasons"].as_array().into_iter().flatten().map(why).collect();
    vec![
        upstream.to_owned(),
        text("address").to_owned(),
        text("zone").to_owned(),
        endpoint["weight"].to_string(),
        text("state").to_owned(),
        ago(now_ms.saturating_sub(endpoint["since_ms"].as_u64().unwrap_or(now_ms))),
        or_dash(whys.join("; ")),
        or_dash(list(&endpoint["checked_by"])),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_are_a_table() {
        let reason = json!({"source": "fleet", "found": null, "since_ms": 1, "by": ["gw-2", "gw-3"]});
        let probe = json!({"source": "probe", "found": "status 503", "since_ms": 1, "by": ["gw-1"]});
        let endpoint = json!({"address": "10.0.0.1:80", "zone": "", "weight": 1, "state": "panic", "since_ms": 1_000,
            "reasons": [probe, reason], "checked_by": ["gw-1"]});
        let text = shown(&json!({"upstreams": [{"name": "upstreams/web", "panic": true, "endpoints": [endpoint]}]}), 181_000);
        assert_eq!(
            text,
            "UPSTREAM       ENDPOINT     ZONE  WEIGHT  STATE  SINCE  WHY                                              CHECKED BY\n\
             upstreams/web  10.0.0.1:80  -     1       panic  3m     probe (status 503) by gw-1; fleet by gw-2, gw-3  gw-1\n\
             upstreams/web: too few endpoints stand, so that health is ignored (panic)\n"
        );
        assert_eq!(escaped("mesh/shop/c%t x"), "mesh/shop/c%25t%20x");
    }
}
