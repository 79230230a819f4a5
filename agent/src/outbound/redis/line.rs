//! What one thread has of a Redis: its connection, or the knowledge that there is none, and the task that looks for one. It knows no scripts.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hashbrown::HashMap;
use heddle_node::clock;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::super::connect::connect;
use super::super::lane;
use super::{Core, RedisError};

/// Pauses between tries to reach a Redis that is away: each about twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Questions handed to a connection that it has not written yet; more wait within their time.
const QUEUE: usize = 1024;

thread_local! {
    static HERE: RefCell<HashMap<u64, Arc<Line>>> = RefCell::default();
}

/// One thread's part of a Redis. Its locks are never contended: they are there because a runtime may move a question between threads.
pub(super) struct Line {
    owner: Weak<Core>,
    state: Mutex<State>,
    /// Changes with the state.
    changed: watch::Sender<()>,
    in_flight: AtomicUsize,
}

#[derive(Clone)]
enum State {
    /// No connection, since nobody needs one.
    Idle,
    /// The first question waits for one.
    Opening,
    /// There is one.
    Open(Arc<Connection>),
    /// There was none when it was last looked for.
    Away(RedisError),
}

/// An open connection; closed when nobody holds it.
pub(super) struct Connection {
    pipeline: MultiplexedConnection,
    driver: AbortHandle,
    used: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A question's place among those under way.
pub(super) struct Seat(Arc<Line>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// This thread's part.
pub(super) fn of(core: &Arc<Core>) -> Arc<Line> {
    HERE.with_borrow_mut(|lines| {
        if let Some(line) = lines.get(&core.id) {
            return line.clone();
        }
        // A new one is the occasion to forget those that nobody asks any more.
        lines.retain(|_, line| line.owner.strong_count() > 0);
        let line = Arc::new(Line {
            owner: Arc::downgrade(core),
            state: Mutex::new(State::Idle),
            changed: watch::Sender::new(()),
            in_flight: AtomicUsize::new(0),
        });
        lines.insert(core.id, line.clone());
        line
    })
}

impl Connection {
    /// Asks, without any bound of time.
    pub(super) async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        self.used.store(true, Ordering::Relaxed);
        self.pipeline.clone().send_packed_command(command).await
    }
}

impl Line {
    /// A place among the questions under way.
    pub(super) fn sit(self: &Arc<Line>, most: usize) -> Result<Seat, RedisError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        if before < most { Ok(seat) } else { Err(RedisError::Busy(most)) }
    }

    /// The connection. Waits only for the first one: while the Redis is known to be away, that is the answer.
    pub(super) async fn connection(self: &Arc<Line>, core: &Arc<Core>) -> Result<Arc<Connection>, RedisError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let state = self.state.lock().clone();
            match state {
                State::Open(connection) => return Ok(connection),
                State::Away(error) => return Err(error),
                State::Idle => self.look_for_it(core, State::Opening),
                State::Opening => {
                    // The sender lives as long as this line.
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// Forgets a connection that is of no use any more; the next question opens another one.
    pub(super) fn lose(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(open, connection)) {
            *state = State::Idle;
        }
    }

    /// Takes the Redis for away, because it did not answer on this connection, until it answers again.
    pub(super) fn give_up(self: &Arc<Line>, core: &Arc<Core>, connection: &Arc<Connection>, error: RedisError) {
        if matches!(&*self.state.lock(), State::Open(open) if Arc::ptr_eq(open, connection)) {
            core.is_away(&error);
            // Whoever else waits on it need not wait as long.
            connection.driver.abort();
            self.look_for_it(core, State::Away(error));
        }
    }

    fn look_for_it(self: &Arc<Line>, core: &Core, meanwhile: State) {
        self.set(meanwhile);
        tokio::spawn(search(Arc::downgrade(self), core.rest));
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
        self.changed.send_replace(());
    }

    /// Whether there has been no question for it since the last time.
    fn rests(&self, used: &AtomicBool) -> bool {
        !used.swap(false, Ordering::Relaxed) && self.in_flight.load(Ordering::Relaxed) == 0
    }
}

impl Core {
    /// Said once for all threads that find it out.
    fn is_away(&self, error: &RedisError) {
        if self.away.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(redis = self.authority, %error, "Redis is away: limits that it keeps are answered as allow_degradation says until it is back");
        }
    }

    fn is_back(&self) {
        if self.away.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!(redis = self.authority, "Redis is back");
        }
    }
}

/// Says, when it is dropped before the end of the search, for example with its runtime, that nobody looks any more.
struct Searching(Weak<Line>);

impl Drop for Searching {
    fn drop(&mut self) {
        if let Some(line) = self.0.upgrade()
            && matches!(*line.state.lock(), State::Opening | State::Away(_))
        {
            line.set(State::Idle);
        }
    }
}

/// Looks for the Redis until it answers or nobody wants it any more.
async fn search(line: Weak<Line>, rest: Duration) {
    let searching = Searching(line);
    let (mut pause, mut dice) = (FIRST_PAUSE, fastrand::Rng::new());
    loop {
        let Some((line, core)) = searching.0.upgrade().and_then(|line| line.owner.upgrade().map(|core| (line, core))) else {
            return;
        };
        let opened = timeout(core.timeout, open(&core)).await.unwrap_or(Err(RedisError::Timeout(core.timeout)));
        let was_away = matches!(*line.state.lock(), State::Away(_));
        match opened {
            Ok((pipeline, driver)) => {
                let used = Arc::new(AtomicBool::new(true));
                let driver = tokio::spawn(drive(driver, Arc::downgrade(&line), used.clone(), rest)).abort_handle();
                if was_away {
                    core.is_back();
                }
                return line.set(State::Open(Arc::new(Connection { pipeline, driver, used })));
            }
            Err(error) => {
                if !was_away {
                    core.is_away(&error);
                }
                line.set(State::Away(error));
            }
        }
        drop((line, core));
        // Gateways that have lost the same Redis do not come back all at once.
        tokio::time::sleep(pause.mul_f64(0.5 + dice.f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What moves bytes on a connection.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Opens a connection on which the Redis has shown that it answers.
async fn open(core: &Core) -> Result<(MultiplexedConnection, Driver), RedisError> {
    let now = clock::now();
    let stream = connect(&core.remote, &lane::of(&core.remote), now + core.timeout, now).await;
    let stream = stream.map_err(|error| RedisError::Connect(error.to_string()))?;
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None).set_pipeline_buffer_size(QUEUE);
    let refused = |error: redis::RedisError| RedisError::Connect(error.to_string());
    let (mut pipeline, driver) = MultiplexedConnection::new_with_config(&core.info, stream, config).await.map_err(refused)?;
    let mut driver: Driver = Box::pin(driver);
    let ping = redis::cmd("PING");
    let answered = tokio::select! {
        () = &mut driver => return Err(RedisError::Closed),
        answered = pipeline.send_packed_command(&ping) => answered,
    };
    match answered.and_then(Value::extract_error) {
        Ok(_) => Ok((pipeline, driver)),
        // It answers, and may allow scripts all the same.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok((pipeline, driver)),
        Err(error) => Err(refused(error)),
    }
}

/// Moves what is asked and answered until the connection ends or rests for too long.
async fn drive(mut driver: Driver, line: Weak<Line>, used: Arc<AtomicBool>, rest: Duration) {
    loop {
        tokio::select! {
            () = &mut driver => break,
            () = tokio::time::sleep(rest) => match line.upgrade() {
                Some(line) if line.owner.strong_count() > 0 && !line.rests(&used) => {}
                _ => break,
            },
        }
    }
    if let Some(line) = line.upgrade() {
        let mut state = line.state.lock();
        if matches!(&*state, State::Open(open) if Arc::ptr_eq(&open.used, &used)) {
            *state = State::Idle;
        }
    }
}
