//! Servers outside of the mesh, to which a proxy passes requests on: an upstream of one endpoint each, a few of which are remembered for their connections. It knows
//! no names.

use std::net::SocketAddr;
use std::sync::Arc;

use heddle_node::clock;
use heddle_xds::model;
use parking_lot::Mutex;

use super::cluster::{Context, Edition};

/// The most servers that are remembered: the one that was asked least lately is let go of first.
const MAX_SERVERS: usize = 256;

/// The servers; what all workers share of them.
#[derive(Default)]
pub struct Outside {
    context: Arc<Context>,
    /// The one asked last comes first.
    known: Mutex<Vec<(SocketAddr, Arc<Edition>)>>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("known", &self.known.lock().len()).finish_non_exhaustive()
    }
}

impl Outside {
    /// The server at this address, as an upstream that speaks HTTP/1 in clear.
    pub fn at(&self, address: SocketAddr) -> Arc<Edition> {
        let mut known = self.known.lock();
        if let Some(at) = known.iter().position(|(other, _)| *other == address) {
            known[..=at].rotate_right(1);
            return known[0].1.clone();
        }
        let endpoint = model::Endpoint {
            host: address.ip().to_string().into(),
            port: address.port(),
            weight: 1,
            ..model::Endpoint::default()
        };
        let config = Arc::new(upstream(format!("outside/{address}").into()));
        let edition = Edition::first(self.context.clone(), config, &[endpoint].into(), &|_: &str| None, clock::now());
        known.insert(0, (address, edition.clone()));
        if known.len() > MAX_SERVERS
            && let Some((_, last)) = known.pop()
        {
            last.retire();
        }
        edition
    }
}

/// Nothing is tried twice: what the application sends to others is its own affair.
fn upstream(name: Arc<str>) -> model::Upstream {
    model::Upstream { label: "outside".into(), ..model::Upstream::new(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn servers_are_remembered_while_they_are_asked_and_no_more_than_a_few() {
        let outside = Outside::default();
        let (first, second) = (outside.at(at(1)), outside.at(at(2)));
        assert!(Arc::ptr_eq(&first, &outside.at(at(1))));
        assert_eq!(first.view().endpoints.len(), 1);
        (3..=MAX_SERVERS as u16 + 1).for_each(|port| drop(outside.at(at(port))));
        assert!(second.is_retired() && !first.is_retired());
        assert!(!Arc::ptr_eq(&second, &outside.at(at(2))));
    }
}
