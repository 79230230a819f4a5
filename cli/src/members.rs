//! `heddle members`: asks a node, agent or control plane, who belongs to the fleet as it sees it.

use std::time::Duration;

use serde_json::Value;

use crate::args::{MembersArgs, Shape};
use crate::ask::{Answer, Question};
use crate::client::table;

/// How long the node may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most of an answer: a thousand members.
const MOST_ANSWER: u64 = 4 * 1024 * 1024;

/// Asks, and writes down the answer.
///
/// # Errors
/// Nobody answers, or it refuses.
pub fn run(args: &MembersArgs) -> Result<String, String> {
    let Answer { status, body } = ask(args)?;
    if status != 200 {
        return Err(format!("{} refuses: {status} {}; a control plane wants --key", args.at, body.trim()));
    }
    let members: Value =
        serde_json::from_str(&body).map_err(|error| format!("{} answers no list of members: {error}", args.at))?;
    match args.output {
        Shape::Json => Ok(format!("{members:#}\n")),
        Shape::Table => Ok(shown(&members)),
    }
}

fn ask(args: &MembersArgs) -> Result<Answer, String> {
    let target = "/admin/members";
    let question =
        Question { at: args.at, method: "GET", target, key: args.key.as_deref(), patience: PATIENCE, most: MOST_ANSWER };
    question.ask().map_err(|error| {
        format!("{} does not answer: {error}; is a node running there, and is --at its agent.admin or admin.address?", args.at)
    })
}

fn shown(members: &Value) -> String {
    let row = |member: &Value| {
        let text = |name: &str| member[name].as_str().unwrap_or_default().to_owned();
        let or_dash = |name: &str| Some(text(name)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        let mark = |flag: &str, what: &str| if member[flag].as_bool() == Some(true) { what.to_owned() } else { String::new() };
        let load = format!("{} in flight, {}/s", member["in_flight"], member["requests_per_second"]);
        let silent = member["silent_ms"].as_u64().unwrap_or_default();
        vec![
            text("id") + mark("own", " *").as_str(),
            or_dash("role"),
            or_dash("group"),
            text("state") + mark("draining", ", draining").as_str(),
            or_dash("zone"),
            or_dash("version"),
            or_dash("config_version"),
            load,
            if member["own"].as_bool() == Some(true) { "now".into() } else { format!("{:.1} s ago", silent as f64 / 1_000.0) },
        ]
    };
    let rows: Vec<Vec<String>> = members["members"].as_array().into_iter().flatten().map(row).collect();
    table(&["ID", "ROLE", "GROUP", "STATE", "ZONE", "VERSION", "CONFIG", "LOAD", "LAST SEEN"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_a_table() {
        let member = json!({"id": "gw-1", "own": true, "role": "gateway", "group": "default", "state": "alive", "zone": "", "version": "0.1.0",
            "config_version": "7", "draining": true, "in_flight": 2, "requests_per_second": 10, "silent_ms": 1_500});
        let text = shown(&json!({ "members": [member] }));
        assert_eq!(
            text,
            "ID      ROLE     GROUP    STATE            ZONE  VERSION  CONFIG  LOAD               LAST SEEN\n\
             gw-1 *  gateway  default  alive, draining  -     0.1.0    7       2 in flight, 10/s  now\n"
        );
    }
}
