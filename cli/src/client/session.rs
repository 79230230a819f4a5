//! One connection to a control plane, with the admin key in every request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use heddle_controlplane::settings::{ADMIN_KEY_FILE, ROOTS_FILE};
use heddle_node::identity::{Bundle, Bundles, Expect, Identity, SpiffeId, TrustDomain, domain_of_roots};
use heddle_proto::heddle::admin::v1::admin_client::AdminClient;
use heddle_proto::heddle::admin::v1::authority_client::AuthorityClient;
use heddle_xds::link::Connector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::args::ServerArgs;

/// Why a command failed, in words that say what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command line or a file is wrong.
    #[error("{0}")]
    Usage(String),
    /// No connection.
    #[error(
        "no control plane answers at {server}: {detail}\n  is it running (`heddle run`)? name another one with --server or HEDDLE_SERVER"
    )]
    Unreachable {
        /// What was tried.
        server: String,
        /// What the transport says.
        detail: String,
    },
    /// The control plane refused.
    #[error("{0}")]
    Refused(String),
}

/// How the transport says that an answer was one of plain HTTP.
const NO_GRPC: &str = "grpc-status header missing";

impl From<Status> for ClientError {
    fn from(status: Status) -> ClientError {
        match status.code() {
            tonic::Code::Unauthenticated => ClientError::Refused(format!(
                "{}\n  give the admin key with --key or HEDDLE_ADMIN_KEY, or --data-dir of a control plane on this machine",
                status.message()
            )),
            tonic::Code::PermissionDenied => {
                ClientError::Refused(format!("{}: this needs a key with the role admin", status.message()))
            }
            tonic::Code::InvalidArgument => ClientError::Usage(status.message().to_owned()),
            _ if status.message().starts_with(NO_GRPC) => ClientError::Refused(
                "what answers there speaks no gRPC\n  --server is the address of `xds.address` (http://127.0.0.1:18000 by default), not that of the Admin API in HTTP or of a gateway"
                    .to_owned(),
            ),
            _ => ClientError::Refused(status.message().to_owned()),
        }
    }
}

/// Adds the admin key to every request.
#[derive(Clone)]
pub struct WithKey(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("x-api-key", key.clone());
        }
        Ok(request)
    }
}

/// The client that all commands use.
pub type Client = AdminClient<InterceptedService<Channel, WithKey>>;

/// Largest answer: a whole configuration of 10,000 routes fits several times.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The client of the authority.
pub type Authority = AuthorityClient<InterceptedService<Channel, WithKey>>;

/// Connects, with the key that was given or the one that a control plane on this machine has generated.
///
/// # Errors
/// The address is malformed, nobody answers there, or the key cannot travel in a header.
pub async fn connect(args: &ServerArgs) -> Result<Client, ClientError> {
    let client = AdminClient::with_interceptor(channel(args).await?, key(args)?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

/// The same, for the authority.
///
/// # Errors
/// As for `connect`.
pub async fn authority(args: &ServerArgs) -> Result<Authority, ClientError> {
    Ok(AuthorityClient::with_interceptor(channel(args).await?, key(args)?).max_decoding_message_size(MAX_MESSAGE))
}

async fn channel(args: &ServerArgs) -> Result<Channel, ClientError> {
    let unreachable = |detail: String| ClientError::Unreachable { server: args.server.clone(), detail };
    if args.server.starts_with("https://") {
        let roots = Roots::of(args)?;
        let connector = secure(args, &roots)?;
        return connector.connect().await.map_err(|error| unreachable(roots.blamed(&innermost(&error))));
    }
    let endpoint = Endpoint::from_shared(args.server.clone())
        .map_err(|error| {
            ClientError::Usage(format!("--server {}: {error}; expected a URL such as http://127.0.0.1:18000", args.server))
        })?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60));
    endpoint.connect().await.map_err(|error| unreachable(innermost(&error)))
}

/// Where the roots are by which a control plane is known.
enum Roots {
    Named(PathBuf),
    /// Nobody has named them, so who reads of them is told where they were found.
    Beside(PathBuf),
}

impl Roots {
    fn of(args: &ServerArgs) -> Result<Roots, ClientError> {
        let beside = args.data_dir.join(ROOTS_FILE);
        match &args.bundle {
            Some(path) => Ok(Roots::Named(path.clone())),
            None if beside.exists() => Ok(Roots::Beside(beside)),
            None => Err(ClientError::Usage(
                "an https:// control plane is known by its roots: give them with --bundle FILE (`heddle ca export` prints them), or --data-dir of a control plane on this machine"
                    .into(),
            )),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Roots::Named(path) | Roots::Beside(path) => path,
        }
    }

    /// What went wrong, with the file where that was not named.
    fn blamed(&self, error: &str) -> String {
        match self {
            Roots::Named(_) => error.to_owned(),
            Roots::Beside(path) => format!(
                "{error}\n  its roots were read from {}, found in --data-dir; give those of another control plane with --bundle FILE (`heddle ca export` prints them)",
                path.display()
            ),
        }
    }

    fn usage(&self, error: &dyn std::fmt::Display) -> ClientError {
        ClientError::Usage(match self {
            Roots::Named(path) => format!("--bundle {}: {error}", path.display()),
            Roots::Beside(path) => self.blamed(&format!("{}: {error}", path.display())),
        })
    }
}

/// The way to a control plane that shows who it is.
fn secure(args: &ServerArgs, roots: &Roots) -> Result<Connector, ClientError> {
    let usage = |error: &dyn std::fmt::Display| roots.usage(error);
    let pem = std::fs::read_to_string(roots.path()).map_err(|error| usage(&error))?;
    let domain = match &args.trust_domain {
        Some(name) => TrustDomain::new(name).map_err(|error| ClientError::Usage(format!("--trust-domain: {error}")))?,
        None => {
            domain_of_roots(&pem).ok_or_else(|| usage(&"the roots do not say their trust domain; name it with --trust-domain"))?
        }
    };
    let server = SpiffeId::service(&domain, "heddle", "controlplane").map_err(|error| usage(&error))?;
    let identity = Identity::new();
    identity.set_bundles(Bundles::new(Bundle::from_pem(domain, &pem).map_err(|error| usage(&error))?));
    Connector::joining(&args.server, &identity, Expect::AnyOf(vec![server]))
        .map_err(|error| ClientError::Usage(format!("--server: {error}")))
}

fn key(args: &ServerArgs) -> Result<WithKey, ClientError> {
    let key = match &args.key {
        Some(key) => Some(key.clone()),
        None => std::fs::read_to_string(args.data_dir.join(ADMIN_KEY_FILE)).ok(),
    };
    let key = key
        .map(|key| MetadataValue::try_from(key.trim()))
        .transpose()
        .map_err(|_| ClientError::Usage("the admin key has characters that a header cannot carry".into()))?;
    Ok(WithKey(key))
}

/// The last cause of an error chain, which is the one that says something.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(data_dir: &Path, bundle: Option<PathBuf>) -> String {
        let server = "https://127.0.0.1:1".to_owned();
        let args = ServerArgs { server, bundle, trust_domain: None, key: None, data_dir: data_dir.into() };
        Roots::of(&args).and_then(|roots| secure(&args, &roots).map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn who_gave_no_roots_is_told_where_some_were_found_and_how_to_give_others() {
        let folder = tempfile::tempdir().unwrap();
        let found = folder.path().join(ROOTS_FILE);
        assert!(told(folder.path(), None).contains("give them with --bundle FILE"));
        // What else is called a root there is the operator's.
        std::fs::write(folder.path().join("root.pem"), "mine").unwrap();
        assert!(told(folder.path(), None).contains("give them with --bundle FILE"));
        std::fs::write(&found, "no roots").unwrap();
        let beside = told(folder.path(), None);
        assert!(beside.starts_with(&format!("{}: ", found.display())), "{beside}");
        assert!(beside.contains("found in --data-dir; give those of another control plane with --bundle FILE"), "{beside}");
        let named = told(folder.path(), Some(found.clone()));
        assert!(named.starts_with(&format!("--bundle {}: ", found.display())) && !named.contains("--data-dir"), "{named}");
    }

    #[test]
    fn who_asks_a_port_of_plain_http_is_told_which_one_is_meant() {
        let plain = Status::unimplemented("grpc-status header missing, mapped from HTTP status code 404");
        let told = ClientError::from(plain).to_string();
        assert!(told.contains("speaks no gRPC") && told.contains("`xds.address`"), "{told}");
    }
}
