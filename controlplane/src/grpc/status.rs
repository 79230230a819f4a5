//! Client status discovery (CSDS) as the xDS port serves it to operators: how each connected node stands to each of its resources. It decides nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use heddle_node::drain::DrainWatch;
use heddle_proto::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use heddle_proto::envoy::config::core::v3 as core;
use heddle_proto::envoy::service::status::v3 as csds;
use heddle_proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use heddle_proto::envoy::service::status::v3::client_status_discovery_service_server::{
    ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer,
};
use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use heddle_proto::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use heddle_xds::protocol::Types;
use heddle_xds::server::{Inspected, NodeRegistry, ResourceView, Standing};
use prost_types::Any;
use tonic::{Request, Response, Status, Streaming};

use super::auth::{Access, admit};
use super::codec::moment;
use crate::access::Keys;
use crate::settings::Role;

/// Resources of one answer.
const MAX_RESOURCES: usize = 100_000;
/// Bytes of contents of one answer; what comes behind them is shown without.
const MAX_CONTENTS: usize = 16 << 20;
/// Conditions of one question: every one is held against every node.
const MAX_MATCHERS: usize = 50;
/// How long one stream is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The service.
pub struct StatusService {
    nodes: Arc<NodeRegistry>,
    keys: Keys,
    drain: DrainWatch,
}

/// How names are compared.
type Matches = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl StatusService {
    /// The service for those who hold one of `keys`; contents are for admins. When `drain` begins, streams end.
    pub fn new(nodes: Arc<NodeRegistry>, keys: Keys, drain: DrainWatch) -> StatusService {
        StatusService { nodes, keys, drain }
    }

    /// For a tonic server.
    pub fn into_server(self) -> ClientStatusDiscoveryServiceServer<StatusService> {
        ClientStatusDiscoveryServiceServer::new(self)
    }
}

async fn answer(
    nodes: &NodeRegistry,
    role: Role,
    request: csds::ClientStatusRequest,
) -> Result<csds::ClientStatusResponse, Status> {
    if request.node_matchers.len() > MAX_MATCHERS {
        return Err(Status::invalid_argument(format!("node_matchers: expected {MAX_MATCHERS} at most")));
    }
    let matchers = request.node_matchers.into_iter().map(matcher).collect::<Result<Vec<Matches>, Status>>()?;
    let meant = |id: &str| matchers.is_empty() || matchers.iter().any(|matches| matches(id));
    let found = nodes.inspect(meant, MAX_RESOURCES, PATIENCE).await;
    let found = found.ok_or_else(|| {
        Status::resource_exhausted(format!(
            "the nodes have more than {MAX_RESOURCES} resources: name fewer of them in node_matchers"
        ))
    })?;
    let mut room = if role == Role::Admin && !request.exclude_resource_contents { MAX_CONTENTS } else { 0 };
    let config = found.into_iter().map(|inspected| client(inspected, &mut room)).collect();
    Ok(csds::ClientStatusResponse { config })
}

/// Which nodes are meant, by their id.
fn matcher(matcher: NodeMatcher) -> Result<Matches, Status> {
    if !matcher.node_metadatas.is_empty() {
        return Err(Status::invalid_argument("node_matchers.node_metadatas is not read here; match by node_id"));
    }
    let Some(StringMatcher { match_pattern, ignore_case }) = matcher.node_id else { return Ok(Box::new(|_| true)) };
    let fold = move |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
    let by = |text: String, compares: fn(&str, &str) -> bool| -> Matches {
        let text = fold(&text);
        Box::new(move |id| compares(&fold(id), &text))
    };
    let matches = match match_pattern {
        Some(MatchPattern::Exact(text)) => by(text, |id, text| id == text),
        Some(MatchPattern::Prefix(text)) => by(text, |id, text| id.starts_with(text)),
        Some(MatchPattern::Suffix(text)) => by(text, |id, text| id.ends_with(text)),
        Some(MatchPattern::Contains(text)) => by(text, |id, text| id.contains(text)),
        Some(MatchPattern::SafeRegex(_)) | None => {
            return Err(Status::invalid_argument("node_matchers.node_id: expected exact, prefix, suffix or contains"));
        }
    };
    Ok(matches)
}

fn client(inspected: Inspected, room: &mut usize) -> csds::ClientConfig {
    let Inspected { node, resources } = inspected;
    let types = node.types;
    let scope = node.node.scope;
    let node = core::Node {
        id: scope.id.to_string(),
        cluster: scope.role.to_string(),
        locality: Some(core::Locality { zone: scope.zone.to_string(), ..Default::default() }),
        user_agent_name: node.node.version.to_string(),
        ..Default::default()
    };
    csds::ClientConfig {
        node: Some(node),
        generic_xds_configs: resources.into_iter().map(|one| resource(types, one, room)).collect(),
    }
}

fn resource(types: Types, one: ResourceView, room: &mut usize) -> GenericXdsConfig {
    let type_url = types.url(one.kind);
    let body = one.body.filter(|body| body.len() <= *room);
    *room -= body.as_ref().map_or(0, |body| body.len());
    let (status, client) = match one.standing {
        Standing::Synced => (csds::ConfigStatus::Synced, ClientResourceStatus::Acked),
        Standing::Stale => (csds::ConfigStatus::Stale, ClientResourceStatus::Requested),
        Standing::NotSent => (csds::ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist),
        Standing::Refused(_) => (csds::ConfigStatus::Error, ClientResourceStatus::Nacked),
    };
    let error = match one.standing {
        Standing::Refused(nack) => Some(UpdateFailureState {
            last_update_attempt: Some(moment(nack.time)),
            details: if nack.field.is_empty() { nack.reason } else { format!("{}: {}", nack.field, nack.reason) },
            version_info: nack.version.to_string(),
        }),
        _ => None,
    };
    GenericXdsConfig {
        type_url: type_url.into(),
        name: one.name.to_string(),
        version_info: one.version.to_string(),
        xds_config: body.map(|body| Any { type_url: type_url.into(), value: body.into() }),
        last_updated: None,
        config_status: status.into(),
        client_status: client.into(),
        error_state: error,
    }
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for StatusService {
    type StreamClientStatusStream = Pin<Box<dyn Stream<Item = Result<csds::ClientStatusResponse, Status>> + Send>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<csds::ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let role = admit(&self.keys, request.metadata(), Access::Read)?.role;
        let nodes = self.nodes.clone();
        let answers = stream::try_unfold(request.into_inner(), move |mut requests| {
            let nodes = nodes.clone();
            async move {
                let Some(request) = requests.message().await? else { return Ok(None) };
                Ok(Some((answer(&nodes, role, request).await?, requests)))
            }
        });
        let mut drain = self.drain.clone();
        Ok(Response::new(Box::pin(answers.take_until(Box::pin(async move { drain.draining().await })))))
    }

    async fn fetch_client_status(
        &self,
        request: Request<csds::ClientStatusRequest>,
    ) -> Result<Response<csds::ClientStatusResponse>, Status> {
        let role = admit(&self.keys, request.metadata(), Access::Read)?.role;
        Ok(Response::new(answer(&self.nodes, role, request.into_inner()).await?))
    }
}
