//! A request that nobody sent: what `explain` and tests ask the route table and filters about. It opens nothing and knows no tables.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::{ConnectionInfo, ConsumerInfo, Directory, Exchange, OriginalTarget};
use crate::http::digits::AddressText;
use crate::http::{Method, RequestHead};

/// A directory in which nobody stands.
#[derive(Debug, Default)]
pub struct EmptyDirectory;

impl Directory for EmptyDirectory {
    fn find_credential(&self, _plugin: &str, _value: &[u8]) -> Option<Arc<ConsumerInfo>> {
        None
    }

    fn consumer(&self, _username: &str) -> Option<Arc<ConsumerInfo>> {
        None
    }
}

/// A request to imagine.
#[derive(Debug, Clone)]
pub struct Imagined<'a> {
    /// Method token.
    pub method: &'a str,
    /// Host and optional port.
    pub authority: &'a str,
    /// Normalised path and optional query.
    pub target: &'a str,
    /// Header fields.
    pub fields: &'a [(&'a str, &'a str)],
    /// Client address.
    pub remote: SocketAddr,
    /// Address it connects to.
    pub local: SocketAddr,
}

impl Imagined<'_> {
    /// The exchange as the pipeline would have it before the route is looked up; `now` is when it came, in Unix milliseconds `now_ms`.
    pub fn exchange(&self, now: Instant, now_ms: u64, directory: Rc<dyn Directory>) -> Exchange {
        let connection = ConnectionInfo {
            id: 1,
            listener: "imagined".into(),
            peer: self.remote,
            peer_text: AddressText::of(self.remote),
            transport_peer: self.remote,
            local: self.local,
            tls: None,
            door: crate::exchange::Door::Gateway,
            inner: false,
        };
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (self.target, None),
        };
        let mut request = RequestHead {
            method: Method::from_token(self.method),
            authority: self.authority.to_ascii_lowercase(),
            path: path.to_owned(),
            query,
            ..RequestHead::default()
        };
        for (name, value) in self.fields {
            request.fields.append(name, value);
        }
        let original =
            OriginalTarget { method: request.method.clone(), path: request.path.clone(), query: request.query.clone() };
        let mut x =
            Exchange::new(Rc::new(connection), Box::new(request), now, now_ms, directory, fastrand::Rng::with_seed(now_ms));
        x.original = original;
        x
    }
}
