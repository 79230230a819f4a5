//! Compaction: the state at the new floor is laid down as a base, then the floor moves, then what nobody can ask for goes. A crash between the steps leaves
//! the old floor, or what the next compaction removes. Where that is asked for, the leader also lets etcd forget its own history, which is none of ours.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_proto::etcd::etcdserverpb::{Compare, RequestOp, TxnRequest};
use tokio::time::sleep;

use super::Etcd;
use super::client::{Trouble, delete_range, end_of, put, range, unchanged};
use super::layout::{Entry, Floor, Kept, PART, form, json, number};
use crate::store::{Revision, StoreError};

/// Entries that are looked at for parts together.
const PAGE: i64 = 100;

impl Etcd {
    /// Moves the floor; see [`crate::store::Store::compact`].
    pub(super) async fn move_floor(&self, keep_revisions: u64, since_ms: u64) -> Result<Revision, StoreError> {
        let _turn = self.turn.lock().await;
        self.catch_up().await?;
        let (old, wanted) = match &*self.mirror.lock() {
            Some(mirror) => (mirror.floor, mirror.floor_for(keep_revisions, since_ms)),
            None => return Err(StoreError::Away("the store on etcd was not read yet".into())),
        };
        if wanted == old {
            return Ok(old);
        }
        let (ends, _, replay) = self.replay(Some(wanted)).await?;
        let mut parts = Vec::new();
        for kept in replay.foreign.values() {
            parts.push(json(kept)?);
        }
        for version in replay.into_versions() {
            parts.push(json(&Kept::of(&version))?);
        }
        let count = self.lay_down(wanted, parts).await?;
        let floor = Floor { revision: wanted, parts: count };
        let compare = vec![unchanged(&self.keys.floor(), ends.floor_modified)];
        if !self.when(compare, vec![put(&self.keys.floor(), json(&floor)?)]).await? {
            return Err(StoreError::Changed("floor".into()));
        }
        if let Some(mirror) = &mut *self.mirror.lock() {
            mirror.forget(wanted);
        }
        self.remove_below(wanted).await?;
        Ok(wanted)
    }

    /// Writes a base in parts; gives their number.
    pub(super) async fn lay_down(&self, floor: Revision, versions: Vec<Vec<u8>>) -> Result<usize, StoreError> {
        let (mut part, mut count) = (Vec::new(), 0);
        let mut versions = versions.into_iter().peekable();
        while let Some(version) = versions.next() {
            part.push(if part.is_empty() { b'[' } else { b',' });
            part.extend_from_slice(&version);
            let full = versions.peek().is_none_or(|next| part.len() + next.len() > PART);
            if full {
                part.push(b']');
                let key = format!("{}{count:04x}", self.keys.base(floor));
                self.when(Vec::new(), vec![put(&key, std::mem::take(&mut part))]).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Removes bases and entries before a floor, and the parts of entries.
    async fn remove_below(&self, floor: Revision) -> Result<(), StoreError> {
        let mut from = self.keys.logs();
        loop {
            let end = self.keys.log(floor).into_bytes();
            let page = self.client.range(range(&from, end, PAGE, false)).await.map_err(Trouble::into_error)?;
            for kv in &page.kvs {
                let entry: Entry = form(&kv.key, &kv.value)?;
                if let Some(revision) = number(&kv.key).filter(|_| entry.parts > 0) {
                    let parts = self.keys.parts(&entry.token, revision);
                    self.when(Vec::new(), vec![delete_range(&parts, end_of(&parts))]).await?;
                }
            }
            let Some(last) = page.kvs.last() else { break };
            from = format!("{}\0", String::from_utf8_lossy(&last.key));
        }
        let gone = [
            delete_range(&self.keys.logs(), self.keys.log(floor).into_bytes()),
            delete_range(&self.keys.bases(), self.keys.base(floor).into_bytes()),
        ];
        self.when(Vec::new(), gone.to_vec()).await?;
        Ok(())
    }

    /// Lets etcd forget, every so often, what was written before the time before, as long as this process `leads`. It is for clusters that are not shared and do
    /// not compact by themselves: whoever else keeps something there loses its history too.
    pub async fn forget_every(self: Arc<Self>, every: Duration, leads: impl Fn() -> bool + Send, mut drain: DrainWatch) {
        let mut before = None;
        loop {
            tokio::select! {
                () = sleep(every) => {}
                () = drain.draining() => return,
            }
            match self.forget_before(before.filter(|_| leads())).await {
                Ok(now) => before = Some(now),
                Err(error) => tracing::warn!(%error, "etcd could not be asked to forget its own history"),
            }
        }
    }

    /// Lets etcd forget what was before one of its revisions; gives the one of now.
    pub(super) async fn forget_before(&self, revision: Option<i64>) -> Result<i64, StoreError> {
        let now = self.ends().await?.at;
        match revision {
            None => Ok(now),
            Some(revision) => match self.client.compact(revision).await {
                // Somebody was faster.
                Ok(()) | Err(Trouble::Compacted) => Ok(now),
                Err(trouble) => Err(trouble.into_error()),
            },
        }
    }

    /// Carries out operations when comparisons hold.
    pub(super) async fn when(&self, compare: Vec<Compare>, success: Vec<RequestOp>) -> Result<bool, StoreError> {
        let answer = self.client.txn(TxnRequest { compare, success, failure: Vec::new() }).await;
        Ok(answer.map_err(Trouble::into_error)?.succeeded)
    }
}
