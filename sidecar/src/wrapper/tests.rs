//! Lives without processes: every order of events in which something must come before something else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use heddle_node::clock::{self, Instant};
use proptest::collection::vec;
use proptest::prelude::*;

use super::life::{Action, End, Event, Life, Signal, Times};

const TIMES: Times = Times { ready: Duration::from_secs(60), drain: Duration::from_secs(5), grace: Duration::from_secs(30) };
const TERM: Event = Event::Signal(Signal::Term);

/// A life whose events come one second after the other.
struct Story {
    life: Life,
    now: Instant,
}

impl Story {
    fn begun() -> Story {
        let now = clock::now();
        let (life, actions) = Life::begin(TIMES, now);
        assert_eq!(actions, [Action::StartAgent]);
        Story { life, now }
    }

    fn running() -> Story {
        let mut story = Story::begun();
        assert_eq!(story.on(Event::AgentReady), [Action::Capture, Action::StartApp]);
        story
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.now += Duration::from_secs(1);
        self.life.on(event, self.now)
    }

    /// Waits until something is due; says how long that took.
    fn due(&mut self) -> (Duration, Vec<Action>) {
        let due = self.life.due().expect("something is waited for");
        let waited = due.saturating_duration_since(self.now);
        self.now = self.now.max(due);
        (waited, self.life.on(Event::Due, self.now))
    }
}

#[test]
fn a_job_ends_with_its_status_when_its_agent_is_gone() {
    let mut story = Story::running();
    assert_eq!(story.on(Event::AppEnded(End::Exited(7))), [Action::StopAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(7)]);
}

#[test]
fn a_stop_closes_inbound_then_tells_the_application_then_ends_the_agent() {
    let mut story = Story::running();
    assert_eq!(story.on(TERM), [Action::DrainInbound]);
    assert_eq!(story.on(Event::InboundDrained), [Action::SignalApp(Signal::Term)]);
    assert_eq!(story.on(Event::AppEnded(End::Killed(15))), [Action::StopAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(143)]);
}

#[test]
fn nothing_is_waited_for_longer_than_its_time() {
    let mut story = Story::running();
    story.on(TERM);
    assert_eq!(story.due(), (TIMES.drain, vec![Action::SignalApp(Signal::Term)]));
    assert_eq!(story.due(), (TIMES.grace, vec![Action::KillApp]));
    assert_eq!(story.on(Event::AppEnded(End::Killed(9))), [Action::StopAgent]);
    assert_eq!(story.due(), (Duration::from_secs(10), vec![Action::KillAgent]));
    assert_eq!(story.on(Event::AgentEnded(End::Killed(9))), [Action::Exit(137)]);
}

#[test]
fn a_second_stop_ends_all_at_once() {
    let mut story = Story::running();
    story.on(TERM);
    assert_eq!(story.on(Event::Signal(Signal::Int)), [Action::KillApp]);
    assert_eq!(story.on(Event::AppEnded(End::Killed(9))), [Action::KillAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Killed(9))), [Action::Exit(137)]);
    let mut story = Story::running();
    story.on(Event::AppEnded(End::Exited(0)));
    assert_eq!(story.on(TERM), [Action::KillAgent], "when only the agent is left");
}

#[test]
fn an_agent_that_is_not_ready_in_time_or_cannot_be_is_no_agent() {
    let mut story = Story::begun();
    assert_eq!(story.due(), (TIMES.ready, vec![Action::StopAgent]));
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(1)]);
    assert_eq!(Story::begun().on(Event::AgentEnded(End::Exited(2))), [Action::Exit(2)], "its configuration is wrong");
    let mut story = Story::begun();
    assert_eq!(story.on(TERM), [Action::StopAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(143)]);
    let mut story = Story::begun();
    story.on(Event::AgentReady);
    assert_eq!(story.on(Event::CaptureFailed), [Action::StopAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(1)]);
}

#[test]
fn who_is_told_to_stop_while_he_captures_starts_no_application() {
    let mut story = Story::running();
    assert_eq!(story.on(Event::CaptureStopped(Signal::Term)), [Action::StopAgent]);
    assert_eq!(story.on(Event::AgentEnded(End::Exited(0))), [Action::Exit(143)]);
}

#[test]
fn an_agent_that_dies_is_started_again_ever_more_slowly_and_quickly_once_it_has_lived() {
    let mut story = Story::running();
    let mut pauses = Vec::new();
    for _ in 0..9 {
        assert_eq!(story.on(Event::AgentEnded(End::Killed(9))), []);
        let (waited, actions) = story.due();
        assert_eq!(actions, [Action::StartAgent]);
        pauses.push(waited.as_millis());
        assert_eq!(story.on(Event::AgentReady), [], "the application runs already");
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    story.now += Duration::from_secs(60);
    story.on(Event::AgentEnded(End::Killed(9)));
    assert_eq!(story.due().0, Duration::from_millis(100));
}

#[test]
fn an_agent_that_dies_while_the_application_stops_comes_back_for_what_goes_out_only() {
    let mut story = Story::running();
    story.on(TERM);
    assert_eq!(story.on(Event::AgentEnded(End::Killed(9))), [Action::SignalApp(Signal::Term)], "nothing comes in any more");
    assert_eq!(story.due().1, [Action::StartAgent]);
    assert_eq!(story.on(Event::AgentReady), [Action::DrainInbound]);
    assert_eq!(story.on(Event::InboundDrained), []);
    assert_eq!(story.on(Event::AppEnded(End::Exited(0))), [Action::StopAgent]);
}

#[test]
fn an_application_that_ends_while_its_agent_is_down_waits_for_nobody() {
    let mut story = Story::running();
    story.on(Event::AgentEnded(End::Killed(9)));
    assert_eq!(story.on(Event::AppEnded(End::Exited(3))), [Action::Exit(3)]);
}

#[test]
fn other_signals_are_for_the_application_alone() {
    let mut story = Story::begun();
    assert_eq!(story.on(Event::Signal(Signal::Hup)), [], "there is none yet");
    story.on(Event::AgentReady);
    for signal in [Signal::Hup, Signal::Usr1, Signal::Usr2] {
        assert_eq!(story.on(Event::Signal(signal)), [Action::SignalApp(signal)]);
    }
}

/// What the outside world can do next, given who is alive.
fn some_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::AgentReady),
        Just(Event::AgentEnded(End::Killed(9))),
        Just(Event::AppEnded(End::Exited(5))),
        Just(Event::InboundDrained),
        Just(Event::Due),
        prop_oneof![Just(Signal::Term), Just(Signal::Int), Just(Signal::Hup)].prop_map(Event::Signal),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_nobody_is_forgotten(events in vec(some_event(), 0..40)) {
        let (mut story, mut agent, mut app, mut over) = (Story::begun(), true, false, false);
        let mut apps = 0;
        for event in events {
            let possible = match event {
                Event::AgentReady | Event::AgentEnded(_) => agent,
                Event::AppEnded(_) => app,
                Event::Due => story.life.due().is_some(),
                _ => true,
            };
            if over || !possible {
                continue;
            }
            agent &= !matches!(event, Event::AgentEnded(_));
            app &= !matches!(event, Event::AppEnded(_));
            let actions = if event == Event::Due { story.due().1 } else { story.on(event) };
            for action in actions {
                match action {
                    Action::StartAgent => { prop_assert!(!agent); agent = true; }
                    Action::StartApp => { prop_assert!(!app); app = true; apps += 1; }
                    Action::SignalApp(_) | Action::KillApp => prop_assert!(app),
                    Action::StopAgent => prop_assert!(agent && !app, "outbound goes last"),
                    Action::KillAgent => prop_assert!(agent && !app),
                    Action::Exit(_) => { prop_assert!(!agent && !app); over = true; }
                    Action::Capture | Action::DrainInbound => {}
                }
            }
        }
        prop_assert!(apps <= 1, "an application is started once");
        // From wherever it stands, two stops and the end of who is told to end lead to the end.
        for _ in 0..4 {
            if over { break; }
            for event in [TERM, TERM, Event::AppEnded(End::Killed(9)), Event::AgentEnded(End::Killed(9))] {
                let possible = match event { Event::AppEnded(_) => app, Event::AgentEnded(_) => agent && !app, _ => true };
                if over || !possible { continue; }
                app &= !matches!(event, Event::AppEnded(_));
                agent &= !matches!(event, Event::AgentEnded(_));
                over |= story.on(event).iter().any(|action| matches!(action, Action::Exit(_)));
            }
        }
        prop_assert!(over);
    }
}
