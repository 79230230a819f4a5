//! Requests to an etcd cluster: any member will do, none is waited for long, and who we are is said where it is asked for. It knows keys and values, not what they mean.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heddle_node::config::Secret;
use heddle_proto::etcd::etcdserverpb::auth_client::AuthClient;
use heddle_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use heddle_proto::etcd::etcdserverpb::kv_client::KvClient;
use heddle_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use heddle_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use heddle_proto::etcd::etcdserverpb::request_op::Request as Op;
use heddle_proto::etcd::etcdserverpb::watch_client::WatchClient;
use heddle_proto::etcd::etcdserverpb::{
    AuthenticateRequest, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    LeaseRevokeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::channel::{EtcdSettings, channels};
use crate::store::StoreError;

/// How long one member may take for one request.
const ATTEMPT: Duration = Duration::from_millis(2_000);
/// Says that only a member that sees a leader may answer.
const LED: &str = "hasleader";
/// Bytes of an answer.
const MAX_ANSWER: usize = 96 << 20;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nobody answered, or no member has a leader: asking again later may help. A write may have been carried out.
    Away(String),
    /// The cluster has no room.
    Full(String),
    /// The revision of etcd that was asked for is compacted away.
    Compacted,
    /// The cluster refuses, and will again.
    Refused(String),
}

impl Trouble {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Trouble::Away(why) => StoreError::Away(format!(
                "the store on etcd does not answer ({why}): see that a majority of its members runs and is reached"
            )),
            Trouble::Full(why) => StoreError::Full(format!("etcd: {why}: raise its quota, defragment it and disarm its alarm")),
            Trouble::Compacted => StoreError::Away("etcd forgot a revision while it was being read".into()),
            Trouble::Refused(why) => StoreError::Unusable(format!("etcd refuses: {why}")),
        }
    }
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Trouble {
        let why = status.message().to_owned();
        match status.code() {
            Code::ResourceExhausted if why.contains("space") => Trouble::Full(why),
            Code::OutOfRange if why.contains("compacted") => Trouble::Compacted,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unimplemented
            | Code::OutOfRange => Trouble::Refused(why),
            _ => Trouble::Away(if why.is_empty() { status.code().description().to_owned() } else { why }),
        }
    }
}

/// A cluster.
pub(super) struct Client {
    channels: Vec<Channel>,
    /// The member that answered last.
    present: AtomicUsize,
    login: Option<(String, Secret)>,
    token: Mutex<Option<String>>,
}

impl Client {
    pub(super) fn new(settings: &EtcdSettings, first: usize) -> Result<Client, StoreError> {
        let channels = channels(settings)?;
        let present = AtomicUsize::new(first % channels.len());
        Ok(Client { channels, present, login: settings.login.clone(), token: Mutex::new(None) })
    }

    /// Asks one member after the other, each once, beginning with the one that answered last.
    async fn ask<Q, A, F>(&self, message: &Q, send: impl Fn(Channel, Request<Q>) -> F) -> Result<A, Trouble>
    where
        Q: Clone + 'static,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut last = Trouble::Away("there is no member".into());
        for _ in 0..self.channels.len() {
            let at = self.present.load(Ordering::Relaxed);
            match self.attempt(at, message, &send).await {
                Err(Trouble::Away(why)) => {
                    last = Trouble::Away(why);
                    self.leave(at);
                }
                other => return other,
            }
        }
        Err(last)
    }

    /// The next request goes to the next member.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.channels.len();
        let _ = self.present.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn attempt<Q, A, F>(&self, at: usize, message: &Q, send: &impl Fn(Channel, Request<Q>) -> F) -> Result<A, Trouble>
    where
        Q: Clone + 'static,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let channel = self.channels[at].clone();
        let alone = alone(message);
        for renewed in [false, true] {
            let mut request = self.request(&channel, message.clone(), renewed).await?;
            if alone {
                request.metadata_mut().remove(LED);
            }
            let late = || Trouble::Away(format!("a member did not answer within {} ms", ATTEMPT.as_millis()));
            match timeout(ATTEMPT, send(channel.clone(), request)).await.map_err(|_| late())? {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) if !renewed && self.login.is_some() && outdated(&status) => {}
                Err(status) => return Err(status.into()),
            }
        }
        Err(Trouble::Refused("the token that etcd gave a moment ago is not accepted".into()))
    }

    /// A request that says who we are, and that only a member with a leader may answer.
    async fn request<Q>(&self, channel: &Channel, message: Q, renew: bool) -> Result<Request<Q>, Trouble> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(LED, MetadataValue::from_static("true"));
        let Some((name, password)) = &self.login else { return Ok(request) };
        let known = self.token.lock().clone().filter(|_| !renew);
        let token = match known {
            Some(token) => token,
            None => {
                let ask = AuthenticateRequest { name: name.clone(), password: password.reveal().to_owned() };
                let mut client = AuthClient::new(channel.clone());
                let answer = timeout(ATTEMPT, client.authenticate(ask)).await;
                let answer = answer.map_err(|_| Trouble::Away("a member did not say who we are".into()))?;
                let token = answer?.into_inner().token;
                *self.token.lock() = Some(token.clone());
                token
            }
        };
        let token = token.parse().map_err(|_| Trouble::Refused("the token that etcd gives is no header".into()))?;
        request.metadata_mut().insert("token", token);
        Ok(request)
    }

    pub(super) async fn range(&self, message: RangeRequest) -> Result<RangeResponse, Trouble> {
        self.ask(&message, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).range(request).await
        })
        .await
    }

    /// A transaction. After [`Trouble::Away`] it may have been carried out.
    pub(super) async fn txn(&self, message: TxnRequest) -> Result<TxnResponse, Trouble> {
        self.ask(&message, |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).txn(request).await
        })
        .await
    }

    /// Lets etcd forget what was before one of its revisions.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Trouble> {
        let message = CompactionRequest { revision, physical: false };
        self.ask(&message, |channel, request| async move { KvClient::new(channel).compact(request).await }).await.map(drop)
    }

    /// A lease that ends `seconds` after it was renewed last.
    pub(super) async fn grant(&self, seconds: i64) -> Result<i64, Trouble> {
        let message = LeaseGrantRequest { ttl: seconds, id: 0 };
        let answer =
            self.ask(&message, |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await }).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(Trouble::Refused(answer.error)) }
    }

    /// Renews a lease; `false` when it has ended.
    pub(super) async fn renew(&self, id: i64) -> Result<bool, Trouble> {
        let message = LeaseKeepAliveRequest { id };
        let send = |channel: Channel, request: Request<LeaseKeepAliveRequest>| async move {
            let (head, extensions, message) = request.into_parts();
            let request = Request::from_parts(head, extensions, tokio_stream::once(message));
            let mut answers = LeaseClient::new(channel).lease_keep_alive(request).await?.into_inner();
            let answer = answers.next().await.unwrap_or_else(|| Err(Status::unavailable("the member hung up")))?;
            Ok(Response::new(answer))
        };
        Ok(self.ask(&message, send).await?.ttl > 0)
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<(), Trouble> {
        let message = LeaseRevokeRequest { id };
        self.ask(&message, |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await }).await?;
        Ok(())
    }

    /// Opens a stream of events; it ends when the sender of requests is dropped.
    pub(super) async fn watch(
        &self,
        requests: Vec<WatchRequest>,
    ) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Trouble> {
        let at = self.present.load(Ordering::Relaxed);
        let channel = self.channels[at].clone();
        let (sender, queue) = mpsc::channel(requests.len().max(1));
        for request in requests {
            let _ = sender.send(request).await;
        }
        let request = self.request(&channel, ReceiverStream::new(queue), true).await?;
        let mut client = WatchClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let opened = timeout(ATTEMPT, client.watch(request)).await.unwrap_or_else(|_| Err(Status::unavailable("no answer")));
        match opened {
            Ok(response) => Ok((sender, response.into_inner())),
            Err(status) => {
                self.leave(at);
                Err(status.into())
            }
        }
    }

    /// The stream of the present member ended: the next one goes to another.
    pub(super) fn elsewhere(&self) {
        self.leave(self.present.load(Ordering::Relaxed));
    }
}

/// Whether one member may answer by what it knows itself, also without a leader.
fn alone<Q: 'static>(message: &Q) -> bool {
    (message as &dyn std::any::Any).downcast_ref::<RangeRequest>().is_some_and(|range| range.serializable)
}

/// Whether a request was refused because the token has expired or the rules have changed.
fn outdated(status: &Status) -> bool {
    status.code() == Code::Unauthenticated || status.message().contains("revision of auth store is old")
}

/// The first key behind all that begin with `prefix`, which ends with a byte below 0xff.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// Reads one key.
pub(super) fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() }
}

/// Reads keys from `from` on, before `end`, `limit` at most.
pub(super) fn range(from: &str, end: Vec<u8>, limit: i64, descending: bool) -> RangeRequest {
    let order = if descending { SortOrder::Descend } else { SortOrder::Ascend };
    RangeRequest {
        key: from.as_bytes().to_vec(),
        range_end: end,
        limit,
        sort_order: order.into(),
        sort_target: SortTarget::Key.into(),
        ..RangeRequest::default()
    }
}

pub(super) fn reading(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Op::RequestRange(request)) }
}

pub(super) fn put(key: &str, value: Vec<u8>) -> RequestOp {
    put_for(key, value, 0)
}

/// Puts a key that goes with a lease.
pub(super) fn put_for(key: &str, value: Vec<u8>, lease: i64) -> RequestOp {
    let request = PutRequest { key: key.as_bytes().to_vec(), value, lease, ..PutRequest::default() };
    RequestOp { request: Some(Op::RequestPut(request)) }
}

/// Lets a key that went with a lease stay for good.
pub(super) fn keep(key: &str) -> RequestOp {
    let request = PutRequest { key: key.as_bytes().to_vec(), ignore_value: true, ..PutRequest::default() };
    RequestOp { request: Some(Op::RequestPut(request)) }
}

/// Deletes one key.
pub(super) fn delete(key: &str) -> RequestOp {
    delete_range(key, Vec::new())
}

/// Deletes keys from `from` on, before `end`.
pub(super) fn delete_range(from: &str, end: Vec<u8>) -> RequestOp {
    let request = DeleteRangeRequest { key: from.as_bytes().to_vec(), range_end: end, prev_kv: false };
    RequestOp { request: Some(Op::RequestDeleteRange(request)) }
}

/// Several operations as one.
pub(super) fn nested(success: Vec<RequestOp>) -> RequestOp {
    RequestOp { request: Some(Op::RequestTxn(TxnRequest { compare: Vec::new(), success, failure: Vec::new() })) }
}

/// A key was changed last by this revision of etcd; 0: it does not exist.
pub(super) fn unchanged(key: &str, modified: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.as_bytes().to_vec(),
        range_end: Vec::new(),
        target_union: Some(TargetUnion::ModRevision(modified)),
    }
}
