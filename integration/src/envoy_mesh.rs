//! Real Envoys that are members of a mesh: each has an agent beside it that keeps its identity, and a control plane that knows it by that.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use crate::certificates::Files;
use crate::envoy::{Envoy, Way, bootstrap};
use crate::heddle::{Heddle, Setup};
use crate::mesh::{DOMAIN, Mesh, Node};
use crate::process::until;

/// An Envoy with the agent beside it.
pub struct Member {
    pub envoy: Envoy,
    /// Where it takes what others send to its service.
    pub inbound: SocketAddr,
    /// Where its application reaches the services that it calls, in the order in which they were named.
    pub outbound: Vec<SocketAddr>,
    _keeper: Node,
}

/// A story of a control plane and an Envoy that follows it as a gateway, which both ways to speak xDS have to tell the same.
pub fn in_clear(story: impl Fn(&mut Heddle, &Envoy)) {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mut heddle = Heddle::control_plane(Setup::default());
        let envoy = Envoy::follow(heddle.xds, "envoy-1", way);
        story(&mut heddle, &envoy);
    }
}

/// The same over mutual TLS, by an identity.
pub fn over_mutual_tls(story: impl Fn(&mut Heddle, &Envoy)) {
    for way in [Way::DeltaAds, Way::SotwAds] {
        let mut mesh = Mesh::start("");
        let gateway = mesh.envoy_gateway(way);
        story(&mut mesh.control, &gateway.envoy);
    }
}

/// A story of a control plane that Envoys ask as gateways, in clear and over mutual TLS, by the way and what they prove themselves with.
pub fn each_way(story: impl Fn(&Heddle, Way, Option<(&str, &Files)>)) {
    for way in [Way::DeltaAds, Way::SotwAds] {
        story(&Heddle::control_plane(Setup::default()), way, None);
        let (mesh, _keeper, files) = Mesh::demanding("gateway");
        story(&mesh.control, way, Some((&control(), &files)));
    }
}

/// Who control planes are.
pub fn control() -> String {
    format!("spiffe://{DOMAIN}/ns/heddle/svc/controlplane")
}

impl Mesh {
    /// One whose control plane demands certificates on loopback as it does beyond it, and the files in which an agent keeps the identity of a service.
    pub fn demanding(service: &str) -> (Mesh, Node, Files) {
        let mesh = Mesh::with(Setup { xds: ", tls: required".into(), ..Setup::default() }, "");
        let folder = mesh.control.place.path("identity");
        let keeper = mesh.keeper("keeper", service, &format!("files: \"{}\"", folder.display()));
        let [chain, key, roots] = ["svid.pem", "svid.key", "bundle.pem"].map(|name| folder.join(name));
        until("the identity in files", || chain.exists().then_some(()));
        (mesh, keeper, Files { chain, key, roots })
    }

    /// An Envoy beside an application of a service, which speaks HTTP and calls others.
    pub fn envoy_sidecar(&self, way: Way, service: &str, application: Option<SocketAddr>, calls: &[&str]) -> Member {
        self.envoy_sidecar_of(way, (service, "http"), application, calls)
    }

    /// The same for one that speaks something else.
    pub fn envoy_sidecar_of(
        &self,
        way: Way,
        (service, protocol): (&str, &str),
        application: Option<SocketAddr>,
        calls: &[&str],
    ) -> Member {
        let place = &self.control.place;
        let (inbound, outbound) = (place.address(), calls.iter().map(|_| place.address()).collect::<Vec<_>>());
        let mut metadata = json!({ "role": "sidecar" });
        if let Some(application) = application {
            metadata["application"] = json!(application);
            metadata["instance"] = json!({ "address": inbound.ip(), "port": inbound.port(), "protocol": protocol });
        }
        let called = calls.iter().zip(&outbound).map(|(service, at)| ((*service).to_owned(), json!(at)));
        metadata["outbound"] = Value::Object(called.collect::<Map<_, _>>());
        self.envoy_member(way, &format!("{service}-envoy"), service, metadata, (inbound, outbound))
    }

    /// An Envoy as gateway; it serves `self.control.http`.
    pub fn envoy_gateway(&self, way: Way) -> Member {
        let metadata = json!({ "role": "gateway", "identity": true });
        self.envoy_member(way, "envoy-1", "gateway", metadata, (self.control.http, Vec::new()))
    }

    /// An Envoy that says this of itself, with the identity of a service.
    pub fn envoy_member(
        &self,
        way: Way,
        id: &str,
        service: &str,
        metadata: Value,
        (inbound, outbound): (SocketAddr, Vec<SocketAddr>),
    ) -> Member {
        let socket = self.control.place.path(&format!("{id}.sock"));
        let keeper = self.keeper(&format!("{id}-keeper"), service, &format!("workload_api: \"{}\"", socket.display()));
        let mut bootstrap = bootstrap(self.control.xds, id, way);
        bootstrap["node"] = json!({ "id": id, "cluster": service, "metadata": metadata });
        let clusters = &mut bootstrap["static_resources"]["clusters"];
        let mut agent = clusters[0].clone();
        agent["name"] = json!("heddle_agent");
        agent["load_assignment"] = json!({ "cluster_name": "heddle_agent", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "pipe": { "path": socket } },
        } }] }] });
        clusters[0]["transport_socket"] = as_member();
        clusters.as_array_mut().unwrap().push(agent);
        Member { envoy: Envoy::start(&bootstrap.to_string()), inbound, outbound, _keeper: keeper }
    }
}

/// Mutual TLS with the control plane, by what the agent beside the Envoy serves.
fn as_member() -> Value {
    let secret = |name: &str| {
        json!({ "name": name, "sds_config": { "resource_api_version": "V3", "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "heddle_agent" } }],
        } } })
    };
    let control = control();
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [secret("default")],
            "combined_validation_context": {
                "default_validation_context": {
                    "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": control } }],
                },
                "validation_context_sds_secret_config": secret("ROOTCA"),
            },
        },
    } })
}
