//! One connection to a control plane, with the admin key in every request.

use std::time::Duration;

use heddle_proto::heddle::admin::v1::admin_client::AdminClient;
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

/// Connects, with the key that was given or the one that a control plane on this machine has generated.
///
/// # Errors
/// The address is malformed, nobody answers there, or the key cannot travel in a header.
pub async fn connect(args: &ServerArgs) -> Result<Client, ClientError> {
    let endpoint = Endpoint::from_shared(args.server.clone())
        .map_err(|error| {
            ClientError::Usage(format!("--server {}: {error}; expected a URL such as http://127.0.0.1:18000", args.server))
        })?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(60));
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| ClientError::Unreachable { server: args.server.clone(), detail: innermost(&error) })?;
    let key = match &args.key {
        Some(key) => Some(key.clone()),
        None => std::fs::read_to_string(args.data_dir.join(heddle_controlplane::settings::ADMIN_KEY_FILE)).ok(),
    };
    let key = key
        .map(|key| MetadataValue::try_from(key.trim()))
        .transpose()
        .map_err(|_| ClientError::Usage("the admin key has characters that a header cannot carry".into()))?;
    Ok(AdminClient::with_interceptor(channel, WithKey(key))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

/// The last cause of an error chain, which is the one that says something.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
