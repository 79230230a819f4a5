//! Tries capture: makes connections that must be captured, and looks where they arrive. It knows what rules are to do, not what they are made of.

mod caller;
mod doors;
mod kernel;
mod places;
mod question;
mod report;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::caller::Caller;
use self::doors::Door;
use self::places::{Family, Place};
use self::question::{Answered, Question};
use self::report::{Finding, Outcome, What};
use super::settings::{CaptureSettings, Mode};

pub use self::report::Report;

/// How long one attempt may take: a connection within a host takes microseconds, and the first packet that is lost is sent again after a second.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer to a question is waited for before it is asked once more.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often the kernel is asked whether a connection has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What is said over a connection, so that it is seen to carry something.
const WORD: &[u8; 8] = b"heddle?\n";

/// Why a family is not tried that `net.ipv6.conf.*.disable_ipv6` takes the loopback from: the rules stay, and nothing of it leaves in clear.
const SWITCHED_OFF: &str = "it is switched off on this host, so that no agent can listen for it";

/// Whose doors what is captured must arrive at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// Those of an agent: it listens already, and that it does not is a fault.
    OfAgent,
    /// The same, or our own for as long as there is no agent.
    OfAnyone,
}

/// One thing that is to be tried.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    what: What,
    to: SocketAddr,
    /// Where else, if it fails.
    instead: Option<SocketAddr>,
    /// The agent's door where it must arrive.
    door: SocketAddr,
    mode: Mode,
    doors: Doors,
}

/// Tries all that these settings capture; all at once, within a few seconds.
///
/// # Errors
/// Nobody whose traffic is captured can be had to try it.
pub(super) async fn verify(settings: &CaptureSettings, doors: Doors) -> Result<Report, String> {
    let caller = Arc::new(Caller::find(settings)?);
    let mut findings = Vec::new();
    let mut running = JoinSet::new();
    for (number, planned) in plan(settings, doors)?.into_iter().enumerate() {
        match planned {
            Ok(attempt) => {
                let caller = caller.clone();
                running.spawn(async move { (number, Finding { what: attempt.what, outcome: attempt.run(&caller).await }) });
            }
            Err(finding) => findings.push((number, finding)),
        }
    }
    while let Some(done) = running.join_next().await {
        findings.push(done.map_err(|error| format!("an attempt was given up: {error}"))?);
    }
    findings.sort_by_key(|(number, _)| *number);
    let closed = match settings.inbound_port {
        Some(port) if doors == Doors::OfAgent && !kernel::listens(port)? => Some(port),
        _ => None,
    };
    Ok(Report { findings: findings.into_iter().map(|(_, finding)| finding).collect(), closed, inbound: None })
}

/// What is to be tried, and why what is not.
fn plan(settings: &CaptureSettings, doors: Doors) -> Result<Vec<Result<Attempt, Finding>>, String> {
    let families = [(Family::V4, settings.ipv4), (Family::V6, settings.ipv6)].into_iter().filter(|(_, on)| *on);
    let mut plan = Vec::new();
    for (family, _) in families {
        let (routes, has_loopback) = (kernel::routes(family), places::has_loopback(family));
        let (outward, names) = (places::outward(settings, family, &routes), places::names(settings, family, &routes));
        let wanted = [
            (report::Kind::Connection, settings.outbound_port, outward, settings.mode),
            // Names are redirected in both modes.
            (report::Kind::Question, settings.dns_port, names, Mode::Redirect),
            (report::Kind::QuestionByTcp, settings.dns_port, names, Mode::Redirect),
        ];
        for (kind, port, place, mode) in wanted {
            let Some(port) = port else { continue };
            let (what, door) = (What { family, kind }, SocketAddr::new(family.loopback(), port));
            let is_missing = doors == Doors::OfAgent && kernel::owners(door, kind.transport())?.is_empty();
            plan.push(match place {
                _ if !has_loopback => Err(Finding { what, outcome: Outcome::NotTried(SWITCHED_OFF) }),
                _ if is_missing => Err(Finding { what, outcome: Outcome::NoAgent { door } }),
                Place::At(to) => {
                    let is_name = kind != report::Kind::Connection;
                    let instead =
                        places::instead(settings, family, &routes, to, is_name).filter(|_| to.ip() != family.loopback());
                    Ok(Attempt { what, to, instead, door, mode, doors })
                }
                Place::Nowhere(why) => Err(Finding { what, outcome: Outcome::NotTried(why) }),
            });
        }
    }
    Ok(plan)
}

impl Attempt {
    /// Fails only if it does at both places.
    async fn run(self, caller: &Caller) -> Outcome {
        let outcome = self.run_once(caller).await;
        if let (Outcome::Failed { .. }, Some(to)) = (&outcome, self.instead)
            && let arrived @ Outcome::Arrived { .. } = (Attempt { to, ..self }).run_once(caller).await
        {
            return arrived;
        }
        outcome
    }

    async fn run_once(self, caller: &Caller) -> Outcome {
        let (to, door) = (self.to, self.door);
        let outcome = match self.what.kind {
            report::Kind::Question => self.ask(caller).await,
            report::Kind::Connection | report::Kind::QuestionByTcp => self.connect(caller).await,
        };
        match outcome {
            Ok(is_taken) => Outcome::Arrived { to, door, is_taken },
            Err(why) => Outcome::Failed { to, door, why },
        }
    }

    /// A door where it may arrive; an agent's is left to it.
    fn open<T>(&self, own: impl FnOnce() -> Result<Door<T>, String>) -> Result<Door<T>, String> {
        match self.doors {
            Doors::OfAgent => Ok(Door::Taken),
            Doors::OfAnyone => own(),
        }
    }

    /// Whether it arrived where somebody listens already; `false` at a door of our own.
    async fn connect(&self, caller: &Caller) -> Result<bool, String> {
        let door = self.open(|| doors::tcp(self.door, self.mode == Mode::Tproxy))?;
        let mut stream = match timeout(PATIENCE, caller.connect(self.to)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(refusal(&error)),
            Err(_) => return Err(silence()),
        };
        let own = stream.local_addr().map_err(|error| error.to_string())?;
        match door {
            Door::Own(listener) => {
                let exchanged = async { tokio::try_join!(doors::receive(&listener, own), heard(&mut stream)) };
                match timeout(PATIENCE, exchanged).await {
                    Ok(Ok((arrived, ()))) if arrived.wanted == self.to => Ok(false),
                    Ok(Ok((arrived, ()))) => {
                        Err(format!("it arrived as one to {}, which an agent would take for its destination", arrived.wanted))
                    }
                    Ok(Err(_)) | Err(_) => match kernel::far_end(own)? {
                        Some(at) if at == self.arrives() => Err("nothing can be said over it".to_owned()),
                        other => Err(elsewhere(other)),
                    },
                }
            }
            Door::Taken => {
                let looked = timeout(PATIENCE, async {
                    loop {
                        match kernel::far_end(own) {
                            Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
                            found => return found,
                        }
                    }
                });
                match looked.await.unwrap_or(Ok(None))? {
                    Some(at) if at == self.arrives() => self.judge_owner(caller).map(|()| true),
                    other => Err(elsewhere(other)),
                }
            }
        }
    }

    /// Whether who listens is somebody whose own traffic passes: any other's would come to him again, and again.
    fn judge_owner(&self, caller: &Caller) -> Result<(), String> {
        let owners = kernel::owners(self.door, self.what.kind.transport())?;
        match owners.into_iter().find(|owner| !caller.lets_pass(*owner)) {
            Some(owner) => Err(format!(
                "who listens there is user {owner}, whose own traffic is captured too and would run in a circle: let it be user proxy_uid"
            )),
            None => Ok(()),
        }
    }

    /// The address at which the kernel lists what has arrived: TPROXY translates none.
    fn arrives(&self) -> SocketAddr {
        if self.mode == Mode::Tproxy { self.to } else { self.door }
    }

    /// The same for a question.
    async fn ask(&self, caller: &Caller) -> Result<bool, String> {
        let door = self.open(|| doors::udp(self.door))?;
        let socket = caller.datagrams(self.to).map_err(|error| refusal(&error))?;
        let question = Question::of(socket.local_addr().map_err(|error| error.to_string())?.port());
        let asked = async {
            for _ in 0..2 {
                socket.send(question.bytes()).await.map_err(|error| refusal(&error))?;
                if let Ok(answer) = timeout(ASK_AGAIN, answer(&socket, &question)).await {
                    return answer;
                }
            }
            Err(silence())
        };
        let stranger = || Err("somebody else answered, not an agent of Heddle".to_owned());
        match door {
            Door::Own(door) => {
                let mut seen = false;
                let answered = tokio::select! {
                    biased;
                    answered = asked => answered?,
                    never = doors::answer(&door, &question, &mut seen) => match never {},
                };
                if seen && answered { Ok(false) } else { stranger() }
            }
            Door::Taken => {
                if asked.await? {
                    self.judge_owner(caller).map(|()| true)
                } else {
                    stranger()
                }
            }
        }
    }
}

/// Hears the word and says it back: nothing is said to who does not say it.
async fn heard(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut heard = [0; WORD.len()];
    stream.read_exact(&mut heard).await?;
    if heard != *WORD {
        return Err(std::io::Error::other("somebody else has answered"));
    }
    stream.write_all(&heard).await
}

/// Whether the answer is one of an agent.
async fn answer(socket: &tokio::net::UdpSocket, question: &Question) -> Result<bool, String> {
    let mut room = [0; question::MOST];
    loop {
        let read = socket.recv(&mut room).await.map_err(|error| refusal(&error))?;
        match question.judge(&room[..read]) {
            Answered::Not => {}
            Answered::ByAgent => return Ok(true),
            Answered::ByOther => return Ok(false),
        }
    }
}

fn silence() -> String {
    format!("nobody answered within {} s", PATIENCE.as_secs())
}

fn refusal(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, PermissionDenied};
    match error.kind() {
        ConnectionRefused => "it was refused: a rule rejects it, or nobody listens where it came to".to_owned(),
        PermissionDenied => "a rule of this host does not let it out".to_owned(),
        _ => error.to_string(),
    }
}

fn elsewhere(arrived: Option<SocketAddr>) -> String {
    match arrived {
        Some(at) => format!("it arrived at {at} of this host"),
        None => "somebody else answered, who is not on this host or gone already".to_owned(),
    }
}
