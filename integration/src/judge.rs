//! Somebody who decides by gRPC whether requests may pass, and writes down what it was asked. It knows no proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::certificates::Pair;
use crate::place::Place;
use crate::process::{Process, until};
use crate::{ads, python};

/// A script of the stories that serves at an address.
pub fn serving(command: Command, log: PathBuf) -> Process {
    let process = Process::start(command, log);
    until("the server", || process.output().contains("serving").then_some(()));
    process
}

/// Who decides, and what it was asked.
pub struct Judge {
    _process: Process,
    pub address: SocketAddr,
    pub log: PathBuf,
}

impl Judge {
    /// Starts it; its files have this name.
    pub fn new(place: &Place, name: &str) -> Judge {
        Judge::start(place, name, &[])
    }

    /// One that is called over TLS, with this certificate.
    pub fn sealed(place: &Place, name: &str, pair: &Pair) -> Judge {
        let files = [("crt", &pair.certificate), ("key", &pair.key)];
        Judge::start(place, name, &files.map(|(end, pem)| place.write(&format!("{name}.{end}"), pem)))
    }

    fn start(place: &Place, name: &str, files: &[PathBuf]) -> Judge {
        let (address, log) = (place.address(), place.path(&format!("{name}.asked")));
        let mut command = Command::new(ads::interpreter());
        command.arg(python::path("authz.py")).arg(address.to_string()).arg(&log).args(files);
        Judge { _process: serving(command, place.path(&format!("{name}.log"))), address, log }
    }

    /// Each question, without what is of the moment, of the connection, and of the data plane itself.
    pub fn asked(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| plain(serde_json::from_str(line).unwrap())).collect()
    }
}

fn plain(mut asked: Value) -> Value {
    let http = &mut asked["request"]["http"];
    assert!(!http["id"].as_str().unwrap().is_empty());
    http["id"].take();
    for name in ["x-request-id", "x-forwarded-for", "host"] {
        http["headers"].as_object_mut().unwrap().remove(name);
    }
    assert!(asked["request"]["time"].as_str().unwrap().starts_with("20"));
    asked["request"]["time"].take();
    for end in ["source", "destination"] {
        let socket = &mut asked[end]["address"]["socket_address"];
        assert!(socket["port_value"].as_u64().is_some_and(|port| port > 0), "{end}");
        *socket = Value::Null;
    }
    for empty in ["metadata_context", "route_metadata_context"] {
        asked.as_object_mut().unwrap().remove(empty);
    }
    asked["metadata"] = asked["metadata"]["x-by"].take();
    asked
}
