//! gRPC's own clients and servers that follow a control plane without a proxy. It knows nothing of Heddle but an address.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::certificates::Files;
use crate::mesh::{Mesh, Node};
use crate::place::Place;
use crate::process::{Process, until};
use crate::python;

/// The bootstrap of a node: where its control plane is, and the files that its certificates are in. A server of it asks for mutual TLS when there are files.
pub fn bootstrap(place: &Place, control: SocketAddr, id: &str, files: Option<&Files>) -> PathBuf {
    let mut bootstrap = json!({
        "xds_servers": [{ "server_uri": control.to_string(), "channel_creds": [{ "type": "insecure" }], "server_features": ["xds_v3"] }],
        "node": { "id": id },
        "server_listener_resource_name_template": match files {
            Some(_) => "grpc/server/mtls?xds.resource.listening_address=%s",
            None => "grpc/server?xds.resource.listening_address=%s",
        },
    });
    if let Some(files) = files {
        bootstrap["certificate_providers"] = json!({ "default": { "plugin_name": "file_watcher", "config": {
            "certificate_file": files.chain,
            "private_key_file": files.key,
            "ca_certificate_file": files.roots,
            "refresh_interval": "1s",
        } } });
    }
    place.write(&format!("{id}.json"), &bootstrap.to_string())
}

/// The bootstrap of a member of the mesh: an agent keeps its identity in `files`, and by that it speaks with its control plane as well.
fn member(place: &Place, control: SocketAddr, id: &str, metadata: &Value, files: &Path) -> PathBuf {
    let identity = json!({
        "certificate_file": files.join("svid.pem"),
        "private_key_file": files.join("svid.key"),
        "ca_certificate_file": files.join("bundle.pem"),
        "refresh_interval": "1s",
    });
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": control.to_string(),
            "channel_creds": [{ "type": "tls", "config": identity }],
            "server_features": ["xds_v3"],
        }],
        "node": { "id": id, "metadata": metadata },
        "certificate_providers": { "default": { "plugin_name": "file_watcher", "config": identity } },
        "server_listener_resource_name_template": "grpc/server/mtls?xds.resource.listening_address=%s",
    });
    place.write(&format!("{id}.json"), &bootstrap.to_string())
}

/// A program of gRPC with the agent that keeps its identity.
pub struct Program {
    pub bootstrap: PathBuf,
    _keeper: Node,
}

impl Mesh {
    /// A program of a service, which says this of itself and speaks with the control plane over mutual TLS.
    pub fn grpc_program(&self, service: &str, metadata: &Value) -> Program {
        let place = &self.control.place;
        let id = format!("{service}-grpc");
        let files = place.path(&format!("{id}-identity"));
        let keeper = self.keeper(&format!("{id}-keeper"), service, &format!("files: \"{}\"", files.display()));
        until("the identity in files", || files.join("svid.pem").exists().then_some(()));
        Program { bootstrap: member(place, self.control.xds, &id, metadata, &files), _keeper: keeper }
    }
}

/// A server that says which one it is, with a control plane or `plain`.
pub fn server(place: &Place, address: SocketAddr, saying: &str, bootstrap: Option<(&PathBuf, &str)>) -> Process {
    let mut command = python::script("proxyless.py");
    command.args(["serve", &address.to_string(), saying, bootstrap.map_or("plain", |(_, kind)| kind)]);
    if let Some((path, _)) = bootstrap {
        command.env("GRPC_XDS_BOOTSTRAP", path);
    }
    let server = Process::start(command, place.path(&format!("{saying}.log")));
    until("the server", || server.output().contains("serving").then_some(()));
    server
}

/// A client of a service, which makes calls when it is told to.
pub struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    pub fn of(target: &str, bootstrap: &Path, kind: &str) -> Client {
        let mut command: Command = python::script("proxyless.py");
        command.args(["call", target, kind]).env("GRPC_XDS_BOOTSTRAP", bootstrap);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut client = Client { child, input, output };
        assert_eq!(client.line(), "ready");
        client
    }

    /// What comes of a call of `method`, with a metadata field perhaps (`name=value`).
    pub fn call(&mut self, call: &str) -> Value {
        writeln!(self.input, "{call}").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Calls until this server answers.
    pub fn until_says(&mut self, call: &str, saying: &str) {
        until(saying, || (self.call(call)["saying"] == saying).then_some(()));
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
