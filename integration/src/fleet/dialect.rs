//! What a simulated node says: as our agents do, or as Envoys do. It knows neither sockets nor time, and keeps of a resource no more than what it makes an
//! Envoy ask for.

use std::collections::HashSet;

use bytes::Bytes;
use heddle_xds::model::Kind;
use heddle_xds::protocol::Types;

use super::wire::{self, Form, Head, Names, Node, Request, Resource};
use super::writer::Size;

/// Listeners of clear text that the control plane's own configuration file brings along, and those of TLS.
const OWN_LISTENERS: [usize; 2] = [1, 1];
/// `Cluster.eds_cluster_config`: the endpoints are asked for, by the name of the cluster.
const CLUSTER_ASKS: [u8; 1] = [3];
/// From a `Listener` by its filter chains, their filters and the configuration of those (an `Any`) to where the name of its table of routes stands.
const LISTENER_ASKS: [u8; 6] = [3, 3, 4, 2, 3, 2];

/// Whose types nodes ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Ours, all of each, by delta.
    #[default]
    Heddle,
    /// Envoy's, as an Envoy does.
    Envoy(Form),
}

impl Dialect {
    pub fn form(self) -> Form {
        match self {
            Dialect::Heddle => Form::Delta,
            Dialect::Envoy(form) => form,
        }
    }

    /// `heddle`, `envoy` or `envoy, state of the world`.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Heddle => "heddle",
            Dialect::Envoy(Form::Delta) => "envoy",
            Dialect::Envoy(Form::Sotw) => "envoy, state of the world",
        }
    }

    /// How many resources every node has that has everything. Envoys have all routes in one, and no listener of TLS before there is a certificate.
    pub fn whole(self, size: Size) -> usize {
        let [clear, tls] = OWN_LISTENERS;
        match self {
            Dialect::Heddle => size.routes + 2 * size.upstreams() + clear + tls,
            Dialect::Envoy(_) => 1 + 2 * size.upstreams() + clear,
        }
    }
}

/// What one node has asked for, and what that makes it ask for in turn.
#[derive(Debug)]
pub struct Speaker {
    dialect: Dialect,
    node: Node,
    clusters: Asked,
    endpoints: Asked,
    listeners: Asked,
    routes: Asked,
    /// Endpoints that have not come yet: an Envoy asks for listeners when it has those of all clusters.
    missing: HashSet<Vec<u8>>,
}

/// What was asked for of one type.
#[derive(Debug, Default)]
struct Asked {
    names: HashSet<Vec<u8>>,
    /// All of them.
    all: Names,
    /// Those that were not said yet.
    new: Names,
    open: bool,
    /// What was answered last, which state of the world says again.
    version: Vec<u8>,
    nonce: Vec<u8>,
}

impl Speaker {
    pub fn new(dialect: Dialect, id: String) -> Speaker {
        let program = if dialect == Dialect::Heddle { "" } else { "envoy" };
        let [clusters, endpoints, listeners, routes] = [(); 4].map(|()| Asked::default());
        Speaker { dialect, node: Node { id, program }, clusters, endpoints, listeners, routes, missing: HashSet::new() }
    }

    pub fn form(&self) -> Form {
        self.dialect.form()
    }

    /// The first requests of its stream.
    pub fn begin(&mut self) -> Vec<Bytes> {
        if self.dialect != Dialect::Heddle {
            return vec![self.ask(Kind::Upstream)];
        }
        let mut everything = Names::default();
        everything.push(b"*");
        let hello = |(number, kind): (usize, Kind)| {
            let node = (number == 0).then_some(&self.node);
            let head = Head { type_url: kind.type_url().as_bytes(), ..Head::default() };
            Request { node, head }.write(Form::Delta, &everything)
        };
        Kind::ALL.into_iter().enumerate().map(hello).collect()
    }

    /// Takes a resource. `None`: it is no protobuf.
    pub fn take(&mut self, resource: &Resource<'_>) -> Option<()> {
        match self.kind(resource.type_url)? {
            Kind::Upstream => {
                let mut asks = false;
                wire::at(resource.body, &CLUSTER_ASKS, &mut |_| asks = true)?;
                if asks && self.endpoints.want(resource.name) {
                    self.missing.insert(resource.name.to_vec());
                }
            }
            Kind::Endpoints => drop(self.missing.remove(resource.name)),
            Kind::Listener => wire::at(resource.body, &LISTENER_ASKS, &mut |name| _ = self.routes.want(name))?,
            _ => {}
        }
        Some(())
    }

    /// A resource that was asked for is gone, or was never there.
    pub fn lose(&mut self, head: &Head<'_>, name: &[u8]) {
        if self.kind(head.type_url) == Some(Kind::Endpoints) {
            self.missing.remove(name);
        }
    }

    /// What is said to a response once all of it was taken: what it makes an Envoy ask for, before the ACK.
    pub fn answer(&mut self, head: &Head<'_>) -> Vec<Bytes> {
        let Some(kind) = self.kind(head.type_url).filter(|_| self.dialect != Dialect::Heddle) else {
            return vec![Request { node: None, head: *head }.write(Form::Delta, &Names::default())];
        };
        let mut said = Vec::new();
        for asked in [Kind::Endpoints, Kind::Route] {
            if !self.asked(asked).new.is_empty() {
                said.push(self.ask(asked));
            }
        }
        let form = self.form();
        let asked = self.asked(kind);
        (asked.version, asked.nonce) = (head.version.to_vec(), head.nonce.to_vec());
        let again = if form == Form::Sotw { &asked.all } else { &Names::default() };
        said.push(Request { node: None, head: *head }.write(form, again));
        if self.missing.is_empty() && !self.listeners.open {
            said.push(self.ask(Kind::Listener));
        }
        said
    }

    fn kind(&self, type_url: &[u8]) -> Option<Kind> {
        let types = if self.dialect == Dialect::Heddle { Types::Heddle } else { Types::Envoy };
        types.kind(std::str::from_utf8(type_url).ok()?)
    }

    /// Asks for what is new of a type, or for all of it where nothing is named.
    fn ask(&mut self, kind: Kind) -> Bytes {
        let (form, node) = (self.form(), self.node.clone());
        let asked = self.asked(kind);
        asked.open = true;
        let new = std::mem::take(&mut asked.new);
        let names = if form == Form::Sotw { &asked.all } else { &new };
        let mut head = Head { type_url: Types::Envoy.url(kind).as_bytes(), ..Head::default() };
        if form == Form::Sotw {
            (head.version, head.nonce) = (&asked.version, &asked.nonce);
        }
        // Clusters are what an Envoy asks for first.
        Request { node: Some(&node).filter(|_| kind == Kind::Upstream), head }.write(form, names)
    }

    fn asked(&mut self, kind: Kind) -> &mut Asked {
        match kind {
            Kind::Upstream => &mut self.clusters,
            Kind::Endpoints => &mut self.endpoints,
            Kind::Listener => &mut self.listeners,
            _ => &mut self.routes,
        }
    }
}

impl Asked {
    /// Whether it was not asked for before.
    fn want(&mut self, name: &[u8]) -> bool {
        let is_new = !self.names.contains(name);
        if is_new {
            self.names.insert(name.to_vec());
            self.all.push(name);
            self.new.push(name);
        }
        is_new
    }
}
