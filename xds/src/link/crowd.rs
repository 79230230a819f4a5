//! How many connections a port bears: of one address, of all, and such that have not shown yet what they are. It accepts nothing.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use heddle_node::clock::Instant;
use tokio::task::JoinHandle;

/// Open connections: twice the streams of discovery that are served, as each agent watches its bundles too.
const MAX_OPEN: usize = 20_000;
/// Open connections of one address; behind one there may be a site of many agents. Those of this machine have no such bound.
const MAX_OF_ADDRESS: usize = 1_000;
/// Handshakes at the same time. Whoever really comes is done within milliseconds; when there are more, the address that has most of them gives up its oldest.
const MAX_HANDSHAKES: usize = 256;
/// Refusals are told once in this time.
const TELL: Duration = Duration::from_secs(10);

/// The open connections of a port. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    open: usize,
    of: HashMap<IpAddr, usize>,
    told: Option<Instant>,
}

/// Why there is no seat.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// How many are open.
    pub(super) open: usize,
    /// Of whom.
    pub(super) of: String,
    /// It has not been told for a while.
    pub(super) is_to_be_told: bool,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Crowd,
    /// `None`: it is of this machine, and not counted by address.
    address: Option<IpAddr>,
}

impl Crowd {
    /// A place for a connection from there.
    pub(super) fn seat(&self, from: IpAddr, now: Instant) -> Result<Seat, Refused> {
        let from = from.to_canonical();
        let address = Some(from).filter(|from| !from.is_loopback());
        let mut inner = self.lock();
        let of_address = address.and_then(|address| inner.of.get(&address)).copied().unwrap_or_default();
        let (open, of) = match () {
            () if inner.open >= MAX_OPEN => (inner.open, "all addresses".to_owned()),
            () if of_address >= MAX_OF_ADDRESS => (of_address, from.to_string()),
            () => {
                inner.open += 1;
                address.into_iter().for_each(|address| *inner.of.entry(address).or_default() += 1);
                return Ok(Seat { crowd: self.clone(), address });
            }
        };
        let is_to_be_told = inner.told.is_none_or(|told| now.saturating_duration_since(told) >= TELL);
        if is_to_be_told {
            inner.told = Some(now);
        }
        Err(Refused { open, of, is_to_be_told })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.crowd.lock();
        inner.open -= 1;
        if let Some(address) = self.address
            && let Some(count) = inner.of.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inner.of.remove(&address);
            }
        }
    }
}

/// Handshakes that are under way, the oldest first, and whose they are.
#[derive(Debug, Default)]
pub(super) struct Handshakes(VecDeque<(IpAddr, JoinHandle<()>)>);

impl Handshakes {
    /// One more; when there are too many, one is given up: the oldest one of the address that has most, so that nobody is pushed out by a stranger who opens many.
    pub(super) fn begin(&mut self, from: IpAddr, handshake: JoinHandle<()>) {
        while self.0.front().is_some_and(|(_, oldest)| oldest.is_finished()) {
            self.0.pop_front();
        }
        if self.0.len() >= MAX_HANDSHAKES {
            self.0.retain(|(_, other)| !other.is_finished());
        }
        self.0.push_back((from.to_canonical(), handshake));
        if self.0.len() > MAX_HANDSHAKES
            && let Some((_, given_up)) = self.oldest_of_the_greediest().and_then(|at| self.0.remove(at))
        {
            given_up.abort();
        }
    }

    fn oldest_of_the_greediest(&self) -> Option<usize> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.0.iter().for_each(|(from, _)| *counts.entry(*from).or_default() += 1);
        let most = counts.values().copied().max()?;
        self.0.iter().position(|(from, _)| counts.get(from) == Some(&most))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_node::clock;

    use super::*;

    #[tokio::test]
    async fn who_opens_many_pushes_out_nobody_but_himself() {
        let at = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut handshakes = Handshakes::default();
        let waits = || tokio::spawn(std::future::pending::<()>());
        (1..=9).for_each(|honest| handshakes.begin(at(honest), waits()));
        (0..3 * MAX_HANDSHAKES).for_each(|_| handshakes.begin(at(99), waits()));
        assert_eq!(handshakes.0.len(), MAX_HANDSHAKES);
        assert!((1..=9).all(|honest| handshakes.0.iter().any(|(from, _)| *from == at(honest))));
        // Where all have one, the oldest goes.
        let mut handshakes = Handshakes::default();
        (0..=MAX_HANDSHAKES)
            .for_each(|number| handshakes.begin(IpAddr::from([10, 1, (number >> 8) as u8, number as u8]), waits()));
        assert_eq!(handshakes.0.front().map(|(from, _)| *from), Some(IpAddr::from([10, 1, 0, 1])));
    }

    #[test]
    fn one_address_cannot_take_all_places_and_refusals_are_told_once() {
        let (crowd, now) = (Crowd::default(), clock::now());
        let greedy: IpAddr = "10.0.0.1".parse().unwrap();
        let mut seats: Vec<Seat> = (0..MAX_OF_ADDRESS).map(|_| crowd.seat(greedy, now).unwrap()).collect();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let refused = crowd.seat(mapped, now).unwrap_err();
        assert_eq!(refused, Refused { open: MAX_OF_ADDRESS, of: "10.0.0.1".into(), is_to_be_told: true });
        assert!(!crowd.seat(greedy, now).unwrap_err().is_to_be_told);
        assert!(crowd.seat("10.0.0.2".parse().unwrap(), now).is_ok());
        seats.pop();
        assert!(crowd.seat(greedy, now).is_ok());
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let more: Vec<_> = (0..MAX_OPEN).map_while(|_| crowd.seat(local, now).ok()).collect();
        assert_eq!(more.len() + seats.len(), MAX_OPEN);
        drop((seats, more));
        assert!(crowd.lock().of.is_empty() && crowd.lock().open == 0);
    }
}
