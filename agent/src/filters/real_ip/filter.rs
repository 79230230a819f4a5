//! The filter of `real-ip`.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::client::{forwarded_for, parse_hop};
use crate::exchange::expr::parse_net;
use crate::exchange::ranges::Ranges;
use crate::exchange::{Exchange, Variable};

struct RealIp {
    source: Source,
    trusted: Option<Ranges>,
}

/// Where the address stands.
enum Source {
    /// In `X-Forwarded-For`, which lists hops.
    ForwardedFor {
        /// Whether trusted hops are passed over.
        recursive: bool,
    },
    /// In a variable.
    Variable(Variable),
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let source = match config.source.as_str() {
        "http_x_forwarded_for" => Source::ForwardedFor { recursive: config.recursive },
        name => Source::Variable(Variable::new(name)),
    };
    let trusted = config.trusted_addresses.map(|list| Ranges::new(list.iter().filter_map(|text| parse_net(text))));
    Ok(Arc::new(RealIp { source, trusted }))
}

impl Filter for RealIp {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if self.trusts(x.remote)
            && let Some(client) = self.client(x)
        {
            x.remote = client;
        }
        Flow::Continue
    }
}

impl RealIp {
    fn trusts(&self, address: SocketAddr) -> bool {
        self.trusted.as_ref().is_none_or(|trusted| trusted.contains(address.ip()))
    }

    /// Who the client is; `None` when nothing is said, or nothing that is an address.
    fn client(&self, x: &Exchange) -> Option<SocketAddr> {
        match &self.source {
            Source::Variable(variable) => parse_hop(variable.get(x)?.as_bytes()),
            Source::ForwardedFor { recursive: true } if self.trusted.is_some() => self.first_untrusted(x),
            Source::ForwardedFor { .. } => parse_hop(forwarded_for(&x.request.fields).next()?),
        }
    }

    /// The last hop that is not trusted; the first one when all are. What stands before a hop that is no address is not believed.
    fn first_untrusted(&self, x: &Exchange) -> Option<SocketAddr> {
        let mut client = None;
        for hop in forwarded_for(&x.request.fields) {
            let Some(address) = parse_hop(hop) else { break };
            client = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        client
    }
}
