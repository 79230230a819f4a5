//! One thing of Consul that is watched: answers as they change, failures as they come. It decides nothing about what it sees.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::sync::OwnedSemaphorePermit;

use super::client::Consul;
use super::crowd::Waiter;
use super::index::{Cursor, Step, pause};
use super::query::{Query, Scope};
use super::{ConsulError, transport::Raw};
use crate::clock::{self, Instant};

/// Between two answers to one query: something that changes all the time is looked at fifty times a second at most.
const PACE: Duration = Duration::from_millis(20);

/// A value as Consul has it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<T> {
    /// The value.
    pub value: T,
    /// Its index.
    pub index: u64,
    /// It is the first since the index went backwards: Consul was restored or has begun anew.
    pub reset: bool,
    /// Consul says that its ACLs took something out of it.
    pub filtered: bool,
}

/// What is watched.
pub struct Watch<T> {
    consul: Consul,
    query: Query,
    read: fn(&Raw, &str, &Query) -> Result<T, ConsulError>,
    cursor: Cursor,
    dice: fastrand::Rng,
    failures: u32,
    /// Nothing is asked before.
    not_before: Option<Instant>,
    turn: Turn,
}

/// How a watch learns of changes.
enum Turn {
    /// It holds a blocking query whatever else is watched.
    Own,
    /// It holds one while there is one left for it, else it is one of a crowd. Where in Consul the crowd waits.
    Shared(Scope, Option<Holding>),
}

/// What it has of that.
enum Holding {
    Query { _held: OwnedSemaphorePermit },
    Place(Waiter),
}

impl<T> std::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("query", &self.query.text()).field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl<T> Watch<T> {
    /// Watches what `query` asks for, read by `read`, by a query of its own: there are few of these.
    pub(super) fn alone(
        consul: &Consul,
        query: Query,
        dice: fastrand::Rng,
        read: fn(&Raw, &str, &Query) -> Result<T, ConsulError>,
    ) -> Watch<T> {
        let (query, turn) = (query.consistency(consul.settings().consistency), Turn::Own);
        Watch { consul: consul.clone(), query, read, cursor: Cursor::default(), dice, failures: 0, not_before: None, turn }
    }

    /// The same, one of many: the settings say how many may hold a query of their own.
    pub(super) fn of_many(mut self, scope: Scope) -> Watch<T> {
        self.turn = Turn::Shared(scope, None);
        self
    }

    /// The value when it may have changed; the first one comes at once. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Consul did not answer well. Calling again asks again, after a pause that grows with every failure in a row.
    pub async fn next(&mut self) -> Result<Seen<T>, ConsulError> {
        loop {
            if let Some(moment) = self.not_before {
                tokio::time::sleep_until(moment).await;
            }
            let asked = self.ask().await;
            let now = clock::now();
            match asked {
                Ok(seen) => {
                    self.failures = 0;
                    self.not_before = Some(now + PACE);
                    if let Some(seen) = seen {
                        return Ok(seen);
                    }
                }
                Err(error) => {
                    self.cursor.fail();
                    self.not_before = Some(now + pause(self.failures, &mut self.dice));
                    self.failures = self.failures.saturating_add(1);
                    return Err(error);
                }
            }
        }
    }

    /// One query; `None`: nothing has changed, or the query starts anew.
    async fn ask(&mut self) -> Result<Option<Seen<T>>, ConsulError> {
        self.take_turn();
        let (consul, settings) = (&self.consul, self.consul.settings());
        let (mut query, mut limit) = (self.query.clone(), settings.timeout);
        let mut slot = None;
        if let Turn::Shared(_, Some(Holding::Place(place))) = &mut self.turn {
            place.wait(self.cursor.ask() == 0).await;
            slot = consul.crowds().slot().await;
        } else if self.cursor.ask() != 0 {
            let wait = settings.wait;
            query = query.with("index", &self.cursor.ask().to_string()).with("wait", &format!("{}ms", wait.as_millis()));
            // Consul waits up to a sixteenth longer, at random.
            limit += wait + wait / 16;
        }
        let (address, raw) = consul.ask(Method::GET, &query, Bytes::new(), limit).await?;
        drop(slot);
        let number = |name: &str| raw.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
        let is_true = |name: &str| raw.headers.get(name).is_some_and(|value| value.as_bytes() == b"true");
        let Some(index) = number("x-consul-index") else {
            let path = self.query.text().to_owned();
            return Err(ConsulError::Malformed { address, path, why: "the header X-Consul-Index is missing".into() });
        };
        // A value that cannot be read must be asked for again, so it is read before the index is taken note of.
        let mut cursor = self.cursor;
        let step = cursor.take(index);
        let seen = match step {
            Step::News { reset } => {
                let value = (self.read)(&raw, &address, &query)?;
                Some(Seen { value, index: cursor.seen(), reset, filtered: is_true("x-consul-results-filtered-by-acls") })
            }
            Step::Same | Step::Again => None,
        };
        self.cursor = cursor;
        if let Turn::Shared(_, Some(Holding::Place(place))) = &mut self.turn {
            place.has_asked();
        }
        Ok(seen)
    }

    /// Takes a query of its own when one is left, else a place in the crowd.
    fn take_turn(&mut self) {
        let Turn::Shared(scope, holding) = &mut self.turn else { return };
        if matches!(holding, Some(Holding::Query { .. })) {
            return;
        }
        if let Some(permit) = self.consul.turn() {
            *holding = Some(Holding::Query { _held: permit });
        } else if holding.is_none() {
            *holding = Some(Holding::Place(self.consul.crowds().join(&self.consul, scope, &mut self.dice)));
        }
    }
}
