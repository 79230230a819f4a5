//! The life of an application and the agent beside it as a function of events and `now`: who is started, told and ended when. It starts nothing itself.

use std::time::Duration;

use heddle_node::clock::Instant;

/// First pause before an agent that has ended is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest such pause: an application without its agent is cut off.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An agent that lived this long has not failed to start: the pauses begin anew.
const LIVED: Duration = Duration::from_secs(30);
/// How long the agent may take to end once the application has: nobody uses it then.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// What `heddle` ends with when its configuration is wrong; starting it again would not help.
const WRONG: u8 = 2;
/// The wrapper itself has failed.
const FAILED: u8 = 1;
/// What shells add to the number of the signal that ended a process.
const BY_SIGNAL: u8 = 128;

/// A signal that is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

impl Signal {
    /// Whether it asks for the end.
    pub(super) fn stops(self) -> bool {
        matches!(self, Signal::Term | Signal::Int)
    }

    fn number(self) -> u8 {
        match self {
            Signal::Hup => 1,
            Signal::Int => 2,
            Signal::Usr1 => 10,
            Signal::Usr2 => 12,
            Signal::Term => 15,
        }
    }
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

impl End {
    /// As shells say it.
    #[must_use]
    pub fn status(self) -> u8 {
        match self {
            End::Exited(status) => status,
            End::Killed(signal) => BY_SIGNAL.saturating_add(signal),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The agent says that it is ready.
    AgentReady,
    /// The agent has ended, or could not be started.
    AgentEnded(End),
    /// The application has ended, or could not be started.
    AppEnded(End),
    /// Capture could not be applied.
    CaptureFailed,
    /// Somebody sent a signal to stop while capture was being applied, and it was taken back.
    CaptureStopped(Signal),
    /// Nothing comes in any more.
    InboundDrained,
    /// Somebody sent a signal.
    Signal(Signal),
    /// The time of [`Life::due`] has come.
    Due,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the agent.
    StartAgent,
    /// Put capture into force, where it is wanted.
    Capture,
    /// Start the application.
    StartApp,
    /// Ask the agent to take nothing new in.
    DrainInbound,
    /// Pass a signal on to the application.
    SignalApp(Signal),
    /// End the application and all of its process group.
    KillApp,
    /// Ask the agent to end.
    StopAgent,
    /// End the agent.
    KillAgent,
    /// Take capture away and end with this status.
    Exit(u8),
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// The agent, until it is ready.
    pub ready: Duration,
    /// Requests in flight, before the application is told to stop.
    pub drain: Duration,
    /// The application, from being told to stop until it is killed.
    pub grace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The agent is to become ready.
    Starting,
    Running,
    /// Requests in flight are finished; then the application gets this signal.
    Draining(Signal),
    /// The application has been told to stop.
    Stopping,
    /// The application is gone; this is its status.
    Ending(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Down,
    Up { since: Instant, ready: bool },
}

/// An application with its agent.
#[derive(Debug)]
pub struct Life {
    times: Times,
    phase: Phase,
    /// When the phase has taken too long.
    limit: Option<Instant>,
    agent: Agent,
    /// When the agent is started again.
    again: Option<Instant>,
    failures: u32,
    hurried: bool,
}

impl Life {
    /// Begins at `now`, with what is to be done first.
    #[must_use]
    pub fn begin(times: Times, now: Instant) -> (Life, Vec<Action>) {
        let agent = Agent::Up { since: now, ready: false };
        let limit = Some(now + times.ready);
        (Life { times, phase: Phase::Starting, limit, agent, again: None, failures: 0, hurried: false }, vec![Action::StartAgent])
    }

    /// When [`Event::Due`] is to come next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.limit.into_iter().chain(self.again).min()
    }

    /// What follows from an event.
    pub fn on(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::AgentReady => self.agent_ready(),
            Event::AgentEnded(end) => self.agent_ended(end, now),
            Event::AppEnded(end) => self.end(end.status(), now),
            Event::CaptureFailed => self.give_up(now),
            Event::CaptureStopped(signal) => self.end(End::Killed(signal.number()).status(), now),
            Event::InboundDrained => self.inbound_drained(now),
            Event::Signal(signal) if signal.stops() => self.stop(signal, now),
            Event::Signal(signal) => {
                if self.has_app() {
                    vec![Action::SignalApp(signal)]
                } else {
                    Vec::new()
                }
            }
            Event::Due => self.due_now(now),
        }
    }

    fn has_app(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Draining(_) | Phase::Stopping)
    }

    fn agent_ready(&mut self) -> Vec<Action> {
        if let Agent::Up { ready, .. } = &mut self.agent {
            *ready = true;
        }
        match self.phase {
            Phase::Starting => {
                (self.phase, self.limit) = (Phase::Running, None);
                vec![Action::Capture, Action::StartApp]
            }
            // One that came back meanwhile takes nothing in either.
            Phase::Draining(_) | Phase::Stopping => vec![Action::DrainInbound],
            Phase::Running | Phase::Ending(_) => Vec::new(),
        }
    }

    fn agent_ended(&mut self, end: End, now: Instant) -> Vec<Action> {
        let Agent::Up { since, .. } = self.agent else { return Vec::new() };
        self.agent = Agent::Down;
        match self.phase {
            Phase::Ending(status) => return vec![Action::Exit(status)],
            Phase::Starting if end == End::Exited(WRONG) => return vec![Action::Exit(WRONG)],
            _ => {}
        }
        if now.saturating_duration_since(since) >= LIVED {
            self.failures = 0;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.again = Some(now + pause);
        // Without an agent nothing comes in.
        self.inbound_drained(now)
    }

    fn inbound_drained(&mut self, now: Instant) -> Vec<Action> {
        let Phase::Draining(signal) = self.phase else { return Vec::new() };
        (self.phase, self.limit) = (Phase::Stopping, Some(now + self.times.grace));
        vec![Action::SignalApp(signal)]
    }

    fn stop(&mut self, signal: Signal, now: Instant) -> Vec<Action> {
        match self.phase {
            Phase::Starting => self.end(End::Killed(signal.number()).status(), now),
            Phase::Running => {
                (self.phase, self.limit) = (Phase::Draining(signal), Some(now + self.times.drain));
                match self.agent {
                    Agent::Up { ready: true, .. } => vec![Action::DrainInbound],
                    _ => self.inbound_drained(now),
                }
            }
            Phase::Draining(_) | Phase::Stopping => {
                (self.phase, self.limit, self.hurried) = (Phase::Stopping, None, true);
                vec![Action::KillApp]
            }
            Phase::Ending(_) => self.kill_agent(),
        }
    }

    /// The application is gone, or never came: the agent has nothing left to do.
    fn end(&mut self, status: u8, now: Instant) -> Vec<Action> {
        self.again = None;
        match (self.agent, self.hurried) {
            (Agent::Down, _) => vec![Action::Exit(status)],
            (Agent::Up { .. }, true) => {
                self.phase = Phase::Ending(status);
                self.kill_agent()
            }
            (Agent::Up { .. }, false) => {
                (self.phase, self.limit) = (Phase::Ending(status), Some(now + LAST_GRACE));
                vec![Action::StopAgent]
            }
        }
    }

    fn give_up(&mut self, now: Instant) -> Vec<Action> {
        self.end(FAILED, now)
    }

    fn kill_agent(&mut self) -> Vec<Action> {
        self.limit = None;
        vec![Action::KillAgent]
    }

    fn due_now(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.agent = Agent::Up { since: now, ready: false };
            actions.push(Action::StartAgent);
        }
        if self.limit.is_some_and(|limit| limit <= now) {
            self.limit = None;
            actions.extend(match self.phase {
                Phase::Starting => self.give_up(now),
                Phase::Running => Vec::new(),
                Phase::Draining(_) => self.inbound_drained(now),
                Phase::Stopping => vec![Action::KillApp],
                Phase::Ending(_) => self.kill_agent(),
            });
        }
        actions
    }
}
