//! Does what a [`Life`] wants: starts, signals and awaits real processes, and turns what becomes of them into events. It decides nothing.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use heddle_node::clock::{self, Instant};
use heddle_node::notify::{self, Notifier};
use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};
use tokio::task::JoinHandle;

use super::agent::{self, Readiness};
use super::life::{Action, End, Event, Life, Signal, Times};
use super::orphans;
use crate::capture::{CaptureSettings, Doors, Tools};

/// The statuses of shells for a command that cannot be run, and for one that is not there.
const NOT_RUNNABLE: End = End::Exited(126);
const NOT_FOUND: End = End::Exited(127);

/// Whom the application runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Capture while the application runs.
#[derive(Debug, Clone)]
pub struct Captured {
    /// How rules are put into force.
    pub tools: Tools,
    /// Which.
    pub settings: CaptureSettings,
}

/// What is to be run, and how.
#[derive(Debug)]
pub struct Plan {
    /// The command of the agent.
    pub agent: Vec<OsString>,
    /// The command of the application.
    pub app: Vec<OsString>,
    /// Whom the application runs as, when not as the wrapper.
    pub user: Option<User>,
    /// Capture, where it is wanted.
    pub capture: Option<Captured>,
    /// A folder of the agent's own, for the socket by which it says that it is ready, with the token by which it is asked to drain.
    pub folder: PathBuf,
    /// How long things may take.
    pub times: Times,
    /// Who is told that the application runs.
    pub notifier: Notifier,
    /// Whether standard input is a terminal: the application stays in its foreground then, and gets the keyboard's signals from there.
    pub terminal: bool,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum WrapperError {
    /// There is no command.
    #[error("no command to run: give that of the application behind `--`")]
    NoCommand,
    /// The socket for the agent cannot be made.
    #[error("{path}: {source}; node.data_dir must be a directory that this user can write, with a path of at most 90 bytes")]
    Socket {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The system refused a handler.
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
}

/// Runs the application beside its agent; gives the status to end with.
///
/// # Errors
/// Nothing was started.
pub async fn run(plan: Plan) -> Result<u8, WrapperError> {
    if plan.agent.is_empty() || plan.app.is_empty() {
        return Err(WrapperError::NoCommand);
    }
    let mut readiness = Readiness::bind(&plan.folder)?;
    let mut signals = Signals::listen().map_err(WrapperError::Signals)?;
    let (mut life, mut actions) = Life::begin(plan.times, clock::now());
    let mut hands =
        Hands { notify: readiness.name().to_owned(), plan, agent: None, app: None, admin: None, drain: None, captured: false };
    loop {
        let event = match hands.perform(&actions, &mut signals).await {
            Performed::Exit(status) => return Ok(status),
            Performed::Failed(event) => event,
            Performed::All => {
                orphans::bury(&[hands.agent.as_ref().and_then(pid), hands.app.as_ref().and_then(pid)]);
                tokio::select! {
                    biased;
                    admin = readiness.next() => {
                        hands.admin = admin;
                        Event::AgentReady
                    }
                    signal = signals.next() => match signal {
                        Some(signal) => Event::Signal(signal),
                        // A child has ended; one of ours says so below.
                        None => { actions.clear(); continue; }
                    },
                    end = ended(&mut hands.agent) => {
                        tracing::info!(?end, "the agent has ended");
                        (hands.agent, hands.admin) = (None, None);
                        Event::AgentEnded(end)
                    }
                    end = ended(&mut hands.app) => {
                        tracing::info!(?end, "the application has ended");
                        hands.app = None;
                        Event::AppEnded(end)
                    }
                    () = drained(&mut hands.drain) => {
                        hands.drain = None;
                        Event::InboundDrained
                    }
                    () = until(life.due()) => Event::Due,
                }
            }
        };
        actions = life.on(event, clock::now());
    }
}

/// What came of what was to be done.
enum Performed {
    All,
    /// The rest was left undone.
    Failed(Event),
    Exit(u8),
}

struct Hands {
    plan: Plan,
    notify: String,
    agent: Option<Child>,
    app: Option<Child>,
    admin: Option<SocketAddr>,
    drain: Option<JoinHandle<()>>,
    captured: bool,
}

impl Hands {
    async fn perform(&mut self, actions: &[Action], signals: &mut Signals) -> Performed {
        for action in actions {
            match *action {
                Action::StartAgent => match self.start_agent() {
                    Ok(child) => self.agent = Some(child),
                    Err(end) => return Performed::Failed(Event::AgentEnded(end)),
                },
                Action::Capture => {
                    if let Some(event) = self.capture(signals).await {
                        return Performed::Failed(event);
                    }
                }
                Action::StartApp => match self.start_app() {
                    Ok(child) => self.app = Some(child),
                    Err(end) => return Performed::Failed(Event::AppEnded(end)),
                },
                Action::DrainInbound => {
                    self.plan.notifier.say("STOPPING=1");
                    if let Some(admin) = self.admin {
                        self.drain = Some(tokio::spawn(agent::drain_inbound(admin, self.plan.folder.clone())));
                    }
                }
                Action::SignalApp(Signal::Int) if self.plan.terminal => {}
                Action::SignalApp(signal) => tell(self.app.as_ref(), signal.of_system()),
                Action::KillApp => {
                    tracing::warn!("the application is killed");
                    if self.plan.terminal {
                        tell(self.app.as_ref(), rustix::process::Signal::KILL);
                    } else if let Some(pid) = self.app.as_ref().and_then(pid) {
                        // An error means that all of them are gone.
                        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                    }
                }
                Action::StopAgent => tell(self.agent.as_ref(), rustix::process::Signal::TERM),
                Action::KillAgent => tell(self.agent.as_ref(), rustix::process::Signal::KILL),
                Action::Exit(status) => {
                    self.release().await;
                    return Performed::Exit(status);
                }
            }
        }
        Performed::All
    }

    fn start_agent(&self) -> Result<Child, End> {
        let mut command = command(&self.plan.agent);
        // What the application writes to standard output belongs to it alone.
        let output = io::stderr().as_fd().try_clone_to_owned().map_or_else(|_| Stdio::null(), Stdio::from);
        command.stdin(Stdio::null()).stdout(output).env(notify::VARIABLE, &self.notify);
        // Out of the terminal's foreground: the keyboard must not end it before the application.
        command.process_group(0).kill_on_drop(true);
        spawn(&mut command, "the agent")
    }

    fn start_app(&self) -> Result<Child, End> {
        let mut command = command(&self.plan.app);
        if !self.plan.terminal {
            command.process_group(0);
        }
        if let Some(User { uid, gid }) = self.plan.user {
            command.uid(uid).gid(gid);
        }
        let child = spawn(&mut command, "the application")?;
        self.plan.notifier.say("READY=1");
        Ok(child)
    }

    /// Why the application is not to be started, if it is not.
    async fn capture(&mut self, signals: &mut Signals) -> Option<Event> {
        let Captured { tools, settings } = self.plan.capture.as_ref()?;
        let mut stop = None;
        let stopped = async { stop = Some(signals.stop().await) };
        match tools.establish(settings, Doors::OfAgent, stopped).await {
            Ok(report) => {
                self.captured = true;
                report.seen().lines().for_each(|seen| tracing::info!(seen, "capture is in force"));
                if let Some(warning) = report.warning() {
                    tracing::warn!("{warning}");
                }
                None
            }
            Err(error) => {
                tracing::error!(%error, "traffic cannot be captured, so the application is not started");
                Some(stop.map_or(Event::CaptureFailed, Event::CaptureStopped))
            }
        }
    }

    async fn release(&mut self) {
        if let Some(Captured { tools, settings }) = self.plan.capture.as_ref().filter(|_| self.captured)
            && let Err(error) = tools.remove(settings).await
        {
            tracing::error!(%error, "capture is still in force; `heddle capture remove` takes it away");
        }
    }
}

fn command(words: &[OsString]) -> Command {
    let mut words = words.iter();
    // An empty command does not come here; it would not be found.
    let mut command = Command::new(words.next().map_or_else(OsString::new, Clone::clone));
    command.args(words);
    command
}

fn spawn(command: &mut Command, what: &str) -> Result<Child, End> {
    command.spawn().map_err(|error| {
        let program = command.as_std().get_program().display().to_string();
        tracing::error!(%error, program, "{what} cannot be started");
        if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
    })
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

fn tell(child: Option<&Child>, signal: rustix::process::Signal) {
    if let Some(pid) = child.and_then(pid) {
        // An error means that it is gone, which is noticed elsewhere.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

async fn ended(child: &mut Option<Child>) -> End {
    match child {
        Some(child) => child.wait().await.map_or(NOT_RUNNABLE, end),
        None => std::future::pending().await,
    }
}

fn end(status: ExitStatus) -> End {
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(small(code)),
        (None, signal) => End::Killed(small(signal.unwrap_or_default())),
    }
}

async fn drained(drain: &mut Option<JoinHandle<()>>) {
    match drain {
        // However it ended: nothing more can be done for what comes in.
        Some(drain) => drop(drain.await),
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Signal {
    fn of_system(self) -> rustix::process::Signal {
        match self {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Int => rustix::process::Signal::INT,
            Signal::Hup => rustix::process::Signal::HUP,
            Signal::Usr1 => rustix::process::Signal::USR1,
            Signal::Usr2 => rustix::process::Signal::USR2,
        }
    }
}

/// The signals that this process no longer ends by.
struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
    usr1: unix::Signal,
    usr2: unix::Signal,
    child: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            term: unix::signal(SignalKind::terminate())?,
            int: unix::signal(SignalKind::interrupt())?,
            hup: unix::signal(SignalKind::hangup())?,
            usr1: unix::signal(SignalKind::user_defined1())?,
            usr2: unix::signal(SignalKind::user_defined2())?,
            child: unix::signal(SignalKind::child())?,
        })
    }

    /// The next signal to stop; there is nobody yet for whom others would be.
    async fn stop(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.next().await.filter(|signal| signal.stops()) {
                return signal;
            }
        }
    }

    /// The next signal that somebody sent; `None` when a child has ended.
    async fn next(&mut self) -> Option<Signal> {
        tokio::select! {
            Some(()) = self.term.recv() => Some(Signal::Term),
            Some(()) = self.int.recv() => Some(Signal::Int),
            Some(()) = self.hup.recv() => Some(Signal::Hup),
            Some(()) = self.usr1.recv() => Some(Signal::Usr1),
            Some(()) = self.usr2.recv() => Some(Signal::Usr2),
            Some(()) = self.child.recv() => None,
            else => std::future::pending().await,
        }
    }
}
