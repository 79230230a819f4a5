//! The wolf server of a consumer: how it is reached and what its users are called upstream. It decides nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::config::Credential;
use crate::exchange::Exchange;
use crate::http::{FieldName, Fields};
use crate::outbound::{Outbound, Remote, RemoteOptions};

/// A consumer's wolf server.
pub(super) struct Server {
    url: String,
    /// The server as routes reach it that trust its certificate unseen, and that do not; each made when it is first needed.
    remotes: [OnceLock<Result<Remote, String>>; 2],
    user_id: FieldName,
    username: FieldName,
    nickname: FieldName,
}

/// How a route asks.
pub(super) struct Asking {
    pub(super) outbound: Outbound,
    pub(super) verify: bool,
    pub(super) timeout: Duration,
}

/// Who wolf says that it is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) id: Option<String>,
    pub(super) username: Option<String>,
    pub(super) nickname: Option<String>,
}

impl Server {
    pub(super) fn new(config: Credential) -> Server {
        let name = |end: &str| FieldName::new(format!("{}{end}", config.header_prefix));
        Server {
            user_id: name("UserId"),
            username: name("Username"),
            nickname: name("Nickname"),
            remotes: [const { OnceLock::new() }; 2],
            url: config.server,
        }
    }

    /// The server to ask.
    ///
    /// # Errors
    /// In words.
    pub(super) fn remote(&self, asking: &Asking) -> Result<&Remote, String> {
        let make = || {
            // Remotes are made once for all routes; their timeout is the longest there is, and the route's holds the call.
            let options = RemoteOptions { timeout: Duration::from_secs(60), verify: asking.verify, ..RemoteOptions::default() };
            asking.outbound.remote(&self.url, &options)
        };
        self.remotes[usize::from(asking.verify)].get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Path of an endpoint of wolf, below that of the server's URL.
    pub(super) fn target(&self, remote: &Remote, endpoint: &str) -> String {
        let base = remote.target().split('?').next().unwrap_or_default().trim_end_matches('/');
        format!("{base}/wolf/rbac/{endpoint}")
    }

    /// The fields that say who a user is.
    pub(super) fn introduction(&self, user: &User) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in [(&self.user_id, &user.id), (&self.username, &user.username), (&self.nickname, &user.nickname)] {
            if let Some(value) = value {
                fields.append_named(name, value);
            }
        }
        fields
    }

    /// Tells the upstream who it is; what the client claims goes.
    pub(super) fn introduce(&self, x: &mut Exchange, introduction: &Fields) {
        for name in [&self.user_id, &self.username, &self.nickname] {
            x.request.fields.remove_named(name);
        }
        x.request.fields.append_all(introduction);
    }
}

/// The server that a consumer's credential names.
pub(super) fn of(proof: Option<&crate::exchange::Proof>) -> Option<Arc<Server>> {
    proof?.clone().downcast::<Server>().ok()
}
