//! The authority as a whole: opened from the store, changed step by step, each step written down before it counts. It knows neither who asks nor how.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use heddle_node::identity::{Bundle, BundleError, Bundles, SpiffeId, TrustDomain};
use parking_lot::Mutex;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::bundles::Trusted;
use super::error::CaError;
use super::federation::Federation;
use super::holders::Holders;
use super::issuer::{Issuer, meta_of};
use super::kubernetes::Kubernetes;
use super::others::{Fellows, Reports};
use super::rotation::{self, Rotation};
use super::sign::{Counters, Decision, Limits, Rate, RefusalBudget};
use super::stored::{self, Live, State, Stored, StoredRoot};
use super::tokens::{Token, Tokens};
use crate::model::ServiceId;
use crate::seal::Seal;
use crate::settings::{CaFiles, IdentitySettings};
use crate::store::{Clock, RecordWrite, Records, StoreError};

/// Namespace and service of control planes; nobody else gets this identity.
pub(super) const CONTROL_PLANE: (&str, &str) = ("heddle", "controlplane");

/// Times that opening is begun anew because another control plane opens too.
const RACES: usize = 10;

/// The certificate authority. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Authority(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) settings: IdentitySettings,
    pub(super) records: Arc<dyn Records>,
    pub(super) clock: Clock,
    pub(super) book: Mutex<Book>,
    /// Held by whoever changes roots or phase, from the decision until it is written down.
    changing: tokio::sync::Mutex<()>,
    pub(super) trusted: watch::Sender<Arc<Trusted>>,
    pub(super) holders: Holders,
    pub(super) counters: Counters,
    pub(super) kubernetes: Option<Kubernetes>,
    /// The record of roots and rotation as it lies in the store, and its number.
    pub(super) written: Mutex<(Option<Vec<u8>>, u64)>,
    pub(super) seal: Arc<Seal>,
    /// The other control planes, where there may be some.
    pub(super) fellows: Mutex<Option<Fellows>>,
}

/// What decisions are made from.
pub(super) struct Book {
    pub(super) rotation: Rotation,
    /// Certificates of all roots, by fingerprint.
    pub(super) roots: BTreeMap<String, CertificateDer<'static>>,
    /// Those that can sign, by fingerprint of their root.
    pub(super) issuers: BTreeMap<String, Arc<Issuer>>,
    pub(super) last_expiry_ms: BTreeMap<String, u64>,
    pub(super) live: Live,
    pub(super) tokens: Tokens,
    pub(super) limits: Limits,
    pub(super) budget: RefusalBudget,
    /// How many refusals of nodes may be written down.
    pub(super) reports_budget: RefusalBudget,
    pub(super) federation: Federation,
    /// What other control planes say of their nodes.
    pub(super) reports: Reports,
    /// Roots that are trusted besides.
    also: Vec<CertificateDer<'static>>,
    pub(super) dice: fastrand::Rng,
}

impl Book {
    /// What signs at present.
    pub(super) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuers.get(&self.rotation.signing()?.fingerprint).cloned()
    }
}

impl Authority {
    /// Opens the authority of the store, or makes one.
    pub async fn open(
        settings: IdentitySettings,
        records: Arc<dyn Records>,
        seal: Arc<Seal>,
        clock: Clock,
        dice: fastrand::Rng,
    ) -> Result<Authority, CaError> {
        // Of control planes that start together one makes the root; the others find it when they look again.
        for _ in 0..RACES {
            let all = records.records().await?;
            let before = stored::state_of(&all);
            let stored = Stored::read(all).map_err(CaError::Damaged)?;
            let number = stored.state.as_ref().map_or(0, |state| state.number);
            let (settings, dice) = (settings.clone(), dice.clone());
            let authority = Authority::from(settings, (records.clone(), seal.clone()), clock.clone(), dice, stored)?;
            *authority.0.written.lock() = (before, number);
            match authority.write_roots().await {
                Err(CaError::Store(StoreError::Changed(_))) => {}
                done => {
                    done?;
                    authority.read_files();
                    return Ok(authority);
                }
            }
        }
        Err(CaError::Refused("other control planes change the authority all the time; start again".into()))
    }

    fn from(
        settings: IdentitySettings,
        (records, seal): (Arc<dyn Records>, Arc<Seal>),
        clock: Clock,
        dice: fastrand::Rng,
        stored: Stored,
    ) -> Result<Authority, CaError> {
        let now_ms = clock();
        let (rotation, roots, issuers) = settle(&settings, stored.state.as_ref(), &seal, now_ms)?;
        let rate = |per_second: f64| Rate { per_second, burst: (2.0 * per_second).max(10.0) };
        let book = Book {
            also: settings.ca.also_trusted.as_deref().map(certificates).transpose()?.unwrap_or_default(),
            tokens: Tokens::new(stored.tokens),
            limits: Limits::new(rate(settings.signing.0), rate(settings.signing.1), now_ms),
            budget: RefusalBudget::new(now_ms),
            reports_budget: RefusalBudget::of_reports(now_ms),
            federation: Federation::new(&settings.federation),
            reports: Reports::new(stored.reports),
            last_expiry_ms: stored.last_expiry_ms,
            live: stored.live,
            rotation,
            roots,
            issuers,
            dice,
        };
        let trusted = watch::Sender::new(bundle(&settings.trust_domain, &book)?);
        let kubernetes = settings.kubernetes.clone().map(Kubernetes::new);
        let inner = Inner {
            settings,
            records,
            clock,
            book: Mutex::new(book),
            changing: tokio::sync::Mutex::new(()),
            trusted,
            holders: Holders::default(),
            counters: Counters::new(),
            kubernetes,
            written: Mutex::new((None, 0)),
            seal,
            fellows: Mutex::new(None),
        };
        Ok(Authority(Arc::new(inner)))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.settings.trust_domain
    }

    /// Whether nodes of this service may be gateways.
    pub fn may_be_gateway(&self, namespace: &str, service: &str) -> bool {
        let named = |gateway: &String| gateway.split_once('/') == Some((namespace, service));
        self.0.settings.gateways.iter().any(named)
    }

    /// The identity of control planes.
    pub fn control_plane_id(&self) -> Result<SpiffeId, CaError> {
        SpiffeId::service(self.trust_domain(), CONTROL_PLANE.0, CONTROL_PLANE.1)
            .map_err(|error| CaError::Refused(error.to_string()))
    }

    /// The identity of a service, which is not that of control planes.
    pub(super) fn service_id(&self, namespace: &str, service: &str) -> Result<SpiffeId, CaError> {
        let id =
            SpiffeId::service(self.trust_domain(), namespace, service).map_err(|error| CaError::Refused(error.to_string()))?;
        if (namespace, service) == CONTROL_PLANE {
            return Err(CaError::Refused(format!("{id} is the identity of control planes; nobody else has it")));
        }
        Ok(id)
    }

    /// Whom nodes should trust, as it changes.
    pub fn trusted(&self) -> watch::Receiver<Arc<Trusted>> {
        self.0.trusted.subscribe()
    }

    /// Who is told so.
    pub fn holders(&self) -> &Holders {
        &self.0.holders
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        (self.0.clock)()
    }

    /// Adds a new root to all bundles; it signs once everybody has it.
    pub async fn rotate(&self) -> Result<(), CaError> {
        if self.0.settings.ca.files.is_some() {
            return Err(CaError::External);
        }
        let _changing = self.0.changing.lock().await;
        let settings = &self.0.settings;
        let now_ms = self.now_ms();
        let issuer = Issuer::generate(self.trust_domain(), at(now_ms), settings.ca.root_ttl, settings.clock_skew)?;
        let mut rotation = self.0.book.lock().rotation.clone();
        rotation.begin(issuer.meta().clone(), now_ms)?;
        let fingerprint = issuer.meta().fingerprint.clone();
        {
            let mut book = self.0.book.lock();
            book.roots.insert(fingerprint.clone(), issuer.root().clone());
            book.issuers.insert(fingerprint.clone(), Arc::new(issuer));
        }
        if let Err(error) = self.step(rotation).await {
            // When it was written all the same, it comes back from the store, with its key.
            let mut book = self.0.book.lock();
            if !book.rotation.roots.iter().any(|root| root.fingerprint == fingerprint) {
                book.roots.remove(&fingerprint);
                book.issuers.remove(&fingerprint);
            }
            return Err(error);
        }
        tracing::info!("a new root was added to all bundles; it signs once all nodes have it");
        Ok(())
    }

    /// Takes a rotation back, or signs with the new root at once.
    pub async fn interfere(&self, cancel: bool) -> Result<(), CaError> {
        let _changing = self.0.changing.lock().await;
        let mut rotation = self.0.book.lock().rotation.clone();
        if cancel {
            rotation.cancel()?;
        } else {
            rotation.force(self.now_ms())?;
        }
        self.step(rotation).await
    }

    /// Takes the next step of a rotation when it may be taken; begins one when a root of our own gets old. `expected` are nodes that are connected, by id.
    pub async fn advance(&self, expected: &[String]) -> Result<(), CaError> {
        if self.is_old() {
            self.rotate().await?;
        }
        let _changing = self.0.changing.lock().await;
        let holdings = self.holdings(expected);
        let (rotation, taken) = {
            let book = self.0.book.lock();
            let mut rotation = book.rotation.clone();
            let taken = rotation.advance(&self.seen(&book, &holdings, &self.0.trusted.borrow().version));
            (rotation, taken)
        };
        let Some(step) = taken else { return Ok(()) };
        self.step(rotation).await?;
        tracing::info!(?step, "the rotation of the root has taken a step");
        Ok(())
    }

    /// Whether a root of our own has used up four fifths of its life.
    fn is_old(&self) -> bool {
        let book = self.0.book.lock();
        let Some(root) = book.rotation.signing() else { return false };
        let old = root.not_after_ms - (root.not_after_ms.saturating_sub(root.not_before_ms)) / 5;
        self.0.settings.ca.files.is_none() && book.rotation.phase == rotation::Phase::Steady && self.now_ms() > old
    }

    /// Makes a rotation that was decided upon real: written down first, then in force, then told.
    async fn step(&self, rotation: Rotation) -> Result<(), CaError> {
        let gone: Vec<String> = {
            let book = self.0.book.lock();
            let kept = |fingerprint: &&String| rotation.roots.iter().any(|root| root.fingerprint == **fingerprint);
            book.roots.keys().filter(|fingerprint| !kept(fingerprint)).cloned().collect()
        };
        self.write_state(&rotation, gone.iter().map(|root| stored::no_expiry(root)).collect()).await?;
        {
            let mut book = self.0.book.lock();
            book.rotation = rotation;
            for root in &gone {
                book.roots.remove(root);
                book.issuers.remove(root);
                book.last_expiry_ms.remove(root);
            }
        }
        self.publish();
        Ok(())
    }

    /// The record of roots and rotation.
    pub(super) fn state(&self, rotation: &Rotation, number: u64) -> Result<RecordWrite, CaError> {
        let book = self.0.book.lock();
        let mut roots = Vec::new();
        for root in &rotation.roots {
            let Some(certificate) = book.roots.get(&root.fingerprint) else { continue };
            let issuer = book.issuers.get(&root.fingerprint).filter(|_| self.0.settings.ca.files.is_none());
            let key = issuer.map(|issuer| self.0.seal.seal(&STANDARD.encode(issuer.key_der()))).transpose()?;
            roots.push(StoredRoot::new(&root.fingerprint, certificate, key));
        }
        let state = State { trust_domain: self.trust_domain().to_string(), number, rotation: rotation.clone(), roots };
        stored::state(&state).map_err(|error| CaError::Damaged(error.to_string()))
    }

    async fn write_roots(&self) -> Result<(), CaError> {
        let rotation = self.0.book.lock().rotation.clone();
        self.write_state(&rotation, Vec::new()).await
    }

    /// Writes records and a decision down.
    pub(super) async fn write(&self, writes: Vec<RecordWrite>, decision: Option<&Decision>) -> Result<(), StoreError> {
        self.0.records.record(writes, decision.map(Decision::entry).into_iter().collect()).await
    }

    /// Tells everybody whom to trust, when that has changed.
    pub(super) fn publish(&self) {
        match bundle(self.trust_domain(), &self.0.book.lock()) {
            Ok(trusted) => drop(self.0.trusted.send_if_modified(|present| {
                let differs = present.version != trusted.version;
                *present = trusted;
                differs
            })),
            Err(error) => tracing::error!(%error, "the bundles cannot be put together; nodes keep those that they have"),
        }
    }

    /// Looks at the files of other trust domains again, and tells what has changed.
    pub fn read_files(&self) {
        if self.0.book.lock().federation.refresh() {
            self.publish();
        }
    }

    /// Makes a token for a service.
    pub async fn create_token(
        &self,
        namespace: &str,
        service: &str,
        ttl: Option<Duration>,
        author: &str,
    ) -> Result<(String, Token), CaError> {
        // More may be an identity than may be a service of the mesh, which a sidecar is.
        if ServiceId::new(namespace, service).is_none() {
            return Err(CaError::Refused(format!(
                "{namespace}/{service} can be no service of the mesh: expected 1 to 63 lower-case letters, digits, - and _ for each"
            )));
        }
        let id = self.service_id(namespace, service)?;
        let ttl = ttl.unwrap_or(self.0.settings.token_ttl);
        if ttl.is_zero() || ttl > crate::settings::MAX_TOKEN_TTL {
            return Err(CaError::Refused("expected a lifetime of 1s to 30d: a join token is used once and soon".into()));
        }
        let (token, text) = Tokens::make(&id, author, self.now_ms(), u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
        if self.0.book.lock().tokens.full() {
            return Err(CaError::Refused(
                "too many join tokens are remembered; revoke some, or wait until a day after they expire".into(),
            ));
        }
        let write = stored::token(&token).map_err(|error| CaError::Damaged(error.to_string()))?;
        self.write(vec![write], None).await?;
        self.0.book.lock().tokens.put(token.clone());
        Ok((text, token))
    }

    /// All tokens, newest first.
    pub fn tokens(&self) -> Vec<Token> {
        self.0.book.lock().tokens.list()
    }

    /// Makes a token worthless; `false` when there is none of this id. It is worthless at once, whatever becomes of the store.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, CaError> {
        let there = self.0.book.lock().tokens.remove(id).is_some();
        if there {
            self.write(vec![stored::no_token(id)], None).await?;
        }
        Ok(there)
    }
}

/// A moment of the wall clock.
pub(super) fn at(unix_ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms)
}

type Roots = (Rotation, BTreeMap<String, CertificateDer<'static>>, BTreeMap<String, Arc<Issuer>>);

/// The roots to go on with: those of the store, and in front of them the operator's, or a new one of our own when none of ours can sign.
fn settle(settings: &IdentitySettings, state: Option<&State>, seal: &Seal, now_ms: u64) -> Result<Roots, CaError> {
    let (mut rotation, mut roots, mut issuers) = before(settings, state, seal)?;
    let external = settings.ca.files.as_ref().map(from_files).transpose()?;
    let own_is_there = rotation.as_ref().and_then(Rotation::signing).is_some_and(|root| issuers.contains_key(&root.fingerprint));
    if external.is_some() || !own_is_there {
        let issuer = match external {
            Some(issuer) => issuer,
            None => Issuer::generate(&settings.trust_domain, at(now_ms), settings.ca.root_ttl, settings.clock_skew)?,
        };
        let meta = issuer.meta().clone();
        roots.insert(meta.fingerprint.clone(), issuer.root().clone());
        issuers.insert(meta.fingerprint.clone(), Arc::new(issuer));
        match &mut rotation {
            Some(rotation) if rotation.signing() == Some(&meta) => {}
            Some(rotation) => rotation.replace(meta, now_ms),
            None => rotation = Some(Rotation::steady(meta)),
        }
    }
    Ok((rotation.ok_or_else(|| CaError::Damaged("there is no root".into()))?, roots, issuers))
}

pub(super) type Before = (Option<Rotation>, BTreeMap<String, CertificateDer<'static>>, BTreeMap<String, Arc<Issuer>>);

/// What the store has: roots, and those whose keys are here.
pub(super) fn before(settings: &IdentitySettings, state: Option<&State>, seal: &Seal) -> Result<Before, CaError> {
    let Some(state) = state else { return Ok((None, BTreeMap::new(), BTreeMap::new())) };
    if state.trust_domain != settings.trust_domain.as_str() {
        return Err(CaError::TrustDomain { wanted: settings.trust_domain.to_string(), found: state.trust_domain.clone() });
    }
    let (mut roots, mut issuers) = (BTreeMap::new(), BTreeMap::new());
    for root in &state.roots {
        let damaged = || CaError::Damaged(format!("the root {} is damaged", root.fingerprint));
        let certificate = root.certificate().ok_or_else(damaged)?;
        meta_of(&certificate)?;
        roots.insert(root.fingerprint.clone(), certificate.clone());
        if let Some(key) = &root.key {
            let der = STANDARD.decode(seal.unseal(key)?).map_err(|_| damaged())?;
            let key = KeyPair::try_from(der).map_err(|_| damaged())?;
            issuers.insert(root.fingerprint.clone(), Arc::new(Issuer::new(vec![certificate], key)?));
        }
    }
    Ok((Some(state.rotation.clone()), roots, issuers))
}

fn from_files(files: &CaFiles) -> Result<Issuer, CaError> {
    let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
    Issuer::from_pem(&certificate, &key)
        .map_err(|error| CaError::File { path: files.certificate.clone(), why: error.to_string() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    use rustls_pki_types::pem::PemObject;
    let why = |error: rustls_pki_types::pem::Error| CaError::File { path: path.to_owned(), why: error.to_string() };
    CertificateDer::pem_slice_iter(read(path)?.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(why)
}

/// Reads a small file.
pub(super) fn read(path: &Path) -> Result<String, CaError> {
    use std::io::Read;
    let fault = |error: std::io::Error| CaError::File { path: path.to_owned(), why: error.to_string() };
    let mut text = String::new();
    let most = heddle_node::identity::MAX_BUNDLE_BYTES as u64;
    std::fs::File::open(path).map_err(fault)?.take(most + 1).read_to_string(&mut text).map_err(fault)?;
    if text.len() as u64 > most {
        return Err(CaError::File { path: path.to_owned(), why: format!("expected at most {most} bytes") });
    }
    Ok(text)
}

/// Puts together whom nodes should trust.
fn bundle(domain: &TrustDomain, book: &Book) -> Result<Arc<Trusted>, BundleError> {
    let own = book.rotation.roots.iter().filter_map(|root| book.roots.get(&root.fingerprint)).cloned();
    let mut roots: Vec<CertificateDer<'static>> = own.collect();
    for also in &book.also {
        if !roots.contains(also) {
            roots.push(also.clone());
        }
    }
    let bundles = Bundles::new(Bundle::from_der(domain.clone(), roots)?);
    Ok(Trusted::new(book.federation.bundles().fold(bundles, |bundles, bundle| bundles.with_federated(bundle.clone()))))
}
