//! Limits that are kept in a Redis: the fields that say where it is, the names of keys there, and what has become of questions. It knows no limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heddle_xds::catalog::ConfigFault;

use super::super::asking::{ClientTls, Complaints};
use super::super::check::{Faults, fault_at};
use super::Policy;
use crate::outbound::{Outbound, Redis, RedisError, RedisOptions, Script, redis};

/// Writes the configuration of a limit with the fields that lead to a Redis, since all limits have the same ones.
macro_rules! with_redis {
    ($(#[$attr:meta])* $vis:vis struct $name:ident { $($(#[$field_attr:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$attr])*
        $vis struct $name {
            $($(#[$field_attr])* pub $field: $kind,)*
            /// Where the limit is kept; `gossip` is for `limit-count` alone.
            #[serde(default)]
            pub policy: crate::filters::limits::Policy,
            /// With `policy: redis`, where it must be given: name or address of the Redis.
            #[schemars(length(min = 1))]
            pub redis_host: Option<String>,
            /// Its port.
            #[serde(default = "crate::filters::limits::redis::port")]
            pub redis_port: u16,
            /// User of its access list.
            #[schemars(length(min = 1))]
            pub redis_username: Option<String>,
            /// Its password, or a reference to it.
            #[schemars(length(min = 1))]
            pub redis_password: Option<String>,
            /// Number of the database.
            #[serde(default)]
            pub redis_database: u32,
            /// Milliseconds that a question takes at most, opening a connection included.
            #[serde(default = "crate::filters::limits::redis::timeout")]
            #[schemars(range(min = 1, max = 60_000))]
            pub redis_timeout: u64,
            /// Whether the connection is encrypted.
            #[serde(default)]
            pub redis_ssl: bool,
            /// Whether its certificate must be trusted and be for `redis_host`.
            #[serde(default)]
            pub redis_ssl_verify: bool,
            /// With `redis_ssl`: authorities other than the system's, and a certificate of our own.
            pub redis_tls: Option<crate::filters::asking::ClientTls>,
            /// Milliseconds after which a connection that nobody uses is closed.
            #[serde(default = "crate::filters::limits::redis::keepalive_timeout")]
            #[schemars(range(min = 1000, max = 3_600_000))]
            pub redis_keepalive_timeout: u64,
            /// Has no meaning: one connection on each worker carries all questions.
            #[serde(default = "crate::filters::limits::redis::keepalive_pool")]
            #[schemars(range(min = 1))]
            pub redis_keepalive_pool: u32,
        }

        impl $name {
            /// Where its Redis is.
            pub(in crate::filters) fn redis(&self) -> crate::filters::limits::redis::Place<'_> {
                crate::filters::limits::redis::Place {
                    policy: self.policy,
                    host: self.redis_host.as_deref(),
                    port: self.redis_port,
                    username: self.redis_username.as_deref(),
                    password: self.redis_password.as_deref(),
                    database: self.redis_database,
                    timeout: self.redis_timeout,
                    ssl: self.redis_ssl,
                    verify: self.redis_ssl_verify,
                    tls: self.redis_tls.as_ref(),
                    rest: self.redis_keepalive_timeout,
                    pool: self.redis_keepalive_pool,
                }
            }
        }
    };
}
pub(crate) use with_redis;

pub(crate) fn port() -> u16 {
    6379
}

pub(crate) fn timeout() -> u64 {
    1000
}

pub(crate) fn keepalive_timeout() -> u64 {
    10_000
}

pub(crate) fn keepalive_pool() -> u32 {
    100
}

/// Most databases that a Redis can be told to have.
const MAX_DATABASE: u32 = i32::MAX as u32;

/// Where a Redis is, as a limit is configured for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub policy: Policy,
    pub host: Option<&'a str>,
    pub port: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub database: u32,
    pub timeout: u64,
    pub ssl: bool,
    pub verify: bool,
    pub tls: Option<&'a ClientTls>,
    pub rest: u64,
    pub pool: u32,
}

impl Place<'_> {
    /// Adds what is wrong with it.
    pub(crate) fn validate(&self, faults: &mut Faults) {
        let texts = [("redis_host", self.host), ("redis_username", self.username), ("redis_password", self.password)];
        for (field, _) in texts.iter().filter(|(_, text)| text.is_some_and(str::is_empty)) {
            faults.add(*field, "string too short, expected at least 1, got 0");
        }
        if let Some(Err(error)) =
            self.host.filter(|host| !host.is_empty()).map(|host| redis::url_of(host, self.port.max(1), self.ssl))
        {
            faults.add("redis_host", error);
        }
        faults.range("redis_port", self.port, 1, u16::MAX);
        faults.range("redis_database", self.database, 0, MAX_DATABASE);
        faults.range("redis_timeout", self.timeout, 1, 60_000);
        faults.range("redis_keepalive_timeout", self.rest, 1000, 3_600_000);
        faults.range("redis_keepalive_pool", self.pool, 1, u32::MAX);
        if self.username.is_some() && self.password.is_none() {
            faults.add("redis_password", "a user needs a password");
        }
        if self.policy == Policy::Redis && self.host.is_none() {
            faults.add("", "property \"redis_host\" is required");
        }
        self.tls.iter().for_each(|tls| tls.validate("redis_tls", faults));
        if self.tls.is_some_and(|tls| tls.ca.is_some()) && !self.verify {
            faults.add("redis_tls.ca", "has no meaning without redis_ssl_verify");
        }
    }

    /// The Redis, when the limit is kept in one. `plugin` and `state` say whose keys they are there.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub(crate) fn open(&self, outbound: &Outbound, plugin: &str, state: &str) -> Result<Option<Shelf>, Vec<ConfigFault>> {
        let Some(host) = self.host.filter(|_| self.policy == Policy::Redis) else { return Ok(None) };
        let tls = self.tls.cloned().unwrap_or_default();
        let options = RedisOptions {
            host: host.to_owned(),
            port: self.port,
            username: self.username.map(str::to_owned),
            password: self.password.map(str::to_owned),
            database: self.database,
            timeout: Duration::from_millis(self.timeout),
            tls: self.ssl,
            verify: self.verify,
            ca: tls.ca,
            identity: tls.cert.zip(tls.key),
            rest: Duration::from_millis(self.rest),
        };
        let redis = outbound.redis(&options).map_err(|error| vec![fault_at("redis_host", error)])?;
        Ok(Some(Shelf {
            redis,
            prefix: prefix(plugin, state),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            complaints: Complaints::default(),
        }))
    }
}

/// Longest name of a state that stands in keys as it is.
const MAX_STATE: usize = 80;

/// What the names of keys begin with: who looks into the Redis shall see whose they are.
fn prefix(plugin: &str, state: &str) -> String {
    let state = state.strip_prefix(plugin).unwrap_or(state).trim_start_matches('/');
    if state.len() <= MAX_STATE && state.bytes().all(|byte| byte.is_ascii_graphic()) {
        return format!("heddle:{plugin}:{state}:");
    }
    format!("heddle:{plugin}:{:032x}:", xxhash_rust::xxh3::xxh3_128(state.as_bytes()))
}

/// The part of a Redis where the numbers of one limit are kept.
#[derive(Debug)]
pub(crate) struct Shelf {
    redis: Redis,
    prefix: String,
    asked: AtomicU64,
    failed: AtomicU64,
    complaints: Complaints,
}

impl Shelf {
    /// The name there of the key with this hash.
    pub(crate) fn key(&self, hash: u128) -> String {
        format!("{}{hash:032x}", self.prefix)
    }

    /// Runs a script.
    ///
    /// # Errors
    /// As [`Redis::run`], and counted.
    pub(crate) async fn run(&self, script: &Script, keys: &[String], args: &[String]) -> Result<Vec<i64>, RedisError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.redis.run(script, keys, args).await.inspect_err(|error| self.failed(error))
    }

    fn failed(&self, error: &RedisError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        // That it is away has been said already.
        if matches!(error, RedisError::Refused(_) | RedisError::Malformed) && self.complaints.may_speak() {
            tracing::warn!(redis = ?self.redis, %error, "a limit cannot be told: Redis does not run its script");
        }
    }

    /// What has become of questions, for the metrics page.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        vec![("redis_asked", self.asked.load(Ordering::Relaxed)), ("redis_failed", self.failed.load(Ordering::Relaxed))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_whose_they_are_and_stay_short() {
        assert_eq!(prefix("limit-req", "limit-req/route/r1/00ff"), "heddle:limit-req:route/r1/00ff:");
        assert_eq!(prefix("limit-count", "group/all"), "heddle:limit-count:group/all:");
        for long in ["x".repeat(81), "a b".to_owned()] {
            assert_eq!(prefix("limit-count", &long).len(), "heddle:limit-count::".len() + 32);
        }
    }
}
