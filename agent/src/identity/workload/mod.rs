//! The SPIFFE Workload API on a unix socket, and SDS beside it: the application beside us, or its Envoy, is handed our identity, and hears of every change.
//! Generated types stay here.

mod connection;
mod saying;
mod sds;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use heddle_node::identity::{Bundle, Bundles, Identity};
use heddle_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use heddle_proto::spiffe::workload as proto;
use proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::settings::WorkloadApiSettings;

/// What each call must carry, so that no browser or proxy can be made to ask (SPIFFE Workload Endpoint, section 5).
const HEADER: &str = "workload.spiffe.io";
/// What paths of SDS begin with.
const SDS: &str = "/envoy.service.secret.v3.SecretDiscoveryService/";
/// Longest message of a call: those of the Workload API have a few bytes, the first one of SDS names every extension that an Envoy has.
const MAX_MESSAGE: usize = 1024 * 1024;
/// Connections at the same time; further ones wait for one to close.
const CONNECTIONS: usize = 256;

/// Opens the socket.
///
/// # Errors
/// The path cannot be used: something else than an old socket lies there, or the folder is not ours.
pub(super) fn open(settings: &WorkloadApiSettings) -> io::Result<UnixListener> {
    let path = &settings.path;
    remove_old(path)?;
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(Ok(()), std::fs::create_dir_all)?;
    let listener = UnixListener::bind(path)?;
    // Who may connect is decided by who it is; other users get that far only if one of them was named.
    let mode = if settings.uids.is_empty() { 0o600 } else { 0o666 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Removes the socket of an earlier process, and nothing else.
fn remove_old(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket lies there")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// After accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves as long as the process lives.
pub(super) async fn serve(listener: UnixListener, uids: Vec<u32>, identity: Identity) {
    let sds = SecretDiscoveryServiceServer::new(sds::Sds { identity: identity.clone() }).max_decoding_message_size(MAX_MESSAGE);
    let api = SpiffeWorkloadApiServer::new(Api { identity }).max_decoding_message_size(MAX_MESSAGE);
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    // Nobody closes it.
    while let Ok(seat) = seats.clone().acquire_owned().await {
        let stream = next(|cx| listener.poll_accept(cx).map_ok(|(stream, _)| stream), &uids).await;
        let (mut api, mut sds) = (api.clone(), sds.clone());
        tokio::spawn(async move {
            let is_sds = |path: &str| path.starts_with(SDS);
            connection::serve(stream, |request| match is_sds(request.uri().path()) {
                true => sds.call(request),
                false => api.call(request),
            })
            .await;
            drop(seat);
        });
    }
}

/// The next connection of somebody who may ask. What goes wrong with one ends nothing.
async fn next(mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<UnixStream>>, uids: &[u32]) -> UnixStream {
    loop {
        match poll_fn(&mut accept).await {
            Ok(stream) if may_ask(&stream, uids) => return stream,
            Ok(_) => {}
            // For want of descriptors: they come back when connections close, not by trying.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Whether the process at the other end is of our own user, or of one that was named. The kernel says so, not the process.
fn may_ask(stream: &UnixStream, uids: &[u32]) -> bool {
    match stream.peer_cred() {
        Ok(peer) if is_known(peer.uid(), rustix::process::geteuid().as_raw(), uids) => true,
        Ok(peer) => {
            let (uid, pid) = (peer.uid(), peer.pid());
            tracing::warn!(
                uid,
                pid,
                "another user asked for our identity; name it in identity.workload_api_uids if it may have it"
            );
            false
        }
        Err(_) => false,
    }
}

fn is_known(uid: u32, own: u32, others: &[u32]) -> bool {
    uid == own || others.contains(&uid)
}

struct Api {
    identity: Identity,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Api {
    type FetchX509SVIDStream = Answers<proto::X509svidResponse>;
    type FetchX509BundlesStream = Answers<proto::X509BundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<proto::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        demand_header(request.metadata())?;
        Ok(Response::new(follow(self.identity.clone(), svids)?))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<proto::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        demand_header(request.metadata())?;
        Ok(Response::new(follow(self.identity.clone(), bundles)?))
    }
}

fn demand_header(metadata: &MetadataMap) -> Result<(), Status> {
    match metadata.get(HEADER) {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument(format!("the metadata `{HEADER}: true` is missing"))),
    }
}

/// What `answer` makes of the identity, now and after each change that makes a difference.
fn follow<T: PartialEq + Clone + Send + 'static>(
    identity: Identity,
    answer: fn(&Identity) -> Result<T, Status>,
) -> Result<Answers<T>, Status> {
    let mut changes = identity.changes();
    let mut last = answer(&identity)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if sender.send(Ok(last.clone())).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let Ok(next) = answer(&identity) else { continue };
            if next != last {
                last = next.clone();
                if sender.send(Ok(next)).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// The name under which the specification wants a bundle.
fn key(bundle: &Bundle) -> String {
    format!("spiffe://{}", bundle.domain())
}

fn roots(bundle: &Bundle) -> Vec<u8> {
    bundle.roots().iter().flat_map(|root| root.iter().copied()).collect()
}

fn svids(identity: &Identity) -> Result<proto::X509svidResponse, Status> {
    let svid = identity.svid().ok_or_else(|| Status::permission_denied("this workload has no identity yet"))?;
    let PrivateKeyDer::Pkcs8(private) = svid.key() else { return Err(Status::internal("the key is not PKCS #8")) };
    let trusted: Arc<Bundles> = identity.bundles();
    let own = svid.id().trust_domain();
    let one = proto::X509svid {
        spiffe_id: svid.id().to_string(),
        x509_svid: svid.chain().iter().flat_map(|der| der.iter().copied()).collect(),
        x509_svid_key: private.secret_pkcs8_der().to_vec(),
        bundle: trusted.get(own).map(roots).unwrap_or_default(),
        hint: String::new(),
    };
    let federated_bundles =
        trusted.iter().filter(|bundle| bundle.domain() != own).map(|bundle| (key(bundle), roots(bundle))).collect();
    Ok(proto::X509svidResponse { svids: vec![one], crl: Vec::new(), federated_bundles })
}

fn bundles(identity: &Identity) -> Result<proto::X509BundlesResponse, Status> {
    let bundles = identity.bundles().iter().map(|bundle| (key(bundle), roots(bundle))).collect();
    Ok(proto::X509BundlesResponse { crl: Vec::new(), bundles })
}
