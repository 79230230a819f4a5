//! A caller's traffic that nobody may disturb: requests that may be sent again, such as never may, and a connection that stays open. It judges by answers alone.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

use crate::greeter::{echoes, greeted, greeter};
use crate::load::{Load, Tally};
use crate::mesh::{Mesh, Node, Service};
use crate::nginx::Nginx;
use crate::process::until;

/// `web` calls `api`, which answers requests, and `mail`, which speaks first; each behind a sidecar.
pub struct Called {
    pub web: Node,
    pub api: Node,
    pub mail: Node,
    _app: Nginx,
}

impl Called {
    pub fn start(mesh: &Mesh) -> Called {
        let app = Nginx::saying("yes");
        let api = mesh.sidecar(&Service::http("api", app.address));
        let mail = mesh.sidecar(&Service { protocol: "tcp", ..Service::http("mail", greeter()) });
        let web = mesh.sidecar(&Service { calls: &["api", "mail"], ..Service::http("web", mesh.control.place.address()) });
        mesh.until_reached(&web, "/");
        Called { web, api, mail, _app: app }
    }

    /// Begins to call, over so many connections of each kind that rest so long between an answer and the next request.
    pub fn traffic(&self, connections: usize, pause: Duration) -> Traffic {
        let [http, tcp] = [self.web.outbound[0], self.web.outbound[1]];
        Traffic {
            loads: [Load::paced(http, "/", connections, pause), Load::posting_paced(http, "/", connections, pause)],
            open: greeted(tcp),
        }
    }
}

/// What `web` is at.
pub struct Traffic {
    loads: [Load; 2],
    open: TcpStream,
}

impl Traffic {
    /// Waits until so many more requests of each kind are answered, and the open connection has said something.
    pub fn goes_on(&mut self, more: u64) {
        let targets = self.loads.each_ref().map(|load| load.requests() + more);
        until("the load to go on", || {
            self.loads.iter().zip(targets).all(|(load, target)| load.requests() >= target).then_some(())
        });
        echoes(&mut self.open, b"still here");
    }

    /// The open connection is cut, as whoever proved who they are when it was opened is trusted no more, and its client opens another one at once.
    pub fn connects_anew(&mut self, called: &Called) {
        let ended = self.open.read(&mut [0]);
        assert!(ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |bytes| *bytes == 0), "{ended:?}");
        self.open = greeted(called.web.outbound[1]);
    }

    /// Ends it: what came of requests that may be sent again, and of such as may not.
    pub fn end(mut self) -> [Tally; 2] {
        echoes(&mut self.open, b"to the end");
        self.loads.map(Load::stop)
    }

    /// Ends it, and nothing has failed.
    pub fn nothing_failed(self) {
        for tally in self.end() {
            assert!(tally.failures.is_empty() && tally.requests > 100, "{} requests: {:#?}", tally.requests, tally.failures);
        }
    }
}
