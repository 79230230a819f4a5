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
    let question = Question {
        at: args.at,
        method: "GET",
        target,
        key: args.key.as_deref(),
        token: None,
        patience: PATIENCE,
        most: MOST_ANSWER,
    };
    question.ask().map_err(|error| {
        format!("{} does not answer: {error}; is a node running there, and is --at its agent.admin or admin.address?", args.at)
    })
}

/// Where cells stand in the table, once there are some.
const CELL: usize = 3;

fn shown(members: &Value) -> String {
    let all = || members["members"].as_array().into_iter().flatten();
    let in_cells = all().any(|member| member["cell"].as_str().is_some_and(|cell| !cell.is_empty()));
    let row = |member: &Value| {
        let text = |name: &str| member[name].as_str().unwrap_or_default().to_owned();
        let or_dash = |name: &str| Some(text(name)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        let mark = |flag: &str, what: &str| if member[flag].as_bool() == Some(true) { what.to_owned() } else { String::new() };
        // Of members of other cells a control plane tells little.
        let told_by = member["told_by"].as_str();
        let load = match told_by {
            None => format!("{} in flight, {}/s", member["in_flight"], member["requests_per_second"]),
            Some(_) => "-".into(),
        };
        let silent = member["silent_ms"].as_u64().unwrap_or_default();
        let mut row = vec![
            text("id") + mark("own", " *").as_str(),
            or_dash("role"),
            or_dash("group"),
            text("state") + mark("draining", ", draining").as_str(),
            or_dash("zone"),
            or_dash("version"),
            or_dash("config_version"),
            load,
            match told_by {
                _ if member["own"].as_bool() == Some(true) => "now".into(),
                Some(by) => format!("by {by}"),
                None => format!("{:.1} s ago", silent as f64 / 1_000.0),
            },
        ];
        if in_cells {
            row.insert(CELL, or_dash("cell"));
        }
        row
    };
    let rows: Vec<Vec<String>> = all().map(row).collect();
    let mut headings = vec!["ID", "ROLE", "GROUP", "STATE", "ZONE", "VERSION", "CONFIG", "LOAD", "LAST SEEN"];
    if in_cells {
        headings.insert(CELL, "CELL");
    }
    table(&headings, &rows) + more(members).as_str()
}

/// Members of other cells of which a control plane tells no more than how many there are.
fn more(members: &Value) -> String {
    let line = |cell: &Value| {
        let of = |what: &str| cell[what].as_u64().unwrap_or_default();
        let all = of("alive") + of("suspect") + of("dead") + of("left");
        let name = cell["cell"].as_str().filter(|name| !name.is_empty()).unwrap_or("-");
        (all > of("shown")).then(|| {
            let (alive, suspect, dead, left) = (of("alive"), of("suspect"), of("dead"), of("left"));
            format!(
                "cell {name}: {all} members ({alive} alive, {suspect} suspect, {dead} dead, {left} left), {} shown\n",
                of("shown")
            )
        })
    };
    members["cells"].as_array().into_iter().flatten().filter_map(line).collect()
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

    #[test]
    fn members_of_other_cells_stand_with_their_cell() {
        let own = json!({"id": "gw-1", "own": true, "role": "gateway", "group": "default", "state": "alive", "zone": "", "version": "0.1.0",
            "config_version": "7", "cell": "eu", "in_flight": 2, "requests_per_second": 10, "silent_ms": 1_500});
        let other = json!({"id": "gw-2", "own": false, "role": "gateway", "state": "dead", "zone": "us-1", "cell": "us", "told_by": "cp-1"});
        let us = json!({"cell": "us", "told_by": "cp-1", "alive": 40, "suspect": 0, "dead": 1, "left": 0, "shown": 1});
        assert_eq!(
            shown(&json!({ "members": [own, other], "cells": [us] })),
            "ID      ROLE     GROUP    CELL  STATE  ZONE  VERSION  CONFIG  LOAD               LAST SEEN\n\
             gw-1 *  gateway  default  eu    alive  -     0.1.0    7       2 in flight, 10/s  now\n\
             gw-2    gateway  -        us    dead   us-1  -        -       -                  by cp-1\n\
             cell us: 41 members (40 alive, 0 suspect, 1 dead, 0 left), 1 shown\n"
        );
    }
}
