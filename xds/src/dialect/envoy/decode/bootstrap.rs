//! The file that an Envoy starts with: who it is, what it holds itself, and whom it follows. It reads no file.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::cluster::endpoints::address;
use super::piece::Addresses;
use super::read::{Fault, Fields, Read, from_bytes, message};
use super::{Piece, decode, name_of};
use crate::dialect::envoy::kind::EnvoyKind;

/// Fields that say nothing about what is done with requests: statistics, logs, what watches the process.
const IGNORED: [&str; 22] = [
    "stats_sinks",
    "stats_config",
    "stats_flush_interval",
    "stats_flush_on_admin",
    "stats_server_version_override",
    "watchdog",
    "watchdogs",
    "tracing",
    "overload_manager",
    "enable_dispatcher_stats",
    "header_prefix",
    "use_tcp_for_dns_lookups",
    "dns_resolution_config",
    "typed_dns_resolver_config",
    "cluster_manager",
    "layered_runtime",
    "flags_path",
    "application_log_config",
    "grpc_async_client_manager_config",
    "memory_allocator_manager",
    "default_socket_interface",
    "node_context_params",
];

/// What a bootstrap says.
#[derive(Debug, Clone, PartialEq)]
pub struct Bootstrap {
    /// Id of the node, where it is said.
    pub id: Option<Arc<str>>,
    /// The group of nodes that it belongs to.
    pub cluster: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Where its own endpoint listens.
    pub admin: Option<SocketAddr>,
    /// What it holds itself.
    pub statics: Vec<Piece>,
    /// Whom it follows.
    pub follows: Option<Follows>,
}

/// Whom a node follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follows {
    /// Host and port.
    pub authority: String,
    /// Whether only differences are told.
    pub delta: bool,
    /// Kinds that are asked for as a whole.
    pub kinds: Vec<EnvoyKind>,
}

/// Reads a bootstrap.
///
/// # Errors
/// Every resource with its first fault, and the first fault outside of them.
pub fn read(tree: &Value) -> Result<Bootstrap, Vec<Fault>> {
    let mut faults = Vec::new();
    let outcome = message(tree, |fields| whole(fields, &mut faults));
    match (outcome, faults.is_empty()) {
        (Ok(bootstrap), true) => Ok(bootstrap),
        (Ok(_), false) => Err(faults),
        (Err(fault), _) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

/// How the control plane is asked, before it is known where the cluster is by which it is reached.
struct Ads<'t> {
    cluster: &'t str,
    delta: bool,
}

fn whole(fields: &mut Fields<'_>, faults: &mut Vec<Fault>) -> Read<Bootstrap> {
    fields.ignore(&IGNORED);
    for name in [
        "hds_config",
        "xds_config_tracker_extension",
        "xds_delegate_extension",
        "config_sources",
        "default_config_source",
        "listener_manager",
        "inline_headers",
        "perf_tracing_file_path",
        "fatal_actions",
        "bootstrap_extensions",
        "certificate_provider_instances",
    ] {
        fields.refuse(name, "is not supported")?;
    }
    let (id, cluster, zone) = fields.message("node", node)?.unwrap_or_default();
    let admin = fields.message("admin", |admin| {
        admin.ignore(&[
            "access_log",
            "access_log_path",
            "profile_path",
            "socket_options",
            "ignore_global_conn_limit",
            "allow_paths",
        ]);
        let socket = admin.message("address", address)?;
        socket
            .map(|(host, port)| {
                host.parse().map(|ip| SocketAddr::new(ip, port)).map_err(|_| Fault::new("address", "expected an IP address"))
            })
            .transpose()
    })?;
    let statics = statics(fields, faults)?;
    let dynamic = fields.message("dynamic_resources", |dynamic| {
        let ads = dynamic.message("ads_config", ads)?;
        let mut kinds = Vec::new();
        for (field, kind) in [("cds_config", EnvoyKind::Cluster), ("lds_config", EnvoyKind::Listener)] {
            if dynamic.message(field, super::source::read)?.is_some() {
                kinds.push(kind);
            }
        }
        dynamic.refuse("lds_resources_locator", "is not supported: use lds_config")?;
        dynamic.refuse("cds_resources_locator", "is not supported: use cds_config")?;
        Ok((ads, kinds))
    })?;
    let follows = match dynamic {
        Some((Some(ads), kinds)) => {
            Some(follows(&ads, kinds, &statics).map_err(|fault| fault.inside("dynamic_resources.ads_config"))?)
        }
        Some((None, kinds)) if !kinds.is_empty() => {
            return Err(Fault::new("dynamic_resources.ads_config", "is missing: listeners and clusters are asked for over ADS"));
        }
        _ => None,
    };
    Ok(Bootstrap { id, cluster, zone, admin: admin.flatten(), statics, follows })
}

/// What a bootstrap holds itself; a fault of one resource does not hide those of others.
fn statics(fields: &mut Fields<'_>, faults: &mut Vec<Fault>) -> Read<Vec<Piece>> {
    let mut statics = Vec::new();
    fields.message("static_resources", |resources| {
        for (field, kind) in
            [("secrets", EnvoyKind::Secret), ("clusters", EnvoyKind::Cluster), ("listeners", EnvoyKind::Listener)]
        {
            let place = |at: usize, name: Option<Arc<str>>| {
                format!("static_resources.{field}[{at}] {}", name.map(|name| format!("({name})")).unwrap_or_default())
            };
            for (at, value) in resources.values(field, Ok)?.into_iter().enumerate() {
                match decode(kind, value) {
                    Ok(piece) => statics.push(piece),
                    Err(fault) => faults.push(fault.inside(place(at, name_of(kind, value)).trim_end())),
                }
            }
        }
        Ok(())
    })?;
    Ok(statics)
}

type Who = (Option<Arc<str>>, Option<Arc<str>>, Option<Arc<str>>);

fn node(fields: &mut Fields<'_>) -> Read<Who> {
    fields.ignore(&[
        "metadata",
        "user_agent_name",
        "user_agent_version",
        "user_agent_build_version",
        "extensions",
        "client_features",
        "listening_addresses",
        "dynamic_parameters",
    ]);
    let zone = fields.message("locality", |locality| {
        locality.ignore(&["region", "sub_zone"]);
        Ok(locality.text("zone")?.map(Arc::from))
    })?;
    Ok((fields.text("id")?.map(Arc::from), fields.text("cluster")?.map(Arc::from), zone.flatten()))
}

/// Reads an `ApiConfigSource`.
fn ads<'t>(fields: &mut Fields<'t>) -> Read<Ads<'t>> {
    let delta = fields.choice(
        "api_type",
        &[("GRPC", 2, false), ("DELTA_GRPC", 3, true), ("AGGREGATED_GRPC", 5, false), ("AGGREGATED_DELTA_GRPC", 6, true)],
    )?;
    fields.choice("transport_api_version", &[("V3", 2, ()), ("AUTO", 0, ())])?;
    fields.ignore(&["set_node_on_first_message_only", "rate_limit_settings", "request_timeout", "refresh_delay"]);
    fields.refuse("config_validators", "is not supported")?;
    fields.refuse("cluster_names", "REST is not supported: use grpc_services")?;
    let services = fields.list("grpc_services", |service| {
        service.ignore(&["timeout", "retry_policy"]);
        service.refuse("google_grpc", "is not supported: use envoy_grpc")?;
        service.refuse("initial_metadata", "is not supported")?;
        service.required("envoy_grpc", |grpc| {
            grpc.ignore(&["retry_policy", "max_receive_message_length", "skip_envoy_headers"]);
            grpc.refuse("authority", "is not supported")?;
            grpc.text("cluster_name")?.ok_or_else(|| Fault::new("cluster_name", "must not be empty"))
        })
    })?;
    match services.as_slice() {
        [cluster] => Ok(Ads { cluster, delta: delta.ok_or_else(|| Fault::new("api_type", "is missing"))? }),
        _ => Err(Fault::new("grpc_services", "expected exactly one")),
    }
}

fn follows(ads: &Ads<'_>, kinds: Vec<EnvoyKind>, statics: &[Piece]) -> Read<Follows> {
    let found = statics.iter().find_map(|piece| match piece {
        Piece::Cluster(cluster) if *cluster.upstream.name == *ads.cluster => Some(cluster),
        _ => None,
    });
    let cluster = found.ok_or_else(|| Fault::new("grpc_services", format!("there is no static cluster {}", ads.cluster)))?;
    let Addresses::Told(endpoints) = &cluster.addresses else {
        return Err(Fault::new("grpc_services", format!("the cluster {} must say its endpoints itself", ads.cluster)));
    };
    if cluster.upstream.scheme.is_tls() {
        return Err(Fault::new(
            "grpc_services",
            "TLS to the control plane is not taken from a bootstrap: use controlplane.address with https:// in heddle.yaml",
        ));
    }
    let [endpoint] = endpoints.as_slice() else {
        return Err(Fault::new("grpc_services", format!("expected one endpoint of the cluster {}", ads.cluster)));
    };
    let host = if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.to_string() };
    Ok(Follows { authority: format!("{host}:{}", endpoint.port), delta: ads.delta, kinds })
}

/// Puts the content of files in the places where a bootstrap names them, which only its own machine can: certificates, keys, roots and bodies.
///
/// # Errors
/// A file cannot be read; `read` says why.
pub fn inline_files(tree: &mut Value, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Read<()> {
    const PLACES: [&str; 10] = [
        "certificate_chain",
        "certificateChain",
        "private_key",
        "privateKey",
        "trusted_ca",
        "trustedCa",
        "body",
        "ocsp_staple",
        "crl",
        "secret",
    ];
    match tree {
        Value::Object(map) => {
            for (name, value) in map {
                let file = value.get("filename").and_then(Value::as_str).filter(|_| PLACES.contains(&name.as_str()));
                match file {
                    Some(file) => {
                        let content = read(file).map_err(|reason| Fault::new(format!("{name}.filename"), reason))?;
                        *value = serde_json::json!({"inline_bytes": from_bytes(&content)});
                    }
                    None => inline_files(value, read).map_err(|fault| fault.inside(name))?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(at, item)| inline_files(item, read).map_err(|fault| fault.inside(&format!("[{at}]")))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::super::read::bytes;
    use super::*;

    fn minimal() -> Value {
        json!({
            "node": {"id": "n1", "cluster": "edge", "locality": {"zone": "z"}},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "dynamic_resources": {
                "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_cluster"}}]},
                "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"},
                "cds_config": {"ads": {}, "resource_api_version": "V3"},
            },
            "static_resources": {"clusters": [{
                "name": "xds_cluster", "type": "STATIC", "connect_timeout": "1s",
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }},
                "load_assignment": {"cluster_name": "xds_cluster", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 18000}}}}]}]},
            }]},
        })
    }

    #[test]
    fn a_usual_bootstrap_says_who_and_whom() {
        let bootstrap = read(&minimal()).unwrap();
        assert_eq!(
            (bootstrap.id.as_deref(), bootstrap.cluster.as_deref(), bootstrap.zone.as_deref()),
            (Some("n1"), Some("edge"), Some("z"))
        );
        assert_eq!(bootstrap.admin, Some("127.0.0.1:0".parse().unwrap()));
        let follows = bootstrap.follows.unwrap();
        assert_eq!((follows.authority.as_str(), follows.delta), ("127.0.0.1:18000", true));
        assert_eq!(follows.kinds, [EnvoyKind::Cluster, EnvoyKind::Listener]);
    }

    #[test]
    fn all_faults_are_told_at_once_with_their_places() {
        let mut tree = minimal();
        tree["static_resources"]["clusters"][0]["lb_policy"] = "CLUSTER_PROVIDED".into();
        tree["static_resources"]["listeners"] = json!([{"name": "l", "address": {"pipe": {"path": "/x"}}}]);
        tree["hds_config"] = json!({});
        let faults = read(&tree).unwrap_err();
        let told: Vec<String> = faults.iter().map(|fault| fault.field.clone()).collect();
        assert_eq!(told, ["hds_config"], "what is outside of resources is told first");
        tree.as_object_mut().unwrap().remove("hds_config");
        let told: Vec<String> = read(&tree).unwrap_err().iter().map(|fault| fault.field.clone()).collect();
        assert_eq!(
            told[..2],
            ["static_resources.clusters[0] (xds_cluster).lb_policy", "static_resources.listeners[0] (l).address.pipe"]
        );
    }

    #[test]
    fn files_of_a_bootstrap_are_put_in_their_places() {
        let mut tree = json!({"a": [{"private_key": {"filename": "/k"}, "filename": "stays"}]});
        inline_files(&mut tree, &|file| Ok(file.as_bytes().to_vec())).unwrap();
        let inline = tree["a"][0]["private_key"]["inline_bytes"].as_str().unwrap();
        assert_eq!((bytes(inline).unwrap(), tree["a"][0]["filename"].as_str()), (b"/k".to_vec(), Some("stays")));
        let fault =
            inline_files(&mut json!({"a": [{"trusted_ca": {"filename": "/no"}}]}), &|_| Err("gone".to_owned())).unwrap_err();
        assert_eq!(fault.field, "a[0].trusted_ca.filename");
    }
}
