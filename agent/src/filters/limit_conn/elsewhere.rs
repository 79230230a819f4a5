//! Requests under way, counted in a Redis: places that are taken there and given back. It holds nobody up.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock::{self, Instant};
use tokio::runtime::Handle;

use super::super::limits::{Shelf, Ticket, Waiting};
use super::connections::{Bounds, Connections};
use crate::outbound::{RedisError, Script};

/// Takes a place for each key, or none at all. `ARGV`: who, milliseconds that a place lasts at most, and for each key how many there are.
/// The answer is how many are taken of each, nothing when one of them has none left.
static ENTER: Script = Script::new(
    "local time = redis.call('TIME') \
     local now, last = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2]) \
     local taken = {} \
     for i, key in ipairs(KEYS) do \
       redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now)) \
       local number = redis.call('ZCARD', key) \
       if number >= tonumber(ARGV[i + 2]) then \
         for j = 1, i - 1 do redis.call('ZREM', KEYS[j], ARGV[1]) end \
         return {} \
       end \
       redis.call('ZADD', key, string.format('%.0f', now + last), ARGV[1]) \
       redis.call('PEXPIRE', key, ARGV[2]) \
       taken[i] = number + 1 \
     end \
     return taken",
);

/// Gives the places back.
static LEAVE: Script = Script::new("for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end return {}");

/// How often, and how many times, giving back is tried.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES: usize = 60;

/// Where places are taken.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub shelf: Shelf,
    /// A place lasts at most this long.
    pub ttl: Duration,
    /// Requests whose places wait to be given back while Redis is away; those of more than that come back by themselves.
    pub leaving: Arc<Waiting>,
}

/// Places of one request in a Redis. However the request ends, they are given back.
#[derive(Debug)]
pub(super) struct Lease {
    elsewhere: Arc<Elsewhere>,
    keys: Vec<String>,
    who: String,
    /// Who learns what the request takes, from when on.
    teaches: Option<(Arc<Connections>, Instant)>,
}

impl Lease {
    /// For these keys; `who` is told by no other request.
    pub(super) fn new(elsewhere: &Arc<Elsewhere>, keys: &[u128], who: u128) -> Lease {
        let keys = keys.iter().map(|key| elsewhere.shelf.key(*key)).collect();
        Lease { elsewhere: elsewhere.clone(), keys, who: format!("{who:032x}"), teaches: None }
    }

    /// Takes the places and says which ones of those under way they are, `None` when one has none left.
    ///
    /// # Errors
    /// As [`Shelf::run`]; whether they are taken is then not known.
    pub(super) async fn take(&mut self, bounds: &[Bounds]) -> Result<Option<Vec<u64>>, RedisError> {
        let mut args = vec![self.who.clone(), self.elsewhere.ttl.as_millis().to_string()];
        args.extend(bounds.iter().map(|bounds| bounds.conn.saturating_add(bounds.burst).to_string()));
        let taken = self.elsewhere.shelf.run(&ENTER, &self.keys, &args).await?;
        if taken.len() == bounds.len() {
            return Ok(Some(taken.iter().map(|number| u64::try_from(*number).unwrap_or(0)).collect()));
        }
        // There is nothing to give back.
        self.keys.clear();
        if taken.is_empty() { Ok(None) } else { Err(RedisError::Malformed) }
    }

    /// Measures what the request takes from this moment on.
    pub(super) fn measure_from(&mut self, connections: Arc<Connections>, began: Instant) {
        self.teaches = Some((connections, began));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((connections, began)) = self.teaches.take() {
            connections.learn(clock::now().saturating_duration_since(began));
        }
        let (keys, who) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.who));
        if keys.is_empty() {
            return;
        }
        // Without a runtime the process ends, and the places come back by themselves.
        if let (Some(ticket), Ok(runtime)) = (self.elsewhere.leaving.enter(), Handle::try_current()) {
            runtime.spawn(leave(self.elsewhere.clone(), keys, who, ticket));
        }
    }
}

async fn leave(elsewhere: Arc<Elsewhere>, keys: Vec<String>, who: String, _ticket: Ticket) {
    let who = [who];
    for _ in 0..TRIES {
        if elsewhere.shelf.run(&LEAVE, &keys, &who).await.is_ok() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
