//! The command line: what can be said, with help that a newcomer can act on. It only describes; nothing is done here.

mod identity;
mod node;
mod rollout;
mod store;

use std::convert::Infallible;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use heddle_controlplane::model::ResourceKind;

pub use identity::{CaArgs, CaCommand, TokenArgs, TokenCommand};
pub use node::{EndpointsArgs, MembersArgs, MeshArgs, MeshCommand, Shape};
pub use rollout::{RolloutArgs, RolloutCommand};
pub use store::{Over, StoreArgs, StoreCommand};

/// Gateway fleet and service mesh in one binary.
#[derive(Debug, Parser)]
#[command(name = "heddle", version, about = "Gateway fleet and service mesh in one binary", long_about = None, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong, 3 diff found changes.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process: control plane, store, file provider and gateway
    Run(RunArgs),
    /// Run the control plane alone; agents connect over xDS
    Controlplane(ConfigArgs),
    /// Run an agent alone; it takes its configuration from a control plane
    Agent(AgentArgs),
    /// Check configuration and resources without starting anything
    Validate(ValidateArgs),
    /// Put the resources of a file, all or none
    Apply(ApplyArgs),
    /// Show resources
    Get(GetArgs),
    /// Remove a resource
    Delete(DeleteArgs),
    /// Show what an apply would change
    Diff(DiffArgs),
    /// Show past revisions
    History(HistoryArgs),
    /// Return to a past revision, as a new revision
    Rollback(RollbackArgs),
    /// Show connected agents, the versions they hold and what they refused
    Nodes(NodesArgs),
    /// Show how new versions spread over the nodes, and what is held since one refused it; give it to all
    Rollout(RolloutArgs),
    /// Show how the endpoints of an agent's upstreams stand, why, since when, and who checks them
    Endpoints(EndpointsArgs),
    /// Show the members of the fleet: their state, zone, version and load, as one node sees them
    Members(MembersArgs),
    /// Show the services of the mesh and their instances, as a control plane knows them
    Mesh(MeshArgs),
    /// Look at the certificate authority of the mesh, and replace its root
    Ca(CaArgs),
    /// Make one-time tokens by which services join the mesh
    Token(TokenArgs),
    /// Back a store up, restore it, or move it to another one
    Store(StoreArgs),
    /// Show which route a request would take, why the others would not, and which plugins run
    Explain(ExplainArgs),
    /// Put a sidecar into Kubernetes objects, systemd units, Nomad jobs or Consul registrations
    Inject(Box<crate::inject::InjectArgs>),
    /// Ask the agent on this host to drain
    Drain(crate::drain::DrainArgs),
    /// Turn the traffic of an application to its agent, by firewall rules
    Capture(Box<crate::sidecar::CaptureArgs>),
    /// Run an application beside its agent: one starts before it, and ends after it
    Sidecar(crate::sidecar::SidecarArgs),
    /// Run the service that the examples of the documentation have behind the gateway: it echoes what it is asked
    Echo {
        /// Where to listen
        #[arg(default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
        addresses: Vec<std::net::SocketAddr>,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file; without it every setting has its default
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `heddle run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Start demo services and routes to them, and print what to try
    #[arg(long)]
    pub demo: bool,
}

/// `heddle agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Take node, listeners, clusters and control plane from the bootstrap of an Envoy (YAML or JSON)
    #[arg(long, value_name = "FILE")]
    pub envoy_bootstrap: Option<PathBuf>,
}

/// `heddle validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Resource file or directory to check as well
    #[arg(short, long, value_name = "PATH")]
    pub resources: Vec<PathBuf>,
    /// Print the effective configuration
    #[arg(long)]
    pub show: bool,
}

/// How the control plane is reached.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// gRPC address of the control plane; with https:// it has to show its identity
    #[arg(long, env = "HEDDLE_SERVER", default_value = "http://127.0.0.1:18000", value_name = "URL", global = true)]
    pub server: String,
    /// Roots by which a control plane at https:// is known, PEM (`heddle ca export`); without them those below --data-dir are read
    #[arg(long, env = "HEDDLE_BUNDLE", value_name = "FILE", global = true)]
    pub bundle: Option<PathBuf>,
    /// Trust domain of that control plane; the one that the roots name when absent
    #[arg(long, env = "HEDDLE_TRUST_DOMAIN", value_name = "NAME", global = true)]
    pub trust_domain: Option<String>,
    /// Admin key; without it the one generated below --data-dir is read
    #[arg(long, env = "HEDDLE_ADMIN_KEY", value_name = "KEY", hide_env_values = true, global = true)]
    pub key: Option<String>,
    /// Where a control plane on this machine keeps its data
    #[arg(long, env = "HEDDLE_DATA_DIR", default_value = "./heddle-data", value_name = "DIR", global = true)]
    pub data_dir: PathBuf,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// As files are written
    Yaml,
}

/// `heddle apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// File or directory of resources; `-` reads standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Also remove stored resources that the files do not have
    #[arg(long)]
    pub prune: bool,
    /// Check and show, change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Collection, for example `routes` or `route`; all when absent
    #[arg(value_parser = collection)]
    pub collection: Option<String>,
    /// One resource of it
    pub id: Option<String>,
    /// How each node stands to the resource instead of what is in it: who refuses it or is not given it, and why
    #[arg(long, requires = "id")]
    pub status: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Collection, for example `routes` or `route`
    #[arg(value_parser = collection)]
    pub collection: String,
    /// Id of the resource
    pub id: String,
    /// Although others refer to it
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// File or directory of resources; `-` reads standard input
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Count stored resources that the files do not have as removed
    #[arg(long)]
    pub prune: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Collection, for example `routes` or `route`
    #[arg(requires = "id", value_parser = collection)]
    pub collection: Option<String>,
    /// Id of the resource
    pub id: Option<String>,
    /// Most revisions, newest first
    #[arg(short = 'n', long, default_value_t = 20)]
    pub limit: u32,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Revision to return to
    #[arg(long, value_name = "REV")]
    pub to: u64,
    /// Only this collection's …
    #[arg(requires = "id", value_parser = collection)]
    pub collection: Option<String>,
    /// … resource
    pub id: Option<String>,
    /// Show, change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `heddle explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Request method
    pub method: String,
    /// `http://host/path?query`, or a path alone
    pub url: String,
    /// Request header field, `Name: value`
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    pub headers: Vec<String>,
    /// Client address
    #[arg(long, value_name = "IP")]
    pub from: Option<String>,
    /// Show what runs once this consumer is known
    #[arg(long, value_name = "NAME")]
    pub consumer: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A collection by its own name or by that of one of its resources: `routes` of `routes` and of `route`. What is not known here is left to the control
/// plane, which may be newer and says what it knows.
#[allow(clippy::unnecessary_wraps, reason = "the shape of a parser of a value")]
fn collection(word: &str) -> Result<String, Infallible> {
    let known = ResourceKind::ALL.into_iter().find(|kind| kind.singular() == word);
    Ok(known.map_or_else(|| word.to_owned(), |kind| kind.plural().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn a_resource_may_be_named_by_one_or_by_many() {
        for (said, meant) in
            [("route", "routes"), ("routes", "routes"), ("authorization_policy", "authorization_policies"), ("rutes", "rutes")]
        {
            let Cli { command: Command::Get(args) } = Cli::parse_from(["heddle", "get", said, "r1", "--status"]) else {
                unreachable!("another command")
            };
            assert_eq!(args.collection.as_deref(), Some(meant));
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
