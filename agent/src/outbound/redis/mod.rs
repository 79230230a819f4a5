//! Asking a Redis (or whoever speaks as it does) to run scripts and to keep values, over one connection on each thread. It knows no plugin and no meaning of a
//! script or a value.
//!
//! A request never waits longer than the timeout, and once a Redis is known to be away it does not wait at all: a task of its own looks for it until it is back
//! (a circuit breaker whose probe is nobody's request).

mod line;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use heddle_node::clock;
use parking_lot::Mutex;
use redis::{Cmd, ErrorKind, RedisConnectionInfo, ServerErrorKind, Value};
use tokio::time::{Instant, timeout_at};

use super::remote::{self, RemoteOptions};
use super::{Outbound, Url, next_id};
use line::Line;

/// Where a Redis is and how it is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User of an access list; the default one without.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
    /// A question takes at most this long, opening the connection included.
    pub timeout: Duration,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Whether the server's certificate must be one that is trusted, for its name.
    pub verify: bool,
    /// PEM of the authorities that are trusted instead of the system's.
    pub ca: Option<String>,
    /// PEM of the certificate chain and of the key that are shown to servers that ask for them.
    pub identity: Option<(String, String)>,
    /// A connection that nobody uses is closed after this long.
    pub rest: Duration,
}

/// Why a Redis gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// As many questions as allowed are under way on this worker; nothing waits in line.
    #[error("{0} questions are under way already")]
    Busy(usize),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// No connection, or none that lets us in.
    #[error("{0}")]
    Connect(String),
    /// It has closed the connection.
    #[error("the server closed the connection before its answer")]
    Closed,
    /// It answers with an error.
    #[error("the server says: {0}")]
    Refused(String),
    /// It answers something else than was asked for.
    #[error("an answer that nobody has asked for")]
    Malformed,
}

/// Most questions under way on one worker: each holds a request, so that a slow Redis holds no more of them than that.
const MAX_IN_FLIGHT: usize = 4096;

/// A script in Lua that Redis runs as one step; its answer is a list of numbers.
pub struct Script {
    text: &'static str,
    /// With its hash, once somebody has asked for it.
    hashed: OnceLock<redis::Script>,
}

impl Script {
    /// Of a text.
    pub const fn new(text: &'static str) -> Script {
        Script { text, hashed: OnceLock::new() }
    }

    fn hashed(&self) -> &redis::Script {
        self.hashed.get_or_init(|| redis::Script::new(self.text))
    }
}

/// Asked twice, as after a connection that died, it finds its own value and says the same again.
static REPLACE: Script = Script::new(
    "local kept = redis.call('GET', KEYS[1])
     if kept ~= ARGV[1] and kept ~= ARGV[2] then return {0} end
     redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
     return {1}",
);

/// A Redis to ask; cheap to clone.
#[derive(Clone)]
pub struct Redis(Arc<Core>);

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redis({}/{})", self.0.authority, self.0.info.db())
    }
}

/// What all threads share of one Redis.
pub(super) struct Core {
    id: u64,
    authority: String,
    remote: Arc<remote::Core>,
    info: RedisConnectionInfo,
    timeout: Duration,
    rest: Duration,
    /// Threads that have found it away.
    away: AtomicUsize,
}

/// Those in use: the same one for the same options.
#[derive(Default)]
pub(super) struct Known(Mutex<Vec<(RedisOptions, Weak<Core>)>>);

impl Known {
    pub(super) fn get_or(&self, options: &RedisOptions, make: impl FnOnce() -> Result<Core, String>) -> Result<Redis, String> {
        let mut known = self.0.lock();
        known.retain(|(_, core)| core.strong_count() > 0);
        if let Some(core) = known.iter().filter(|(other, _)| other == options).find_map(|(_, core)| core.upgrade()) {
            return Ok(Redis(core));
        }
        let core = Arc::new(make()?);
        known.push((options.clone(), Arc::downgrade(&core)));
        Ok(Redis(core))
    }
}

/// Where a Redis is.
///
/// # Errors
/// In words: the host is neither a name nor an address.
pub fn url_of(host: &str, port: u16, tls: bool) -> Result<Url, String> {
    let scheme = if tls { "https" } else { "http" };
    match Url::parse(&format!("{scheme}://{}:{port}/", bracketed(host))) {
        Ok(url) if url.target == "/" => Ok(url),
        _ => Err(format!("expected the name or the address of a host, found `{host:.200}`")),
    }
}

/// A host as URLs write it, where an IPv6 address has brackets.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{}]", host.trim_matches(['[', ']'])) } else { host.to_owned() }
}

impl Core {
    pub(super) fn new(outbound: Outbound, options: &RedisOptions) -> Result<Core, String> {
        let url = url_of(&options.host, options.port, options.tls)?;
        let stream = RemoteOptions {
            timeout: options.timeout,
            verify: options.verify,
            ca: options.ca.clone(),
            identity: options.identity.clone(),
            ..RemoteOptions::default()
        };
        let mut info = RedisConnectionInfo::default().set_db(options.database.into()).set_skip_set_lib_name();
        if let Some(username) = &options.username {
            info = info.set_username(username);
        }
        if let Some(password) = &options.password {
            info = info.set_password(password);
        }
        Ok(Core {
            id: next_id(),
            authority: format!("{}:{}", bracketed(&options.host), options.port),
            remote: Arc::new(remote::Core::speaking(outbound, &url, &stream, &[])?),
            info,
            timeout: options.timeout,
            rest: options.rest,
            away: AtomicUsize::new(0),
        })
    }
}

impl Redis {
    /// Runs a script and gives the numbers that it returns. Dropping the future does not take back what was asked.
    ///
    /// A connection that dies before its answer is replaced once, and the script runs again: it may then have run twice.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn run(&self, script: &Script, keys: &[String], args: &[String]) -> Result<Vec<i64>, RedisError> {
        let line = line::of(&self.0);
        let _seat = line.sit(MAX_IN_FLIGHT)?;
        let end = clock::now() + self.0.timeout;
        let (short, long) = commands(script, keys, args);
        let answer = match self.ask(&line, &short, end).await {
            Err(Failed::Unknown) => self.ask(&line, &long, end).await,
            answered => answered,
        };
        match answer {
            Ok(value) => redis::from_redis_value(value).map_err(|_| RedisError::Malformed),
            Err(Failed::Unknown) => Err(RedisError::Refused("NOSCRIPT".to_owned())),
            Err(Failed::For(error)) => Err(error),
        }
    }

    /// What is kept under a key, its first `most` bytes; `None`: nothing.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn get(&self, key: &str, most: usize) -> Result<Option<Vec<u8>>, RedisError> {
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(most.saturating_sub(1));
        match self.once(&command).await? {
            Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
            Value::BulkString(bytes) if bytes.len() <= most => Ok(Some(bytes)),
            _ => Err(RedisError::Malformed),
        }
    }

    /// Keeps a value under a key for so many seconds.
    ///
    /// # Errors
    /// Why there is no answer; it may be kept all the same.
    pub async fn set(&self, key: &str, value: &[u8], seconds: u64) -> Result<(), RedisError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(seconds.max(1));
        match self.once(&command).await? {
            Value::Okay => Ok(()),
            _ => Err(RedisError::Malformed),
        }
    }

    /// Keeps a value in the place of another one for so many seconds, in one step. `false`: that one is not there any more.
    ///
    /// # Errors
    /// Why there is no answer; it may be kept all the same.
    pub async fn replace(&self, key: &str, before: &str, value: &str, seconds: u64) -> Result<bool, RedisError> {
        let args = [before.to_owned(), value.to_owned(), seconds.max(1).to_string()];
        Ok(self.run(&REPLACE, &[key.to_owned()], &args).await?.first() == Some(&1))
    }

    /// Keeps nothing under a key any more.
    ///
    /// # Errors
    /// Why there is no answer; it may be gone all the same.
    pub async fn delete(&self, key: &str) -> Result<(), RedisError> {
        let mut command = redis::cmd("DEL");
        command.arg(key);
        match self.once(&command).await? {
            Value::Int(_) => Ok(()),
            _ => Err(RedisError::Malformed),
        }
    }

    /// Asks what may be asked twice.
    async fn once(&self, command: &Cmd) -> Result<Value, RedisError> {
        let line = line::of(&self.0);
        let _seat = line.sit(MAX_IN_FLIGHT)?;
        match self.ask(&line, command, clock::now() + self.0.timeout).await {
            Ok(value) => Ok(value),
            Err(Failed::Unknown) => Err(RedisError::Malformed),
            Err(Failed::For(error)) => Err(error),
        }
    }

    async fn ask(&self, line: &Arc<Line>, command: &Cmd, end: Instant) -> Result<Value, Failed> {
        let mut lost = false;
        loop {
            let opened = timeout_at(end, line.connection(&self.0)).await;
            let connection = opened.map_err(|_| RedisError::Timeout(self.0.timeout))??;
            let Ok(answered) = timeout_at(end, connection.ask(command)).await else {
                let error = RedisError::Timeout(self.0.timeout);
                line.give_up(&self.0, &connection, error.clone());
                return Err(error.into());
            };
            match answered.and_then(Value::extract_error) {
                Ok(value) => return Ok(value),
                Err(error) => match error.kind() {
                    ErrorKind::Server(ServerErrorKind::NoScript) => return Err(Failed::Unknown),
                    // Somebody else is in charge now: its name may lead there already.
                    ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
                        line.lose(&connection);
                        return Err(RedisError::Refused(error.to_string()).into());
                    }
                    ErrorKind::Server(_) | ErrorKind::Extension => return Err(RedisError::Refused(error.to_string()).into()),
                    _ => {
                        line.lose(&connection);
                        if std::mem::replace(&mut lost, true) {
                            return Err(RedisError::Closed.into());
                        }
                    }
                },
            }
        }
    }
}

/// A question that failed.
enum Failed {
    /// The server does not know the script by its hash.
    Unknown,
    /// For any other reason.
    For(RedisError),
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Failed {
        Failed::For(error)
    }
}

/// The script by its hash, and in full for a server that does not know it yet.
fn commands(script: &Script, keys: &[String], args: &[String]) -> (Cmd, Cmd) {
    let with = |name: &str, script: &str| {
        let mut command = redis::cmd(name);
        command.arg(script).arg(keys.len()).arg(keys).arg(args);
        command
    };
    (with("EVALSHA", script.hashed().get_hash()), with("EVAL", script.text))
}
