//! From `.proto` files to the text of Rust modules; shared by the example that writes them and the test that compares them.

mod shapes;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// Files that nothing else imports.
const ROOTS: &[&str] = &[
    "heddle/config/v1/certificate.proto",
    "heddle/config/v1/consumer.proto",
    "heddle/config/v1/global_rule.proto",
    "heddle/config/v1/listener.proto",
    "heddle/config/v1/mesh.proto",
    "heddle/config/v1/plugin_metadata.proto",
    "heddle/config/v1/upstream.proto",
    "heddle/admin/v1/admin.proto",
    "heddle/admin/v1/authority.proto",
    "heddle/identity/v1/identity.proto",
    "envoy/config/core/v3/substitution_format_string.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/extensions/compression/brotli/compressor/v3/brotli.proto",
    "envoy/extensions/compression/gzip/compressor/v3/gzip.proto",
    "envoy/extensions/compression/zstd/compressor/v3/zstd.proto",
    "envoy/extensions/filters/http/api_key_auth/v3/api_key_auth.proto",
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/compressor/v3/compressor.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/csrf/v3/csrf.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_metadata/v3/set_metadata.proto",
    "envoy/extensions/filters/http/upstream_codec/v3/upstream_codec.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/spiffe.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/load_stats/v3/lrs.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/status/v3/csds.proto",
    "spiffe/workload.proto",
    "etcd/rpc.proto",
];

/// What the generator calls the package of files that name none; only the SPIFFE Workload API does.
const NAMELESS: &str = "_";

/// The folder of the crate.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// Every generated module: its path below `src/gen` and its text.
pub(crate) fn generate() -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let descriptors = descriptors()?;
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds_with_config(descriptors.clone(), config)?;
    let mut modules = BTreeMap::new();
    modules.insert("envoy/shapes.rs".to_owned(), shapes::generate(&descriptors));
    for entry in std::fs::read_dir(folder.path())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let package = match name.trim_end_matches(".rs") {
            NAMELESS => "spiffe.workload".to_owned(),
            package @ ("etcdserverpb" | "mvccpb") => format!("etcd.{package}"),
            // The generator writes a segment that is a keyword raw; its folder is not.
            package => package.replace("r#", ""),
        };
        let text = std::fs::read_to_string(entry.path())?;
        let text = format!("//! Package `{package}`, generated from `proto/`; it knows nothing else of Heddle.\n\n{text}");
        modules.insert(format!("{}.rs", package.replace('.', "/")), text);
    }
    Ok(modules)
}

/// Each root is compiled by itself and the sets are merged by file name: in one call, protox resolves relative names against packages
/// of files that are not imported.
fn descriptors() -> Result<FileDescriptorSet, Box<dyn Error>> {
    let include = root().join("proto");
    let mut files = BTreeMap::new();
    let mut order = Vec::new();
    for &name in ROOTS {
        for file in protox::compile([name], [&include])?.file {
            let name = file.name().to_string();
            if files.insert(name.clone(), file).is_none() {
                order.push(name);
            }
        }
    }
    Ok(FileDescriptorSet { file: order.iter().filter_map(|name| files.remove(name)).collect() })
}
