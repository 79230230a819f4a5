//! Both machines against both clients, over a network that delays and breaks: at rest, the client holds the snapshot.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::client::{Asked, ClientMachine, DeltaClient, Held, Holdings, SotwClient};
use crate::codec::InvalidResource;
use crate::server::{DeltaMachine, SotwMachine};

/// Content that the consumer refuses.
const BAD: &str = "bad";

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8, u8),
    Remove(u8, u8),
    /// The machine hears of changes.
    Notice,
    /// The server sends, if it wants to.
    Respond,
    /// A request arrives at the server.
    Request,
    /// Some responses arrive at the client.
    Receive(u8),
    /// The stream breaks; what was under way is lost.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..3, 0u8..4, 0u8..4).prop_map(|(kind, name, content)| Step::Set(kind, name, content)),
        2 => (0u8..3, 0u8..4).prop_map(|(kind, name)| Step::Remove(kind, name)),
        3 => Just(Step::Notice),
        4 => Just(Step::Respond),
        4 => Just(Step::Request),
        3 => (1u8..4).prop_map(Step::Receive),
        1 => Just(Step::Break),
    ]
}

const KINDS: [Kind; 3] = [Kind::Secret, Kind::Endpoints, Kind::Certificate];

struct Net<C: ClientMachine, M> {
    store: SnapshotStore,
    server: M,
    client: C,
    open: fn(u64) -> M,
    to_server: VecDeque<C::Request>,
    to_client: VecDeque<C::Response>,
}

impl<C: ClientMachine, M: Machine<Request = C::Request, Response = C::Response>> Net<C, M> {
    fn new(client: C, open: fn(u64) -> M, log: usize) -> Self {
        let store = SnapshotStore::with_log(log);
        let mut net = Net { server: open(0), store, client, open, to_server: VecDeque::new(), to_client: VecDeque::new() };
        net.connect();
        net
    }

    fn connect(&mut self) {
        self.server = (self.open)(self.store.position());
        self.to_client.clear();
        self.to_server = self.client.hello().into();
    }

    fn receive(&mut self, count: usize) {
        let (mut open, mut rejected) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let Some(response) = self.to_client.pop_front() else { break };
            if !self.client.joins(&open, &response) {
                self.to_client.push_front(response);
                break;
            }
            let (update, opened) = self.client.receive(response);
            for set in update.set.iter().filter(|set| format!("{:?}", content_of(&set.resource)).contains(BAD)) {
                rejected.push(InvalidResource {
                    kind: update.kind,
                    name: set.name.clone(),
                    field: "f".to_string(),
                    reason: "r".to_string(),
                });
            }
            open.push(opened);
        }
        for open in open {
            let request = self.client.settle(open, &rejected);
            self.to_server.push_back(request);
        }
    }

    fn step(&mut self, step: &Step) {
        let name = |n: &u8| format!("n{n}");
        match step {
            Step::Set(kind, n, content) => {
                let content = if *content == 0 { BAD.to_string() } else { format!("c{content}") };
                self.store.apply(vec![set(KINDS[usize::from(*kind)], &name(n), &content)]);
            }
            Step::Remove(kind, n) => drop(self.store.apply(vec![gone(KINDS[usize::from(*kind)], &name(n))])),
            Step::Notice => self.server.changes(since(&self.store, self.server.position()), &self.store),
            Step::Respond => self.to_client.extend(self.server.response(&self.store)),
            Step::Request => {
                if let Some(request) = self.to_server.pop_front() {
                    self.server.request(request, &self.store, at(1)).unwrap();
                }
            }
            Step::Receive(count) => self.receive(usize::from(*count)),
            Step::Break => self.connect(),
        }
    }

    /// Nothing more changes; everything is delivered.
    fn settle(&mut self) {
        self.step(&Step::Notice);
        for _ in 0..10_000 {
            let before = self.to_server.len() + self.to_client.len();
            self.step(&Step::Request);
            let response = self.server.response(&self.store);
            let idle = before == 0 && response.is_none();
            self.to_client.extend(response);
            self.receive(1);
            if idle {
                return;
            }
        }
        panic!("the machines never come to rest");
    }

    /// What a client that refuses what is bad must hold at rest: good resources in their present version, and nothing that is gone.
    fn check(&self) -> Result<(), TestCaseError> {
        for kind in KINDS {
            let present = self.store.list(kind, &NodeScope::default());
            for versioned in &present {
                let held = self.client.holdings().get(kind, versioned.resource.name());
                let bad = format!("{:?}", content_of(&versioned.resource)).contains(BAD);
                let same = held == Some(&Held { version: versioned.version.clone(), body: versioned.body.clone() });
                prop_assert!(same != bad, "{kind:?} {:?} bad={bad} held={held:?}", versioned.resource.name());
            }
            for (name, _) in self.client.holdings().list(kind) {
                prop_assert!(present.iter().any(|versioned| versioned.resource.name() == name), "{kind:?} {name} should be gone");
            }
            let bad = present.iter().filter(|v| format!("{:?}", content_of(&v.resource)).contains(BAD)).count();
            let nacks = self.server.nacks().iter().filter(|nack| nack.kind == kind).count();
            prop_assert_eq!(nacks, bad, "every bad resource, and no other, is listed as refused");
        }
        Ok(())
    }
}

fn content_of(resource: &Resource) -> String {
    match resource {
        Resource::Secret(Secret { body: SecretBody::Roots(pem), .. }) => pem.to_string(),
        other => format!("{other:?}"),
    }
}

fn simulate<C, M>(client: C, open: fn(u64) -> M, log: usize, steps: &[Step]) -> Result<(), TestCaseError>
where
    C: ClientMachine,
    M: Machine<Request = C::Request, Response = C::Response>,
{
    let mut net = Net::new(client, open, log);
    steps.iter().for_each(|step| net.step(step));
    net.settle();
    net.check()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn delta_comes_to_rest_with_the_snapshot(steps in proptest::collection::vec(step(), 0..80), log in 1usize..20) {
        simulate(DeltaClient::new(Holdings::default(), Asked::default()), |at| DeltaMachine::new(NodeScope::default(), at), log, &steps)?;
    }

    #[test]
    fn sotw_comes_to_rest_with_the_snapshot(steps in proptest::collection::vec(step(), 0..80), log in 1usize..20) {
        simulate(SotwClient::new(Holdings::default(), Asked::default()), |at| SotwMachine::new(NodeScope::default(), at), log, &steps)?;
    }
}
