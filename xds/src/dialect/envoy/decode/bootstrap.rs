//! The file that an Envoy starts with: who it is, what it holds itself, and whom it follows. It reads no file.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use heddle_node::settings::named;
use serde_json::{Map, Value};

use super::cluster::endpoints::address;
use super::piece::{Addresses, Assignment, Cluster};
use super::read::{Fault, Fields, Read, from_bytes, message};
use super::{Piece, decode, name_of};
use crate::dialect::envoy::kind::EnvoyKind;
use crate::link::Named;
use crate::model::{Secret, SecretBody};

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
    /// Who starts with it.
    pub node: BootstrapNode,
    /// Where its own endpoint listens.
    pub admin: Option<SocketAddr>,
    /// What it holds itself.
    pub statics: Vec<Piece>,
    /// Whom it follows.
    pub follows: Option<Follows>,
}

/// Who starts with a bootstrap.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BootstrapNode {
    /// Its id, where it is said.
    pub id: Option<Arc<str>>,
    /// The group of nodes that it belongs to.
    pub cluster: Option<Arc<str>>,
    /// Its region.
    pub region: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// A part of its zone.
    pub sub_zone: Option<Arc<str>>,
    /// What else control planes tell it by.
    pub metadata: Map<String, Value>,
}

/// Whom a node follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follows {
    /// Host and port of each, of which one is enough.
    pub authorities: Vec<String>,
    /// How they are known; `None` in clear.
    pub tls: Option<Named>,
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
    let node = fields.message("node", node)?.unwrap_or_default();
    let admin = fields.message("admin", admin)?;
    let (statics, refused) = statics(fields, faults)?;
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
        // What is wrong with its cluster is told already.
        Some((Some(ads), _)) if refused.iter().any(|name| **name == *ads.cluster) => None,
        Some((Some(ads), kinds)) => {
            Some(follows(&ads, kinds, &statics).map_err(|fault| fault.inside("dynamic_resources.ads_config"))?)
        }
        Some((None, kinds)) if !kinds.is_empty() => {
            return Err(Fault::new("dynamic_resources.ads_config", "is missing: listeners and clusters are asked for over ADS"));
        }
        _ => None,
    };
    Ok(Bootstrap { node, admin: admin.flatten(), statics, follows })
}

/// Where the admin listens.
fn admin(fields: &mut Fields<'_>) -> Read<Option<SocketAddr>> {
    fields.ignore(&[
        "access_log",
        "access_log_path",
        "profile_path",
        "socket_options",
        "ignore_global_conn_limit",
        "allow_paths",
    ]);
    let Some((host, port)) = fields.message("address", address)? else { return Ok(None) };
    let ip: IpAddr = host.parse().map_err(|_| Fault::new("address", "expected an IP address"))?;
    Ok(Some(SocketAddr::new(ip.to_canonical(), port)))
}

/// What a bootstrap holds itself, and the names of clusters that are refused; a fault of one resource does not hide those of others.
fn statics(fields: &mut Fields<'_>, faults: &mut Vec<Fault>) -> Read<(Vec<Piece>, Vec<Arc<str>>)> {
    let (mut statics, mut refused) = (Vec::new(), Vec::new());
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
                    Err(fault) => {
                        let name = name_of(kind, value);
                        refused.extend(name.clone().filter(|_| kind == EnvoyKind::Cluster));
                        faults.push(fault.inside(place(at, name).trim_end()));
                    }
                }
            }
        }
        Ok(())
    })?;
    Ok((statics, refused))
}

fn node(fields: &mut Fields<'_>) -> Read<BootstrapNode> {
    fields.ignore(&[
        "user_agent_name",
        "user_agent_version",
        "user_agent_build_version",
        "extensions",
        "client_features",
        "listening_addresses",
        "dynamic_parameters",
    ]);
    let text = |fields: &mut Fields<'_>, name: &str| fields.text(name).map(|text| text.map(Arc::<str>::from));
    let place = |locality: &mut Fields<'_>| Ok((text(locality, "region")?, text(locality, "zone")?, text(locality, "sub_zone")?));
    let (region, zone, sub_zone) = fields.message("locality", place)?.unwrap_or_default();
    let metadata = fields.map("metadata")?.map(|(name, value)| (name.clone(), value.clone())).collect();
    let id = text(fields, "id")?;
    for (field, name) in [("id", &id), ("locality.zone", &zone)] {
        // As `heddle.yaml` may say it: whoever tells nodes apart by it would stumble.
        name.iter().try_for_each(|name| named(name).map_err(|expected| Fault::new(field, expected)))?;
    }
    Ok(BootstrapNode { id, cluster: text(fields, "cluster")?, region, zone, sub_zone, metadata })
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
    let Addresses::Told(Assignment { endpoints, .. }) = &cluster.addresses else {
        return Err(Fault::new("grpc_services", format!("the cluster {} must say its endpoints itself", ads.cluster)));
    };
    if endpoints.is_empty() {
        return Err(Fault::new("grpc_services", format!("the cluster {} has no endpoint", ads.cluster)));
    }
    let tls = cluster.upstream.scheme.is_tls().then(|| known(cluster, statics)).transpose()?;
    let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let authorities = endpoints.iter().map(|one| format!("{}:{}", bracketed(&one.host), one.port)).collect();
    Ok(Follows { authorities, tls, delta: ads.delta, kinds })
}

/// How the control plane is known over TLS. Only what the bootstrap has itself can be meant: whoever hands out secrets is reached by it.
fn known(cluster: &Cluster, statics: &[Piece]) -> Read<Named> {
    let missing = |reason: String| Fault::new("grpc_services", format!("TLS of the cluster {}: {reason}", cluster.upstream.name));
    let find = |name: &Arc<str>| -> Read<&SecretBody> {
        let of_others = statics.iter().filter_map(|piece| match piece {
            Piece::Secret(secret) => Some(&**secret),
            _ => None,
        });
        let found = cluster.secrets.iter().chain(of_others).find(|secret: &&Secret| secret.name == *name);
        found.map(|secret| &secret.body).ok_or_else(|| missing(format!("the bootstrap has no secret {name}")))
    };
    let tls = &cluster.upstream.tls;
    let roots = tls.ca.as_ref().ok_or_else(|| missing("trusted_ca is missing: whoever answers would be believed".to_owned()))?;
    let SecretBody::Roots(roots) = find(roots)? else {
        return Err(missing(format!("the secret {roots} is no validation_context")));
    };
    let pair = match tls.client_cert.as_ref().map(|name| Ok((name, find(name)?))).transpose()? {
        None => None,
        Some((_, SecretBody::KeyPair { chain_pem, key_pem })) => Some((chain_pem.clone(), key_pem.clone())),
        Some((name, _)) => return Err(missing(format!("the secret {name} is no tls_certificate"))),
    };
    Ok(Named { roots: roots.clone(), pair, name: tls.sni.clone() })
}

/// Puts the content of files in the places where a bootstrap names them, which only its own machine can: certificates, keys, roots, bodies and sets of keys (JWKS).
///
/// # Errors
/// A file cannot be read; `read` says why.
pub fn inline_files(tree: &mut Value, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Read<()> {
    const PLACES: [&str; 12] = [
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
        "local_jwks",
        "localJwks",
    ];
    const INSTEAD: [&str; 6] =
        ["inline_bytes", "inlineBytes", "inline_string", "inlineString", "environment_variable", "environmentVariable"];
    match tree {
        Value::Object(map) => {
            for (name, value) in map {
                let file = value.get("filename").and_then(Value::as_str).filter(|_| PLACES.contains(&name.as_str()));
                match file {
                    Some(file) => {
                        if let Some(beside) = INSTEAD.iter().find(|field| value.get(**field).is_some()) {
                            return Err(Fault::new(name.as_str(), format!("expected exactly one of filename and {beside}")));
                        }
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
            "node": {"id": "n1", "cluster": "edge", "locality": {"zone": "z", "sub_zone": "rack-1"}, "metadata": {"TEAM": "shop"}},
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
        let node = &bootstrap.node;
        assert_eq!((node.id.as_deref(), node.cluster.as_deref(), node.zone.as_deref()), (Some("n1"), Some("edge"), Some("z")));
        assert_eq!(bootstrap.admin, Some("127.0.0.1:0".parse().unwrap()));
        assert_eq!((node.sub_zone.as_deref(), &node.metadata["TEAM"]), (Some("rack-1"), &json!("shop")));
        let follows = bootstrap.follows.unwrap();
        assert_eq!((follows.authorities, follows.delta, follows.tls), (vec!["127.0.0.1:18000".to_owned()], true, None));
        assert_eq!(follows.kinds, [EnvoyKind::Cluster, EnvoyKind::Listener]);
    }

    #[test]
    fn a_node_is_called_as_its_settings_may_call_it() {
        for (field, pointer) in [("node.id", "/node/id"), ("node.locality.zone", "/node/locality/zone")] {
            for odd in ["edge 1", "edge\n", &"e".repeat(129)] {
                let mut tree = minimal();
                *tree.pointer_mut(pointer).unwrap() = odd.into();
                let fault = read(&tree).unwrap_err().remove(0);
                assert_eq!(
                    (fault.field.as_str(), fault.reason.as_str()),
                    (field, "expected a name of at most 128 bytes without spaces")
                );
            }
        }
    }

    #[test]
    fn tls_to_the_control_plane_is_that_of_its_cluster() {
        let mut tree = minimal();
        let context = |context: Value| {
            let mut tls = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"});
            tls.as_object_mut().unwrap().extend(context.as_object().unwrap().clone());
            json!({"name": "envoy.transport_sockets.tls", "typed_config": tls})
        };
        let cluster = |tree: &mut Value, tls: Value| tree["static_resources"]["clusters"][0]["transport_socket"] = context(tls);
        cluster(
            &mut tree,
            json!({"sni": "control.example", "common_tls_context": {
                "validation_context": {"trusted_ca": {"inline_string": "ROOTS"}},
                "tls_certificate_sds_secret_configs": [{"name": "own"}],
            }}),
        );
        let fault = read(&tree).unwrap_err().remove(0);
        assert!(fault.reason.contains("the bootstrap has no secret own"), "{fault:?}");
        let pair = json!({"certificate_chain": {"inline_string": "CHAIN"}, "private_key": {"inline_string": "KEY"}});
        tree["static_resources"]["secrets"] = json!([{"name": "own", "tls_certificate": pair}]);
        let tls = read(&tree).unwrap().follows.unwrap().tls.unwrap();
        let expected =
            Named { roots: "ROOTS".into(), pair: Some(("CHAIN".into(), "KEY".into())), name: Some("control.example".into()) };
        assert!(tls == expected, "{tls:?}");
        cluster(&mut tree, json!({}));
        assert!(read(&tree).unwrap_err()[0].reason.contains("trusted_ca is missing"));
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
        let both = ["static_resources.clusters[0] (xds_cluster).lb_policy", "static_resources.listeners[0] (l).address.pipe"];
        assert_eq!(told, both, "nobody says of a cluster that is refused that it is not there");
        tree["static_resources"]["clusters"] = json!([]);
        let told: Vec<String> = read(&tree).unwrap_err().iter().map(|fault| fault.reason.clone()).collect();
        assert_eq!(told[1..], ["there is no static cluster xds_cluster"]);
    }

    #[test]
    fn files_of_a_bootstrap_are_put_in_their_places() {
        let mut keys = json!({"providers": {"p": {"local_jwks": {"filename": "/k"}}}, "key": {"localJwks": {"filename": "/k"}}});
        inline_files(&mut keys, &|_| Ok(b"{}".to_vec())).unwrap();
        let inline = json!({"inline_bytes": from_bytes(b"{}")});
        assert_eq!(keys, json!({"providers": {"p": {"local_jwks": inline}}, "key": {"localJwks": inline}}));
        let mut tree = json!({"a": [{"private_key": {"filename": "/k"}, "filename": "stays"}]});
        inline_files(&mut tree, &|file| Ok(file.as_bytes().to_vec())).unwrap();
        let inline = tree["a"][0]["private_key"]["inline_bytes"].as_str().unwrap();
        assert_eq!((bytes(inline).unwrap(), tree["a"][0]["filename"].as_str()), (b"/k".to_vec(), Some("stays")));
        let fault =
            inline_files(&mut json!({"a": [{"trusted_ca": {"filename": "/no"}}]}), &|_| Err("gone".to_owned())).unwrap_err();
        assert_eq!(fault.field, "a[0].trusted_ca.filename");
        let mut both = json!({"trusted_ca": {"filename": "/k", "inline_string": "a"}});
        let fault = inline_files(&mut both, &|_| panic!("nothing is read")).unwrap_err();
        assert_eq!((&*fault.field, &*fault.reason), ("trusted_ca", "expected exactly one of filename and inline_string"));
    }
}
