//! What goes on by itself: identities of this very process, files that change, steps of a rotation, and what has expired. It knows no connection.

use std::collections::BTreeMap;
use std::time::Duration;

use heddle_node::drain::DrainWatch;
use heddle_node::identity::{Identity, SpiffeId, Svid};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, at};
use super::error::CaError;
use super::holders::{Holder, Seat};
use super::rotation::Phase;
use super::sign::PeerRefusal;
use super::stored;
use crate::leader::Leader;

/// How often is looked.
const TICK: Duration = Duration::from_millis(500);
/// Ticks between two looks at what has expired.
const PRUNE_EVERY: u32 = 120;

/// Somebody within the process of the authority who has an identity without asking for it: the control plane itself, and the agent beside it.
pub struct Resident {
    id: SpiffeId,
    /// Id of the node, where it is an agent, which tells whom it has refused.
    node: Option<String>,
    identity: Identity,
    /// Where it is seen that it holds the present bundles.
    seat: Option<Seat>,
    /// The root that signed its certificate.
    root: Option<String>,
}

impl Resident {
    /// Who it is, as it changes.
    pub fn identity(&self) -> Identity {
        self.identity.clone()
    }
}

impl Authority {
    /// The control plane itself, as nobody so far.
    ///
    /// # Errors
    /// The name of the trust domain is too long for it.
    pub fn own(&self) -> Result<Resident, CaError> {
        Ok(Resident { id: self.control_plane_id()?, node: None, identity: Identity::new(), seat: None, root: None })
    }

    /// An agent in the same process, as nobody so far; `node` is its node id. It needs no proof, as it could take the key of the root anyway.
    ///
    /// # Errors
    /// Such a service cannot have an identity.
    pub fn agent(&self, node: &str, namespace: &str, service: &str) -> Result<Resident, CaError> {
        let id = self.service_id(namespace, service)?;
        let holder = Holder { node: node.to_owned(), spiffe_id: id.to_string(), version: String::new(), ..Holder::default() };
        Ok(Resident {
            seat: self.holders().enter(holder),
            id,
            node: Some(node.to_owned()),
            identity: Identity::new(),
            root: None,
        })
    }

    /// Keeps the house until the drain begins: gives `residents` their certificates and everybody's roots, as they change. `expected` tells the nodes that
    /// are connected and have an identity, by id. Of several control planes the leader takes the steps of a rotation, and forgets.
    pub async fn run(
        self,
        mut residents: Vec<Resident>,
        expected: impl Fn() -> Vec<String> + Send,
        leader: Leader,
        mut drain: DrainWatch,
    ) {
        let (mut ticks, mut trusted) = (0_u32, self.trusted());
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                changed = trusted.changed() => if changed.is_err() { return },
                () = drain.draining() => return,
            }
            ticks = ticks.wrapping_add(1);
            self.read_files();
            self.go_on(&expected(), &leader).await;
            for resident in &mut residents {
                if let Err(error) = self.identify(resident).await {
                    tracing::error!(%error, id = %resident.id, "an identity of this process cannot be renewed");
                }
                self.hear(resident).await;
            }
            if let Some(kubernetes) = &self.0.kubernetes {
                kubernetes.refresh(false).await;
            }
            if ticks.is_multiple_of(PRUNE_EVERY)
                && leader.leads()
                && let Err(error) = self.prune().await
            {
                tracing::error!(%error, "what has expired could not be forgotten");
            }
        }
    }

    /// Writes down whom an agent of this process has refused, as it does for those that are connected.
    async fn hear(&self, resident: &Resident) {
        let Some(node) = &resident.node else { return };
        let told = resident.identity.refusals().take(self.now_ms());
        if told.is_empty() {
            return;
        }
        let refused = told.entries.into_iter().map(|refused| PeerRefusal {
            reason: refused.reason.to_owned(),
            peer: refused.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            subject: refused.subject,
            detail: refused.detail,
            count: refused.count,
        });
        self.reported(node, &resident.id.to_string(), refused.collect(), told.left_out).await;
    }

    /// Takes the next step of a rotation, or tells whoever leads what it waits for.
    async fn go_on(&self, expected: &[String], leader: &Leader) {
        if let Err(error) = self.report(expected).await {
            tracing::warn!(%error, "which nodes of this control plane hold the new root cannot be told to the others");
        }
        if !leader.leads() {
            return;
        }
        if let Err(error) = self.look_for_others().await {
            tracing::warn!(%error, "what control planes said that are gone could not be forgotten");
        }
        if let Err(error) = self.advance(expected).await {
            tracing::error!(%error, "the rotation of the root cannot go on");
        }
    }

    /// Gives somebody of this process the present bundles, and a certificate when there is none, half of its life is over, or another root signs now.
    ///
    /// # Errors
    /// The resident keeps what it has.
    pub async fn identify(&self, resident: &mut Resident) -> Result<(), CaError> {
        let trusted = self.0.trusted.borrow().clone();
        if *resident.identity.bundles() != trusted.bundles {
            resident.identity.set_bundles(trusted.bundles.clone());
        }
        if let Some(seat) = &resident.seat {
            seat.holds(&trusted.version);
        }
        let root = self.0.book.lock().rotation.signing().map(|root| root.fingerprint.clone());
        if resident.root == root && resident.identity.svid().is_some_and(|svid| self.is_fresh(&svid)) {
            return Ok(());
        }
        let key = KeyPair::generate().map_err(super::issuer::IssuerError::from)?;
        let issued = self.sign_own(&resident.id, &key).await.map_err(|refusal| CaError::Refused(refusal.detail))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let svid = Svid::new(issued.chain, key).map_err(|error| CaError::Refused(error.to_string()))?;
        resident.identity.set_svid(svid);
        resident.root = root;
        Ok(())
    }

    /// Forgets what has expired, once that is written down.
    ///
    /// # Errors
    /// It could not be written down, and is tried again the next time.
    pub async fn prune(&self) -> Result<(), CaError> {
        let now_ms = self.now_ms();
        let (tokens, identities) = {
            let book = self.0.book.lock();
            let of_root = |(root, live): (&String, &BTreeMap<String, u64>)| {
                let expired = live.iter().filter(|(_, until_ms)| **until_ms < now_ms);
                expired.map(|(id, until_ms)| (root.clone(), id.clone(), *until_ms)).collect::<Vec<_>>()
            };
            (book.tokens.old(now_ms), book.live.iter().flat_map(of_root).collect::<Vec<_>>())
        };
        if tokens.is_empty() && identities.is_empty() {
            return Ok(());
        }
        // Who renews meanwhile stays.
        let writes = tokens.iter().map(|id| stored::no_token(id));
        let writes = writes.chain(identities.iter().map(|(root, id, until_ms)| stored::not_live(root, id, *until_ms)));
        self.write(writes.collect(), None).await?;
        let mut book = self.0.book.lock();
        tokens.iter().for_each(|id| drop(book.tokens.remove(id)));
        for (root, id, until_ms) in &identities {
            if let Some(live) = book.live.get_mut(root).filter(|live| live.get(id) == Some(until_ms)) {
                live.remove(id);
            }
        }
        book.live.retain(|_, identities| !identities.is_empty());
        Ok(())
    }

    fn is_fresh(&self, svid: &Svid) -> bool {
        let life = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
        // The allowance for clocks that lag behind is no part of the life.
        let life = life.saturating_sub(self.0.settings.clock_skew).max(Duration::from_secs(2));
        svid.remaining(at(self.now_ms())) > life / 2
    }

    /// Adds what operators watch to a page of metrics.
    ///
    /// # Errors
    /// A name is there already.
    pub fn expose(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        for collector in self.0.counters.collectors() {
            registry.register(collector)?;
        }
        let overview = self.overview(&[]);
        let expiry = IntGaugeVec::new(
            Opts::new(
                "heddle_identity_root_expiry_timestamp_seconds",
                "When a root expires, by the beginning of its fingerprint.",
            ),
            &["root"],
        )?;
        let live = IntGaugeVec::new(
            Opts::new("heddle_identity_live", "Identities that are valid, by the root that signed them."),
            &["root"],
        )?;
        for root in &overview.roots {
            let name = root.meta.fingerprint.get(..16).unwrap_or_default();
            expiry.with_label_values(&[name]).set(number(root.meta.not_after_ms / 1_000));
            live.with_label_values(&[name]).set(number(root.live as u64));
        }
        let gauge = |name: &str, help: &str, value: i64| {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(value);
            registry.register(Box::new(gauge))
        };
        let rotating = overview.phase != Phase::Steady;
        gauge("heddle_identity_rotating", "1 while a root is being replaced.", i64::from(rotating))?;
        let behind = overview.holders.iter().filter(|holder| holder.version != overview.version).count();
        let skew = overview.holders.iter().filter_map(|holder| holder.clock_skew_ms).max_by_key(|skew| skew.unsigned_abs());
        if let Some(skew) = skew {
            let name = "heddle_identity_nodes_clock_skew_milliseconds";
            gauge(name, "By how much the clock of the connected node that is off most is ahead of ours.", skew)?;
        }
        if let Some(first) = overview.holders.iter().filter_map(|holder| holder.not_after_ms).min() {
            let name = "heddle_identity_nodes_earliest_expiry_timestamp_seconds";
            gauge(name, "When the first identity of connected nodes ends, Unix seconds.", number(first / 1_000))?;
        }
        gauge("heddle_identity_nodes_behind", "Connected nodes that do not hold the present bundles.", number(behind as u64))?;
        registry.register(Box::new(expiry))?;
        registry.register(Box::new(live))
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
