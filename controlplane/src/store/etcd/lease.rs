//! Rights on etcd: a key that goes with a lease. Who has the lease has the right.

use std::time::Duration;

use heddle_proto::etcd::etcdserverpb::TxnRequest;

use super::Etcd;
use super::client::{Trouble, get, put_for, reading, unchanged};
use super::read::ranges;
use crate::store::{Hold, StoreError};

impl Etcd {
    /// See [`crate::store::Leases::hold`].
    pub(super) async fn hold_lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<Hold, StoreError> {
        let known = self.held.lock().get(name).copied();
        let lease = match known {
            Some(lease) if self.client.renew(lease).await.map_err(Trouble::into_error)? => lease,
            _ => {
                let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
                let lease = self.client.grant(seconds).await.map_err(Trouble::into_error)?;
                self.held.lock().insert(name.to_owned(), lease);
                lease
            }
        };
        let key = self.keys.lease(name);
        let request = TxnRequest {
            compare: vec![unchanged(&key, 0)],
            success: vec![put_for(&key, holder.as_bytes().to_vec(), lease)],
            failure: vec![reading(get(&key))],
        };
        let answer = self.client.txn(request).await.map_err(Trouble::into_error)?;
        if answer.succeeded {
            return Ok(Hold::Ours);
        }
        match ranges(answer).into_iter().next() {
            Some(kv) if kv.lease == lease => Ok(Hold::Ours),
            Some(kv) => Ok(Hold::Others(String::from_utf8_lossy(&kv.value).into_owned())),
            // It ended just now; the next request finds it free.
            None => Ok(Hold::Others(String::new())),
        }
    }

    /// See [`crate::store::Leases::release`].
    pub(super) async fn release_lease(&self, name: &str) -> Result<(), StoreError> {
        let lease = self.held.lock().remove(name);
        match lease {
            Some(lease) => self.client.revoke(lease).await.map_err(Trouble::into_error),
            None => Ok(()),
        }
    }
}
