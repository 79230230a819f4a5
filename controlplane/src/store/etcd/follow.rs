//! Hearing of what others write: one stream of events, opened again wherever a member answers. It decides nothing.

use std::sync::{Arc, Weak};
use std::time::Duration;

use heddle_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use heddle_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use heddle_proto::etcd::mvccpb::event::EventType;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use super::Etcd;
use super::client::{Trouble, end_of};
use crate::store::StoreError;

/// The watch of `head`.
const HEAD: i64 = 1;
/// The watch of all records.
const RECORDS: i64 = 2;
/// Before a stream is opened again: the first of them, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Follows until the store is gone.
pub(super) async fn run(store: Weak<Etcd>, mut dice: fastrand::Rng) {
    let mut pause = PAUSE.0;
    loop {
        let Some(present) = store.upgrade() else { return };
        match follow(present, &store).await {
            Ok(()) => return,
            Err((true, _)) => pause = PAUSE.0,
            Err((false, error)) => tracing::debug!(%error, "the store on etcd is not followed"),
        }
        sleep(pause.mul_f64(0.5 + dice.f64() / 2.0)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// One stream. The error tells whether it was open; there is none when the store is gone.
async fn follow(present: Arc<Etcd>, store: &Weak<Etcd>) -> Result<(), (bool, StoreError)> {
    let ends = present.ends().await.map_err(|error| (false, error))?;
    let requests = vec![
        create(HEAD, present.keys.head(), Vec::new(), ends.at + 1),
        create(RECORDS, present.keys.records(), end_of(&present.keys.records()), ends.at + 1),
    ];
    let (requests, mut answers) =
        present.client.watch(requests).await.map_err(|trouble| (false, Trouble::into_error(trouble)))?;
    // What was written while nobody listened.
    present.hear().await.map_err(|error| (false, error))?;
    let _ = present.news.send(Arc::from([]));
    drop(present);
    let lost = |why: String| (true, StoreError::Away(why));
    while let Some(answer) = answers.next().await {
        let Some(present) = store.upgrade() else { return Ok(()) };
        let answer = answer.map_err(|status| lost(status.message().to_owned())).inspect_err(|_| present.client.elsewhere())?;
        if answer.canceled {
            return Err(lost(answer.cancel_reason));
        }
        present.told(answer).await.map_err(|error| (true, error))?;
    }
    drop(requests);
    Err(lost("the member hung up".into()))
}

fn create(watch_id: i64, key: String, range_end: Vec<u8>, start_revision: i64) -> WatchRequest {
    let create =
        WatchCreateRequest { key: key.into_bytes(), range_end, start_revision, watch_id, ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

impl Etcd {
    /// Takes over what an event tells.
    async fn told(&self, answer: WatchResponse) -> Result<(), StoreError> {
        if answer.events.is_empty() {
            return Ok(());
        }
        if answer.watch_id == HEAD {
            let modified = answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| kv.mod_revision).max();
            let known = self.mirror.lock().as_ref().map(|mirror| mirror.head);
            return if known >= modified { Ok(()) } else { self.hear().await };
        }
        let news: Vec<(String, Option<Vec<u8>>)> = answer
            .events
            .into_iter()
            .filter_map(|event| {
                let gone = event.r#type() == EventType::Delete;
                let kv = event.kv?;
                Some((self.record_name(&kv.key)?, (!gone).then_some(kv.value)))
            })
            .collect();
        // Nobody has to listen.
        let _ = self.news.send(news.into());
        Ok(())
    }

    /// Learns what is new, in its turn.
    async fn hear(&self) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        self.catch_up().await.map(drop)
    }
}
