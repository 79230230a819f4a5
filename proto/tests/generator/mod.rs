//! From `.proto` files to the text of Rust modules; shared by the example that writes them and the test that compares them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// Files that nothing else imports.
const ROOTS: [&str; 16] = [
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
    "envoy/service/discovery/v3/ads.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/service/secret/v3/sds.proto",
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
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    config.enable_type_names();
    config.type_name_domain(["."], "type.googleapis.com");
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds_with_config(descriptors()?, config)?;
    let mut modules = BTreeMap::new();
    for entry in std::fs::read_dir(folder.path())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let package = match name.trim_end_matches(".rs") {
            NAMELESS => "spiffe.workload".to_owned(),
            package @ ("etcdserverpb" | "mvccpb") => format!("etcd.{package}"),
            package => package.to_owned(),
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
    for name in ROOTS {
        for file in protox::compile([name], [&include])?.file {
            let name = file.name().to_string();
            if files.insert(name.clone(), file).is_none() {
                order.push(name);
            }
        }
    }
    Ok(FileDescriptorSet { file: order.iter().filter_map(|name| files.remove(name)).collect() })
}
