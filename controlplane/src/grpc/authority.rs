//! The calls of operators to the authority: each asks who calls, then the authority. It decides nothing about certificates.

use std::sync::Arc;
use std::time::Duration;

use heddle_proto::heddle::admin::v1 as api;
use heddle_proto::heddle::admin::v1::authority_server::{Authority as Calls, AuthorityServer};
use heddle_xds::server::{NodeRegistry, NodeView};
use tonic::{Request, Response, Status};

use super::auth::{Access, Caller, admit};
use super::codec::timestamp;
use crate::access::Keys;
use crate::ca::{Authority, CaError, Decision, Overview, Phase, RootView, Token, Wait};

/// Entries of the journal in one answer: when nobody says how many, and at most.
const ENTRIES: (usize, usize) = (100, 5_000);

/// The authority for those who hold an admin key.
pub struct AuthorityService {
    authority: Option<Authority>,
    keys: Keys,
    nodes: Arc<NodeRegistry>,
}

impl AuthorityService {
    /// The service; without an authority it says how to get one.
    pub fn new(authority: Option<Authority>, keys: Keys, nodes: Arc<NodeRegistry>) -> AuthorityService {
        AuthorityService { authority, keys, nodes }
    }

    /// For a tonic server.
    pub fn into_server(self) -> AuthorityServer<AuthorityService> {
        AuthorityServer::new(self)
    }

    fn admit<T>(&self, request: Request<T>, access: Access) -> Result<(Caller, &Authority, T), Status> {
        let caller = admit(&self.keys, request.metadata(), access)?;
        let off = || Status::failed_precondition("this control plane has no authority; put `identity: {}` into its settings");
        Ok((caller, self.authority.as_ref().ok_or_else(off)?, request.into_inner()))
    }

    fn overview(&self, authority: &Authority) -> Overview {
        authority.overview(&sidecars(&self.nodes))
    }

    fn rotation(&self, authority: &Authority) -> api::RotateAuthorityResponse {
        let overview = self.overview(authority);
        api::RotateAuthorityResponse { phase: phase(overview.phase).into(), waits_for: waits(&overview) }
    }
}

/// Ids of the connected nodes that stand beside a service: they verify peers, so they should hold bundles.
pub fn sidecars(nodes: &NodeRegistry) -> Vec<String> {
    // Others hear of bundles by the agent beside them, which is waited for itself.
    let served = |view: &NodeView| view.node.is_apart(view.types);
    let is_waited_for = |view: &NodeView| view.connected_since.is_some() && !view.node.scope.service.is_empty() && !served(view);
    let connected = nodes.nodes().into_iter().filter(is_waited_for);
    connected.map(|view| view.node.scope.id.to_string()).collect()
}

fn status(error: &CaError) -> Status {
    match error {
        CaError::Rotation(_) | CaError::External => Status::failed_precondition(error.to_string()),
        CaError::Refused(_) => Status::invalid_argument(error.to_string()),
        CaError::Store(_) => Status::unavailable(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

fn phase(phase: Phase) -> api::RotationPhase {
    match phase {
        Phase::Steady => api::RotationPhase::Steady,
        Phase::Spreading { .. } => api::RotationPhase::Spreading,
        Phase::Retiring { .. } => api::RotationPhase::Retiring,
    }
}

fn waits(overview: &Overview) -> Vec<String> {
    let sentence = |wait: &Wait| match wait {
        Wait::Time { until_ms } => format!("the new root is spread until {}", timestamp(*until_ms)),
        Wait::Node { holding, until_ms } => {
            let says = match &holding.version {
                Some(version) => format!("holds the bundles {version}, not {}", overview.version),
                None => "has not said which bundles it holds".to_owned(),
            };
            format!("node {} {says}; it is waited for until {}", holding.node, timestamp(*until_ms))
        }
        Wait::Expiry { fingerprint, until_ms } => {
            format!(
                "identities that root {} has signed are valid until {}",
                fingerprint.get(..16).unwrap_or_default(),
                timestamp(*until_ms)
            )
        }
    };
    overview.waits.iter().map(sentence).collect()
}

fn root(root: &RootView) -> api::Root {
    api::Root {
        fingerprint: root.meta.fingerprint.clone(),
        not_before: Some(timestamp(root.meta.not_before_ms)),
        not_after: Some(timestamp(root.meta.not_after_ms)),
        signing: root.signing,
        live_identities: root.live as u64,
        last_expiry: root.last_expiry_ms.map(timestamp),
    }
}

fn token(token: &Token) -> api::JoinToken {
    api::JoinToken {
        id: token.id.clone(),
        spiffe_id: token.spiffe_id.clone(),
        created: Some(timestamp(token.created_ms)),
        expires: Some(timestamp(token.expires_ms)),
        used: token.used_ms.map(timestamp),
        author: token.author.clone(),
    }
}

fn entry((number, decision): (u64, Decision)) -> api::AuditEntry {
    api::AuditEntry {
        number,
        time: Some(timestamp(decision.time_ms)),
        verdict: decision.verdict,
        detail: decision.detail,
        proof: decision.proof,
        subject: decision.subject,
        peer: decision.peer,
        spiffe_id: decision.spiffe_id,
        serial: decision.serial,
        not_after: (decision.not_after_ms > 0).then(|| timestamp(decision.not_after_ms)),
    }
}

#[tonic::async_trait]
impl Calls for AuthorityService {
    async fn show_authority(
        &self,
        request: Request<api::ShowAuthorityRequest>,
    ) -> Result<Response<api::ShowAuthorityResponse>, Status> {
        let (_, authority, _) = self.admit(request, Access::Read)?;
        let overview = self.overview(authority);
        let holder = |holder: &crate::ca::Holder| api::BundleHolder {
            node: holder.node.clone(),
            spiffe_id: holder.spiffe_id.clone(),
            version: holder.version.clone(),
            clock_skew_ms: holder.clock_skew_ms,
            not_after: holder.not_after_ms.map(timestamp),
        };
        let federated = |one: &crate::ca::Federated| api::FederatedDomain {
            trust_domain: one.domain.to_string(),
            roots: u32::try_from(one.roots).unwrap_or(u32::MAX),
            trouble: one.trouble.clone(),
        };
        Ok(Response::new(api::ShowAuthorityResponse {
            trust_domain: authority.trust_domain().to_string(),
            bundle_version: overview.version.clone(),
            roots: overview.roots.iter().map(root).collect(),
            phase: phase(overview.phase).into(),
            waits_for: waits(&overview),
            holders: overview.holders.iter().map(holder).collect(),
            federated: overview.federated.iter().map(federated).collect(),
            live_identities: overview.roots.iter().map(|root| root.live as u64).sum(),
            svid_ttl_seconds: overview.svid_ttl_seconds,
            external: overview.external,
        }))
    }

    async fn rotate_authority(
        &self,
        request: Request<api::RotateAuthorityRequest>,
    ) -> Result<Response<api::RotateAuthorityResponse>, Status> {
        let (_, authority, message) = self.admit(request, Access::Write)?;
        let done = match (message.cancel, message.force) {
            (true, true) => return Err(Status::invalid_argument("expected either `cancel` or `force`")),
            (false, false) => authority.rotate().await,
            (cancel, _) => authority.interfere(cancel).await,
        };
        done.map_err(|error| status(&error))?;
        Ok(Response::new(self.rotation(authority)))
    }

    async fn export_bundle(
        &self,
        request: Request<api::ExportBundleRequest>,
    ) -> Result<Response<api::ExportBundleResponse>, Status> {
        let (_, authority, _) = self.admit(request, Access::Read)?;
        let trusted = authority.trusted().borrow().clone();
        let pem = trusted.bundles.own().map(heddle_node::identity::Bundle::pem).unwrap_or_default();
        Ok(Response::new(api::ExportBundleResponse { trust_domain: authority.trust_domain().to_string(), pem }))
    }

    async fn list_audit(&self, request: Request<api::ListAuditRequest>) -> Result<Response<api::ListAuditResponse>, Status> {
        let (_, authority, message) = self.admit(request, Access::Read)?;
        let limit = match message.limit {
            0 => ENTRIES.0,
            limit => usize::try_from(limit).unwrap_or(ENTRIES.1).min(ENTRIES.1),
        };
        let before = (message.before > 0).then_some(message.before);
        let found = authority.journal(before, limit, message.refused_only).await;
        let found = found.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(api::ListAuditResponse { entries: found.into_iter().map(entry).collect() }))
    }

    async fn create_token(
        &self,
        request: Request<api::CreateTokenRequest>,
    ) -> Result<Response<api::CreateTokenResponse>, Status> {
        let (caller, authority, message) = self.admit(request, Access::Write)?;
        let ttl = (message.ttl_seconds > 0).then(|| Duration::from_secs(message.ttl_seconds));
        let made = authority.create_token(&message.namespace, &message.service, ttl, &caller.name).await;
        let (text, about) = made.map_err(|error| status(&error))?;
        Ok(Response::new(api::CreateTokenResponse { token: text, about: Some(token(&about)) }))
    }

    async fn list_tokens(&self, request: Request<api::ListTokensRequest>) -> Result<Response<api::ListTokensResponse>, Status> {
        let (_, authority, _) = self.admit(request, Access::Read)?;
        Ok(Response::new(api::ListTokensResponse { tokens: authority.tokens().iter().map(token).collect() }))
    }

    async fn revoke_token(
        &self,
        request: Request<api::RevokeTokenRequest>,
    ) -> Result<Response<api::RevokeTokenResponse>, Status> {
        let (_, authority, message) = self.admit(request, Access::Write)?;
        if authority.revoke_token(&message.id).await.map_err(|error| status(&error))? {
            Ok(Response::new(api::RevokeTokenResponse {}))
        } else {
            Err(Status::not_found(format!("there is no join token {:?}; `heddle token list` shows them", message.id)))
        }
    }
}
