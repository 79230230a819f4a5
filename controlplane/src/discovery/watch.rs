//! One watcher for each ask: it looks at Consul and tells what it sees. It keeps nothing and translates nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use heddle_node::clock;
use heddle_node::consul::{Belief, Consul, ConsulError, Instance, Seen, Verdict, pause};
use heddle_xds::model::Endpoint;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::endpoints::{Usable, endpoints};
use super::{Ask, Discovered};

/// How often a prepared query is executed; these cannot be watched.
const POLL: Duration = Duration::from_secs(5);
/// What may wait to be taken note of; watchers wait when there is more, and then look at Consul less often.
const WAITING: usize = 256;

/// What happened to an ask.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// Its instances are these; some may have been left out, for this reason.
    Answer(Vec<Endpoint>, Option<String>),
    /// An answer was empty without a reason; what was known before stays for now.
    Doubt(String),
    /// Consul does not answer.
    Away(String),
}

/// What watchers have to tell, in the order in which it came.
pub type Told = Receiver<(Ask, News)>;

/// The watchers at work.
pub struct Watchers {
    consul: Option<Consul>,
    tasks: HashMap<Ask, Task>,
    told: Sender<(Ask, News)>,
    dice: fastrand::Rng,
}

/// Ends with its drop.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watchers {
    /// Watchers of `consul`, and what they tell. Without one every ask is told so.
    pub fn new(consul: Option<Consul>, dice: fastrand::Rng) -> (Watchers, Told) {
        let (told, news) = channel(WAITING);
        (Watchers { consul, tasks: HashMap::new(), told, dice }, news)
    }

    /// Watches what is asked for, and nothing else. What is known already is not given up lightly.
    pub fn watch(&mut self, asked: &BTreeSet<Ask>, known: &Discovered) {
        self.tasks.retain(|ask, _| asked.contains(ask));
        for ask in asked {
            if self.tasks.contains_key(ask) {
                continue;
            }
            let Some(consul) = self.consul.clone() else {
                let why =
                    "no Consul is configured: add `providers: { consul: { address: … } }` to the control plane's heddle.yaml";
                let (told, news) = (self.told.clone(), (ask.clone(), News::Away(why.to_owned())));
                // Nobody listens any more: the process ends.
                self.tasks.insert(ask.clone(), Task(tokio::spawn(async move { drop(told.send(news).await) })));
                continue;
            };
            let held = known.get(ask).is_some_and(|found| !found.endpoints.is_empty());
            let (belief, told) = (Belief::new(held), self.told.clone());
            let watcher = Watcher { ask: ask.clone(), belief, unsure: held, told, away: false, left_out: None };
            let dice = self.dice.fork();
            let task = if ask.prepared_query {
                tokio::spawn(watcher.poll(consul, dice))
            } else {
                tokio::spawn(watcher.follow(consul, dice))
            };
            self.tasks.insert(ask.clone(), Task(task));
        }
    }
}

struct Watcher {
    ask: Ask,
    belief: Belief,
    /// The next answer cannot be compared with what is known: it was known before a restart or a failure.
    unsure: bool,
    told: Sender<(Ask, News)>,
    away: bool,
    /// What was told of instances that are left out.
    left_out: Option<String>,
}

impl Watcher {
    async fn follow(mut self, consul: Consul, dice: fastrand::Rng) {
        let mut watch = consul.health(&self.ask.query(), dice);
        while !self.told.is_closed() {
            let seen = match self.belief.ends() {
                Some(end) => match tokio::time::timeout_at(end, watch.next()).await {
                    Ok(seen) => seen,
                    Err(_) => {
                        self.belief.settle();
                        self.tell(News::Answer(Vec::new(), None)).await;
                        continue;
                    }
                },
                None => watch.next().await,
            };
            match seen {
                Ok(seen) => self.seen(&seen, false).await,
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn poll(mut self, consul: Consul, mut dice: fastrand::Rng) {
        let (mut failures, mut round) = (0_u32, 0);
        let scope = self.ask.scope();
        while !self.told.is_closed() {
            round += 1;
            let wait = match consul.prepared(&self.ask.service, &scope, self.ask.near.as_deref()).await {
                Ok(value) => {
                    failures = 0;
                    // Nothing but being said twice speaks for emptiness; the first time it is as if something had been taken out.
                    let filtered = self.belief.ends().is_none();
                    self.seen(&Seen { value, index: round, reset: false, filtered }, true).await;
                    POLL
                }
                Err(error) => {
                    self.failed(&error).await;
                    failures = failures.saturating_add(1);
                    pause(failures, &mut dice)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn seen(&mut self, seen: &Seen<Vec<Instance>>, polled: bool) {
        if std::mem::take(&mut self.away) {
            tracing::info!(service = self.ask.service, "Consul answers again");
        }
        let Usable { endpoints, left_out } = endpoints(&seen.value, &self.ask);
        if self.left_out != left_out {
            if let Some(why) = &left_out {
                tracing::warn!(service = self.ask.service, why, "instances in Consul are left out");
            }
            self.left_out.clone_from(&left_out);
        }
        let unsure = seen.reset || std::mem::take(&mut self.unsure);
        match self.belief.judge(endpoints.is_empty(), seen.index, unsure, seen.filtered, clock::now()) {
            Verdict::Believe => self.tell(News::Answer(endpoints, left_out)).await,
            Verdict::Doubt => {
                let why = if polled && self.belief.is_lost() {
                    "the answer is empty after one was missed; it is believed when it stays so for a minute"
                } else if polled {
                    "the answer is empty; it is believed when it is given again"
                } else if seen.filtered {
                    "Consul's ACLs take instances out of the answer: give the token service:read and node:read"
                } else {
                    "Consul has begun anew and knows no instance yet; the ones from before stay until it does, or for a minute"
                };
                tracing::warn!(service = self.ask.service, why, "an empty answer is doubted");
                self.tell(News::Doubt(why.to_owned())).await;
            }
        }
    }

    async fn failed(&mut self, error: &ConsulError) {
        self.unsure = true;
        self.belief.away(clock::now());
        if !std::mem::replace(&mut self.away, true) {
            tracing::warn!(service = self.ask.service, %error, "instances in Consul are not known any more; the last known ones stay");
        }
        self.tell(News::Away(error.to_string())).await;
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more: the process ends.
        let _ = self.told.send((self.ask.clone(), news)).await;
    }
}
