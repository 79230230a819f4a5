//! The calls of `heddle.admin.v1`: each asks who calls, reads the message, asks the keeper, and writes the answer. It validates and stores nothing itself.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, stream};
use heddle_node::drain::DrainWatch;
use heddle_proto::heddle::admin::v1 as api;
use heddle_proto::heddle::admin::v1::admin_server::{Admin, AdminServer};
use heddle_xds::catalog::Catalog;
use heddle_xds::server::{NodeRegistry, Refusal};
use parking_lot::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::auth::{Access, Caller, admit};
use super::codec::{self, Proposal};
use super::explain::Explainer;
use super::masks::Masks;
use super::nodes;
use super::watch::{Event, Watcher};
use crate::access::Keys;
use crate::mesh::Mesh;
use crate::model::Key;
use crate::settings::Role;
use crate::state::{Intent, Keeper, Options, Refused, Scope, State};

/// Bytes of one message in either direction: a configuration of 10,000 routes fits several times.
const MAX_MESSAGE: usize = 64 << 20;
/// Changes of one transaction.
const MAX_CHANGES: usize = 50_000;
/// Resources of one page.
const MAX_PAGE: usize = 1_000;
/// Bytes after which a page ends; with one more resource it stays below the 4 MiB that gRPC clients take by default.
const PAGE_BYTES: usize = 2 << 20;
/// Revisions of one answer, when nobody says how many and at most.
const HISTORY: (usize, usize) = (100, 1_000);
/// Versions that are read to fill an answer with revisions.
const VERSIONS: usize = 10_000;
/// Bytes of the name that a caller may add to the name of its key.
const MAX_AUTHOR: usize = 100;

/// The gRPC Admin API.
pub struct AdminService {
    keeper: Keeper,
    keys: Keys,
    nodes: Arc<NodeRegistry>,
    explainer: Arc<dyn Explainer>,
    mesh: Arc<Mutex<Mesh>>,
    catalog: Arc<dyn Catalog>,
    drain: DrainWatch,
}

impl AdminService {
    /// The service for those who hold one of `keys`. When `drain` begins, watches end, so that they do not hold a stop up.
    pub fn new(
        keeper: Keeper,
        keys: Keys,
        nodes: Arc<NodeRegistry>,
        (explainer, mesh): (Arc<dyn Explainer>, Arc<Mutex<Mesh>>),
        catalog: Arc<dyn Catalog>,
        drain: DrainWatch,
    ) -> AdminService {
        AdminService { keeper, keys, nodes, explainer, mesh, catalog, drain }
    }

    /// For a tonic server, with its limits set.
    pub fn into_server(self) -> AdminServer<AdminService> {
        AdminServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    /// Lets a call in and takes its message out.
    fn admit<T>(&self, request: Request<T>, access: Access) -> Result<(Caller, T), Status> {
        let caller = admit(&self.keys, request.metadata(), access)?;
        Ok((caller, request.into_inner()))
    }

    fn masks(&self, caller: &Caller) -> Masks {
        Masks { catalog: self.catalog.clone(), reader_is_admin: caller.role == Role::Admin }
    }

    /// Reads the changes of a message; with `prune` everything else that is stored is to go.
    fn proposals(&self, changes: Vec<api::Change>, prune: bool, state: &State) -> Result<Vec<Proposal>, Status> {
        if changes.len() > MAX_CHANGES {
            return Err(Status::invalid_argument(format!("{} changes; one call takes {MAX_CHANGES} at most", changes.len())));
        }
        let mut proposals = changes.into_iter().map(codec::proposal).collect::<Result<Vec<Proposal>, Status>>()?;
        let mut named = BTreeSet::new();
        if let Some((twice, _)) = proposals.iter().find(|(key, _)| !named.insert(key.clone())) {
            return Err(Status::invalid_argument(format!("{twice} is named twice; each resource can be changed once")));
        }
        if prune {
            let rest = state.all().map(|(key, _)| key).filter(|key| key.provider().is_none() && !named.contains(key));
            proposals.extend(rest.map(|key| (key, None)));
        }
        Ok(proposals)
    }

    /// What changed for each resource that a transaction touched.
    fn outcomes(&self, caller: &Caller, before: &State, after: &State, keys: impl Iterator<Item = Key>) -> Vec<api::Outcome> {
        let proposal = |key: Key| (key.clone(), after.get(&key).map(|stored| stored.value.clone()));
        let proposals: Vec<Proposal> = keys.map(proposal).collect();
        codec::differences(before, &proposals, &self.masks(caller))
    }
}

/// The author as the history shows it: the key's name, and who used it when that was said.
fn author(caller: &Caller, given: &str) -> Arc<str> {
    let printable: String = given.chars().filter(|letter| !letter.is_control()).take(MAX_AUTHOR).collect();
    match printable.trim() {
        "" => caller.name.clone(),
        given if *given == *caller.name => caller.name.clone(),
        given => format!("{} ({given})", caller.name).into(),
    }
}

fn intent((key, value): Proposal) -> Intent {
    match value {
        Some(value) => Intent::put(key, value),
        None => Intent::delete(key),
    }
}

/// The next refusal that is still known: who is slow misses some.
async fn next_refusal(mut receiver: Receiver<Refusal>) -> Option<(Refusal, Receiver<Refusal>)> {
    loop {
        match receiver.recv().await {
            Ok(refusal) => return Some((refusal, receiver)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}

/// A stream of watch responses.
type Watching = Pin<Box<dyn Stream<Item = Result<api::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Admin for AdminService {
    async fn apply(&self, request: Request<api::ApplyRequest>) -> Result<Response<api::ApplyResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Write)?;
        let before = self.keeper.state();
        let proposals = self.proposals(message.changes, message.prune, &before)?;
        let options = Options {
            dry_run: message.dry_run,
            force: message.force,
            skip_unchanged: true,
            at_revision: (message.if_revision > 0).then_some(message.if_revision),
            ..Options::by(author(&caller, &message.author))
        };
        let intents = proposals.iter().cloned().map(intent).collect();
        match self.keeper.apply(intents, options).await {
            Ok(applied) => {
                let keys = applied.outcomes.iter().map(|outcome| outcome.key.clone());
                let outcomes = self.outcomes(&caller, &before, &applied.state, keys);
                let revision = if message.dry_run { before.revision } else { applied.revision };
                Ok(Response::new(api::ApplyResponse { revision, applied: !message.dry_run, outcomes }))
            }
            Err(Refused::Invalid(faults)) => {
                let mut outcomes = codec::differences(&before, &proposals, &self.masks(&caller));
                codec::refuse(&mut outcomes, faults);
                Ok(Response::new(api::ApplyResponse { revision: before.revision, applied: false, outcomes }))
            }
            Err(refused) => Err(codec::status(refused)),
        }
    }

    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<api::GetResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let key = codec::key(message.key)?;
        let state = self.keeper.state();
        let stored = state.get(&key).ok_or_else(|| Status::not_found(format!("{key} does not exist")))?;
        let resource = codec::resource(&key, stored, &self.masks(&caller));
        Ok(Response::new(api::GetResponse { resource: Some(resource) }))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<api::ListResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let only = if message.collection.is_empty() { None } else { Some(codec::kind(&message.collection)?) };
        let after = codec::page_token(&message.page_token)?;
        let size = match message.page_size {
            0 => MAX_PAGE,
            size => usize::try_from(size).unwrap_or(MAX_PAGE).min(MAX_PAGE),
        };
        let state = self.keeper.state();
        let wanted = || state.all().filter(|(key, _)| only.is_none_or(|only| key.kind == only));
        let mut rest = wanted().skip_while(|(key, _)| after.as_ref().is_some_and(|after| key <= after)).peekable();
        let masks = self.masks(&caller);
        let (mut page, mut bytes) = (Vec::new(), 0);
        while let Some((key, stored)) = rest.next_if(|_| page.len() < size && bytes < PAGE_BYTES) {
            let resource = codec::resource(&key, stored, &masks);
            bytes += resource.json.len();
            page.push(resource);
        }
        let more = rest.peek().is_some();
        let next_page_token = page.last().filter(|_| more).and_then(codec::token_of).unwrap_or_default();
        let total = wanted().count() as u64;
        Ok(Response::new(api::ListResponse { resources: page, next_page_token, revision: state.revision, total }))
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Result<Response<api::DeleteResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Write)?;
        let key = codec::key(message.key)?;
        let options = Options { force: message.force, ..Options::by(author(&caller, &message.author)) };
        let applied = self.keeper.apply(vec![Intent::delete(key)], options).await.map_err(codec::status)?;
        Ok(Response::new(api::DeleteResponse { revision: applied.revision }))
    }

    type WatchStream = Watching;

    async fn watch(&self, request: Request<api::WatchRequest>) -> Result<Response<Watching>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let kinds = message.collections.iter().map(|name| codec::kind(name)).collect::<Result<Vec<_>, Status>>()?;
        let after = (message.after_revision > 0).then_some(message.after_revision);
        let watcher = Watcher::new(self.keeper.clone(), after, kinds).await.map_err(|error| codec::store_status(&error))?;
        let masks = self.masks(&caller);
        let events = stream::try_unfold(watcher, move |mut watcher| {
            let masks = masks.clone();
            async move {
                let event: Event = watcher.next().await.map_err(|error| codec::store_status(&error))?;
                Ok(Some((codec::event(event, &masks), watcher)))
            }
        });
        let refusals = message.refusals.then(|| stream::unfold(self.nodes.follow_refusals(), next_refusal));
        let refusals = stream::iter(refusals).flatten().map(|refusal| Ok(nodes::refusal(refusal)));
        let events = stream::select(events, refusals);
        let mut drain = self.drain.clone();
        Ok(Response::new(Box::pin(events.take_until(Box::pin(async move { drain.draining().await })))))
    }

    async fn history(&self, request: Request<api::HistoryRequest>) -> Result<Response<api::HistoryResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let key = message.key.map(|key| codec::key(Some(key))).transpose()?;
        let limit = match message.limit {
            0 => HISTORY.0,
            limit => usize::try_from(limit).unwrap_or(HISTORY.1).min(HISTORY.1),
        };
        let masks = key.is_some().then(|| self.masks(&caller));
        let mut before = (message.before_revision > 0).then_some(message.before_revision);
        let (mut revisions, mut read) = (Vec::new(), 0);
        while revisions.len() < limit && read < VERSIONS {
            let page = self.keeper.history(key.clone(), before, limit - revisions.len()).await;
            let page = page.map_err(|error| codec::store_status(&error))?;
            let Some(last) = page.last() else { break };
            before = Some(last.revision);
            read += page.len();
            revisions.append(&mut codec::revisions(&page, masks.as_ref()));
        }
        revisions.truncate(limit);
        Ok(Response::new(api::HistoryResponse { revisions }))
    }

    async fn diff(&self, request: Request<api::DiffRequest>) -> Result<Response<api::DiffResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let state = self.keeper.state();
        let proposals = self.proposals(message.changes, message.prune, &state)?;
        let mut outcomes = codec::differences(&state, &proposals, &self.masks(&caller));
        let options = Options { dry_run: true, skip_unchanged: true, ..Options::by(caller.name) };
        match self.keeper.apply(proposals.into_iter().map(intent).collect(), options).await {
            Ok(_) => {}
            Err(Refused::Invalid(faults)) => codec::refuse(&mut outcomes, faults),
            Err(refused) => return Err(codec::status(refused)),
        }
        Ok(Response::new(api::DiffResponse { revision: state.revision, outcomes }))
    }

    async fn rollback(&self, request: Request<api::RollbackRequest>) -> Result<Response<api::RollbackResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Write)?;
        let scope = match message.key {
            Some(key) => Scope::Resource(codec::key(Some(key))?),
            None => Scope::Everything,
        };
        let options = Options { dry_run: message.dry_run, ..Options::by(author(&caller, &message.author)) };
        let before = self.keeper.state();
        let applied = self.keeper.rollback(scope, message.to_revision, options).await.map_err(codec::status)?;
        let keys = applied.outcomes.iter().map(|outcome| outcome.key.clone());
        let outcomes = self.outcomes(&caller, &before, &applied.state, keys);
        let revision = if message.dry_run { before.revision } else { applied.revision };
        Ok(Response::new(api::RollbackResponse { revision, outcomes }))
    }

    async fn nodes(&self, request: Request<api::NodesRequest>) -> Result<Response<api::NodesResponse>, Status> {
        self.admit(request, Access::Read)?;
        let all_held = self.nodes.held();
        let nodes = self.nodes.nodes().into_iter().map(|view| {
            let (withheld, held) = (view.withheld.read(), all_held.from(&view).cloned().collect());
            nodes::node(view, &withheld, held)
        });
        Ok(Response::new(api::NodesResponse { nodes: nodes.collect() }))
    }

    async fn rollouts(&self, request: Request<api::RolloutsRequest>) -> Result<Response<api::RolloutsResponse>, Status> {
        self.admit(request, Access::Read)?;
        let groups = self.nodes.rollouts().view().into_iter().map(nodes::rollout).collect();
        Ok(Response::new(api::RolloutsResponse { groups }))
    }

    async fn resume_rollout(
        &self,
        request: Request<api::ResumeRolloutRequest>,
    ) -> Result<Response<api::ResumeRolloutResponse>, Status> {
        let (caller, api::ResumeRolloutRequest { group }) = self.admit(request, Access::Write)?;
        let resumed = self.nodes.rollouts().resume(&group);
        let resumed = resumed.ok_or_else(|| Status::not_found(format!("there is no group `{group}`: rollouts lists them")))?;
        tracing::warn!(group, resumed, author = %caller.name, "what was held goes on");
        Ok(Response::new(api::ResumeRolloutResponse { resumed: resumed as u64 }))
    }

    async fn explain(&self, request: Request<api::ExplainRequest>) -> Result<Response<api::ExplainResponse>, Status> {
        let (caller, message) = self.admit(request, Access::Read)?;
        let question = codec::question(message)?;
        let state = self.keeper.state();
        // Nobody waits for the explanation: it works on a copy.
        let directory = self.mesh.lock().directory().clone();
        let told = self.explainer.explain(&state, &directory, &question).map_err(Status::invalid_argument)?;
        Ok(Response::new(codec::explanation(told, state.revision, &self.masks(&caller))))
    }
}
