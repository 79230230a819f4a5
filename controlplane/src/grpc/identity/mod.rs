//! The gRPC service `heddle.identity.v1`: messages in and out of the authority. It decides nothing.

mod watch;

use std::pin::Pin;

use futures_util::Stream;
use heddle_node::drain::DrainWatch;
use heddle_proto::heddle::identity::v1 as api;
use heddle_proto::heddle::identity::v1::identity_service_server::{IdentityService as Calls, IdentityServiceServer};
use heddle_proto::heddle::identity::v1::sign_request;
use heddle_xds::link::Peer;
use heddle_xds::server::Elsewhere;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};

use super::codec::{moment, timestamp};
use crate::ca::{Authority, Blame, Proof, Refusal, Trusted};

/// Bytes of a request: a certificate request and a token.
const MAX_MESSAGE: usize = 64 * 1024;
/// The trailer with the milliseconds after which to come again.
const RETRY: &str = "retry-after-ms";

/// Signs and tells whom to trust.
pub struct IdentityService {
    authority: Authority,
    /// Those who watch without a certificate are turned away.
    strict: bool,
    elsewhere: Option<Elsewhere>,
    drain: DrainWatch,
}

impl IdentityService {
    /// The service. If it is `strict`, bundles are told only to those who have a certificate; to sign, a token is enough. When the drain begins, and
    /// when nodes are sent `elsewhere`, watches end.
    pub fn new(authority: Authority, strict: bool, elsewhere: Option<Elsewhere>, drain: DrainWatch) -> IdentityService {
        IdentityService { authority, strict, elsewhere, drain }
    }

    fn ends(&self) -> watch::Ends {
        watch::Ends { elsewhere: self.elsewhere.clone(), drain: self.drain.clone() }
    }

    /// For a tonic server, with its limits set.
    pub fn into_server(self) -> IdentityServer {
        IdentityServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// The service as a gRPC server calls it.
pub type IdentityServer = IdentityServiceServer<IdentityService>;

/// Who is at the other end of the connection of a call.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get::<Peer>().cloned().ok_or_else(|| Status::internal("nothing is known of this connection"))
}

fn status(refusal: &Refusal) -> Status {
    let code = match refusal.reason.blame() {
        Blame::Proof => Code::Unauthenticated,
        Blame::Permission => Code::PermissionDenied,
        Blame::Request => Code::InvalidArgument,
        Blame::Later => Code::ResourceExhausted,
        Blame::Operator => Code::FailedPrecondition,
        Blame::Unavailable => Code::Unavailable,
    };
    let mut status = Status::new(code, refusal.told());
    if let Some(wait) = refusal.retry_ms {
        status.metadata_mut().insert(RETRY, MetadataValue::from(wait));
    }
    status
}

fn bundles(trusted: &Trusted) -> api::Bundles {
    let bundle = |bundle: &heddle_node::identity::Bundle| api::Bundle {
        trust_domain: bundle.domain().to_string(),
        roots_der: bundle.roots().iter().map(|root| root.to_vec()).collect(),
    };
    api::Bundles {
        version: trusted.version.to_string(),
        trust_domain: trusted.bundles.own_domain().map(ToString::to_string).unwrap_or_default(),
        bundles: trusted.bundles.iter().map(bundle).collect(),
    }
}

fn now(authority: &Authority) -> prost_types::Timestamp {
    timestamp(authority.now_ms())
}

#[tonic::async_trait]
impl Calls for IdentityService {
    async fn sign(&self, request: Request<api::SignRequest>) -> Result<Response<api::SignResponse>, Status> {
        let peer = peer(&request)?;
        let message = request.into_inner();
        let proof = match message.proof {
            Some(sign_request::Proof::JoinToken(token)) => Proof::Token(token),
            Some(sign_request::Proof::KubernetesToken(token)) => Proof::Kubernetes(token),
            None => Proof::Connection,
        };
        let signed = self.authority.sign(&message.csr_der, &proof, &peer).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(api::SignResponse {
            chain_der: signed.chain.iter().map(|certificate| certificate.to_vec()).collect(),
            bundles: Some(bundles(&signed.trusted)),
            not_before: Some(moment(signed.not_before)),
            not_after: Some(moment(signed.not_after)),
            server_time: Some(moment(signed.now)),
            spiffe_id: signed.id.to_string(),
        }))
    }

    type WatchBundlesStream = Pin<Box<dyn Stream<Item = Result<api::WatchBundlesResponse, Status>> + Send>>;

    async fn watch_bundles(
        &self,
        request: Request<Streaming<api::WatchBundlesRequest>>,
    ) -> Result<Response<Self::WatchBundlesStream>, Status> {
        let peer = peer(&request)?;
        if self.strict && peer.id().is_none() && !matches!(peer, Peer::Process) {
            return Err(Status::unauthenticated("bundles are told to those who have a certificate; join first"));
        }
        let id = peer.id().map(ToString::to_string).unwrap_or_default();
        Ok(Response::new(watch::start(self.authority.clone(), id, request.into_inner(), self.ends())))
    }
}
