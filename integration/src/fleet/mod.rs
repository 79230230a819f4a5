//! A real control plane and a fleet of simulated nodes on real streams, agents of ours or Envoys: how fast a change reaches the last of them, and what it costs.
//!
//! Nodes and changes come from this process, on one thread; the control plane is a process of its own. With [`Options::pinned`] each has one core.

pub mod agent;
pub mod dialect;
pub mod gossip;
pub mod holder;
pub mod ledger;
pub mod report;
pub mod wire;
pub mod writer;

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use heddle_xds::link::Connector;

use crate::heddle::{Heddle, Setup};
use crate::measure;
use dialect::Dialect;
use ledger::{Ledger, Reach, Traffic};
use writer::{Size, Subject, Written};

/// Agents that connect together.
const GROUP: usize = 50;
/// How long everything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the quiet before a measurement is watched: with many agents as long as the interval of their keep-alive, which is what there is
/// of it then.
const QUIET: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// Agents whose keep-alive counts.
const MANY: usize = 100;
/// The cores of control plane and generator.
const CORES: [&str; 2] = ["0", "1"];

/// A control plane with a configuration, and agents that follow it.
pub struct Fleet {
    pub heddle: Heddle,
    size: Size,
    dialect: Dialect,
    ledger: Rc<RefCell<Ledger>>,
    /// Resident memory with the configuration and without an agent, MiB.
    pub memory_at_start: u64,
}

/// A number of changes and what became of them.
#[derive(Debug, Clone)]
pub struct Measured {
    pub dialect: Dialect,
    pub agents: usize,
    pub size: Size,
    pub changes: usize,
    pub written: Written,
    /// From the Admin API's answer to the first agent's ACK, and to the last one's.
    pub first: Vec<Duration>,
    pub last: Vec<Duration>,
    /// To the last one's, of changes of a route and of endpoints.
    pub routes: Vec<Duration>,
    pub endpoints: Vec<Duration>,
    /// Of the control plane, from the first write to the last ACK, without what it takes when nothing changes.
    pub cpu: Duration,
    /// Share of one core that the control plane takes when nothing changes.
    pub idle: f64,
    /// Of the generator in the same time, to show that it was not the bottleneck.
    pub generator: Duration,
    pub took: Duration,
    pub traffic: Traffic,
}

impl Fleet {
    /// Starts the control plane and puts the configuration over the Admin API; all nodes will speak this dialect.
    pub async fn start(size: Size, dialect: Dialect, pinned: bool) -> Result<Fleet, String> {
        let heddle = Heddle::control_plane(Setup::default());
        if pinned {
            pin(heddle.process.pid(), CORES[0])?;
        }
        writer::seed(heddle.admin, size).await?;
        let memory_at_start = measure::memory(heddle.process.pid()).0;
        Ok(Fleet { heddle, size, dialect, ledger: Rc::default(), memory_at_start })
    }

    /// Resident memory of the control plane now and at its highest, MiB.
    pub fn memory(&self) -> (u64, u64) {
        measure::memory(self.heddle.process.pid())
    }

    /// Connects agents until there are so many, and waits until each has everything; the time it took.
    pub async fn grow(&self, agents: usize, told: impl Fn(usize)) -> Result<Duration, String> {
        let start = Instant::now();
        let link = Connector::tcp(&self.heddle.xds.to_string()).map_err(|error| error.to_string())?;
        let whole = self.dialect.whole(self.size);
        let mut entered = self.ledger.borrow().agents();
        while entered < agents {
            for _ in 0..GROUP.min(agents - entered) {
                let number = self.ledger.borrow_mut().enter();
                tokio::task::spawn_local(agent::follow(link.clone(), self.dialect, number, self.ledger.clone()));
            }
            entered = self.ledger.borrow().agents();
            self.wait("the agents to hold everything", |ledger| ledger.loaded(whole) == entered).await?;
            told(entered);
        }
        Ok(start.elapsed())
    }

    /// Changes something so many times, so often a second, and waits until everybody whom it concerns has it.
    pub async fn measure(&self, subject: Subject, rate: f64, changes: usize) -> Result<Measured, String> {
        let (pid, own) = (self.heddle.process.pid(), std::process::id());
        let quiet = (cpu(pid), Instant::now());
        let many = self.ledger.borrow().agents() >= MANY;
        tokio::time::sleep(QUIET[usize::from(many)]).await;
        let idle = (cpu(pid) - quiet.0).as_secs_f64() / quiet.1.elapsed().as_secs_f64();
        let (before, from) = (self.ledger.borrow().traffic, self.ledger.borrow().writes().len());
        let (start, used, generated) = (Instant::now(), cpu(pid), cpu(own));
        let written = writer::write(self.heddle.admin, self.size, subject, rate, changes, &self.ledger).await?;
        self.wait("the last agent to have the last change", |ledger| ledger.outstanding(from) == 0).await?;
        let took = start.elapsed();
        let (used, generator) = (cpu(pid) - used, cpu(own) - generated);
        let ledger = self.ledger.borrow();
        let done = &ledger.writes()[from..];
        let delays: Vec<_> = done.iter().filter_map(|write| Some((write.target, write.delays()?))).collect();
        let of = |subject: Subject| {
            let meant = delays.iter().filter(|(target, _)| self.size.subject(*target) == subject);
            meant.map(|(_, (_, last))| *last).collect()
        };
        let after = ledger.traffic;
        Ok(Measured {
            dialect: self.dialect,
            agents: ledger.agents(),
            size: self.size,
            changes,
            written,
            first: delays.iter().map(|(_, (first, _))| *first).collect(),
            last: delays.iter().map(|(_, (_, last))| *last).collect(),
            routes: of(Subject::Routes),
            endpoints: of(Subject::Endpoints),
            cpu: used.saturating_sub(took.mul_f64(idle)),
            idle,
            generator,
            took,
            traffic: Traffic {
                responses: after.responses - before.responses,
                resources: after.resources - before.resources,
                removals: after.removals - before.removals,
                bytes: after.bytes - before.bytes,
            },
        })
    }

    /// Agents that lack the newest content of something that was changed, over all that was changed, and those that lack anything at all.
    pub fn stale(&self) -> usize {
        let ledger = self.ledger.borrow();
        ledger.stale() + ledger.agents() - ledger.loaded(self.dialect.whole(self.size))
    }

    async fn wait(&self, what: &str, done: impl Fn(&Ledger) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let ledger = self.ledger.borrow();
                if let Some(fault) = ledger.faults.first() {
                    return Err(format!("{} agents were lost; {fault}", ledger.faults.len()));
                }
                if done(&ledger) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    return Err(format!("still waiting for {what}: {} of {} loaded", ledger.loaded(1), ledger.agents()));
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Measured {
    /// How many changes were concerned with everybody or with one: the deliveries that were needed.
    pub fn deliveries(&self, reach: Reach) -> usize {
        match reach {
            Reach::All => self.changes * self.agents,
            Reach::One(_) => self.changes,
        }
    }
}

/// Runs something that starts tasks of this thread.
pub fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Pins this process, before it has started threads, to the core of the generator.
pub fn pin_generator() -> Result<(), String> {
    pin(std::process::id(), CORES[1])
}

/// Pins all threads of a process to a core.
fn pin(pid: u32, core: &str) -> Result<(), String> {
    let done = Command::new("taskset").args(["-a", "-p", "-c", core, &pid.to_string()]).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("taskset: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("taskset: {error}")),
    }
}

/// Processor time of a process so far, all threads that live.
fn cpu(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map(|tasks| tasks.flatten().collect()).unwrap_or_else(|_| vec![]);
    let spent = tasks.iter().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}
