//! Gets this process its identity and keeps it: from the control plane by token and renewal, or from a SPIRE agent. It knows neither listeners nor
//! requests; they read the shared `Identity`.

mod files;
mod held;
mod keeper;
mod request;
mod schedule;
mod sds;
mod signer;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wire;
mod workload;

use std::path::Path;
use std::sync::Arc;

use heddle_node::identity::{Bundle, Bundles, Expect, Identity, MAX_BUNDLE_BYTES, SpiffeId, TrustDomain, domain_of_roots};
use heddle_node::readiness::Readiness;
use heddle_xds::link::{Connector, LinkError, Named};

pub use stats::{Stats, expiry_page};

use crate::settings::AgentSettings;
use held::Held;
use keeper::Keeper;
use signer::Trust;
use wire::GrpcSigner;

/// What the keeping of an identity is made of.
pub struct Parts<'a> {
    /// What the agent was told.
    pub settings: &'a AgentSettings,
    /// Id of the node, for what operators are shown.
    pub node: &'a str,
    /// Where the identity is kept, when that is wanted.
    pub data_dir: &'a Path,
    /// Waits for the identity.
    pub readiness: &'a Readiness,
}

/// An identity that is kept.
pub struct Running {
    /// Who this process is; nobody where the control plane is reached in clear.
    pub identity: Identity,
    /// The way to the control plane, as that identity.
    pub connector: Connector,
    /// What is counted.
    pub stats: Arc<Stats>,
}

/// Why no identity can be kept.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The roots cannot be read.
    #[error("controlplane.bundle {path}: {why}")]
    Bundle {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The roots do not say whose they are.
    #[error("the roots of controlplane.bundle name no trust domain, or several: set identity.trust_domain")]
    TrustDomain,
    /// Names of service or namespace make no identity.
    #[error("service: {0}")]
    Service(heddle_node::identity::SpiffeIdError),
    /// The socket of the Workload API cannot be opened.
    #[error("identity.workload_api {path}: {source}; name a path in a folder of this user")]
    WorkloadApi {
        /// Where.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// With a SPIRE agent, the bundle to ask for must be known.
    #[error("identity.sds needs identity.trust_domain: the trust domain of the SPIRE agent")]
    SdsTrustDomain,
    /// Not an address.
    #[error("controlplane.address: {0}")]
    Address(#[from] LinkError),
}

/// Begins to keep the identity of this process, on the present runtime and as long as that lives: what is drained still opens connections. `/ready` waits
/// for the first one.
///
/// # Errors
/// The configuration cannot work; nothing is left running.
pub fn start(parts: Parts<'_>) -> Result<Running, StartError> {
    let (identity, stats) = (Identity::new(), Arc::<Stats>::default());
    hand_on(parts.settings, &identity)?;
    let connector = match &parts.settings.identity.sds {
        Some(socket) => from_spire(&parts, socket, &identity, &stats)?,
        None if parts.settings.control_plane.address.tls => from_control_plane(&parts, &identity, &stats)?,
        None => to_any(parts.settings, Connector::tcp)?,
    };
    Ok(Running { identity, connector, stats })
}

/// Hands an identity to the application by the Workload API and in files, as far as that is configured, as long as the present runtime lives.
///
/// # Errors
/// Its socket cannot be opened.
pub fn hand_on(settings: &AgentSettings, identity: &Identity) -> Result<(), StartError> {
    if let Some(folder) = settings.identity.files.clone() {
        tokio::spawn(files::keep(folder, identity.clone()));
    }
    let Some(workload) = &settings.identity.workload_api else { return Ok(()) };
    let failed = |source| StartError::WorkloadApi { path: workload.path.display().to_string(), source };
    let listener = workload::open(workload).map_err(failed)?;
    tokio::spawn(workload::serve(listener, workload.uids.clone(), identity.clone()));
    Ok(())
}

/// The way to whichever of several control planes answers that show ordinary certificates: nobody gets an identity from them.
///
/// # Errors
/// Not an address, or TLS cannot work with what is told.
pub fn by_name(addresses: &[String], named: &Named) -> Result<Connector, LinkError> {
    let ways = addresses.iter().map(|address| Connector::named(address, named)).collect::<Result<Vec<_>, _>>()?;
    Ok(Connector::any(ways, fastrand::Rng::new()))
}

/// Begins to get the identity from the control plane; returns the way to it.
fn from_control_plane(parts: &Parts<'_>, identity: &Identity, stats: &Arc<Stats>) -> Result<Connector, StartError> {
    let Parts { settings, node, data_dir, readiness } = parts;
    let access = &settings.control_plane;
    let bundle = read_bundle(settings)?;
    let domain = bundle.domain().clone();
    let folder = settings.identity.persist.then_some(*data_dir);
    let held = Arc::new(Held::new(identity.clone(), folder));
    begin(&held, bundle);
    let expect = Expect::AnyOf(vec![SpiffeId::control_plane(&domain)]);
    let connector = to_any(settings, |address| Connector::tls(address, identity, expect.clone()))?;
    let joining = to_any(settings, |address| Connector::joining(address, &held.joiner, expect.clone()))?;
    let signer = GrpcSigner { joining, renewing: connector.beside() };
    let mut dice = fastrand::Rng::new();
    let keeper = Keeper {
        held: held.clone(),
        signer: Box::new(signer),
        proof: access.proof.clone(),
        wanted: wanted(settings, &domain)?,
        stats: stats.clone(),
        dice: dice.fork(),
        guard: Some(readiness.guard("identity")),
    };
    tokio::spawn(keeper.run());
    tokio::spawn(wire::follow(connector.beside(), held, stats.clone(), (*node).to_owned(), dice));
    Ok(connector)
}

/// Begins to take the identity from a SPIRE agent; returns the way to the control plane.
fn from_spire(parts: &Parts<'_>, socket: &Path, identity: &Identity, stats: &Arc<Stats>) -> Result<Connector, StartError> {
    let Parts { settings, node, readiness, .. } = parts;
    let domain = settings.identity.trust_domain.clone().ok_or(StartError::SdsTrustDomain)?;
    let connector = if settings.control_plane.address.tls {
        let expect = Expect::AnyOf(vec![SpiffeId::control_plane(&domain)]);
        to_any(settings, |address| Connector::tls(address, identity, expect.clone()))?
    } else {
        to_any(settings, Connector::tcp)?
    };
    let mut dice = fastrand::Rng::new();
    let held = Arc::new(Held::beside(identity.clone()));
    if settings.control_plane.address.tls {
        // What it tells of clocks, and of whom others are federated with; and it hears whom this node has refused.
        tokio::spawn(wire::follow(connector.beside(), held.clone(), stats.clone(), (*node).to_owned(), dice.fork()));
    }
    let source = sds::Source { held, wanted: wanted(settings, &domain)?, domain, node: (*node).to_owned(), stats: stats.clone() };
    let (socket, guard) = (socket.to_owned(), readiness.guard("identity"));
    tokio::spawn(async move { source.follow(&socket, Some(guard), dice).await });
    Ok(connector)
}

/// The way to whichever control plane answers.
fn to_any(settings: &AgentSettings, to: impl Fn(&str) -> Result<Connector, LinkError>) -> Result<Connector, LinkError> {
    let ways = settings.control_plane.addresses().iter().map(|address| to(address)).collect::<Result<Vec<_>, _>>()?;
    Ok(Connector::any(ways, fastrand::Rng::new()))
}

/// What is trusted, and who this process is, before the control plane was asked: by the configuration, and by what an earlier process has kept.
fn begin(held: &Held, configured: Bundle) {
    let kept = held.read().unwrap_or_else(|error| {
        tracing::warn!(error, "the identity that was kept is not used");
        None
    });
    let of_kept = kept.as_ref().and_then(|kept| kept.bundles.own()).filter(|own| own.domain() == configured.domain());
    // Both count until the control plane has spoken: the file may be older than what was kept, and what was kept older than the file.
    let mut roots = configured.roots().to_vec();
    roots.extend(of_kept.into_iter().flat_map(|own| own.roots()).filter(|root| !configured.roots().contains(root)).cloned());
    let own = Bundle::from_der(configured.domain().clone(), roots).unwrap_or(configured);
    let domain = own.domain().clone();
    let others = kept.iter().flat_map(|kept| kept.bundles.federated()).cloned();
    let trust = Trust { bundles: others.fold(Bundles::new(own), Bundles::with_federated), version: String::new() };
    match kept.map(|kept| kept.svid).filter(|svid| *svid.id().trust_domain() == domain) {
        Some(svid) => held.become_who(svid, trust),
        None => held.trust(trust),
    }
}

fn read_bundle(settings: &AgentSettings) -> Result<Bundle, StartError> {
    let Some(path) = &settings.control_plane.bundle else { return Err(StartError::TrustDomain) };
    let wrong = |why: String| StartError::Bundle { path: path.display().to_string(), why };
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut pem = String::new();
    let most = u64::try_from(MAX_BUNDLE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    std::io::Read::read_to_string(&mut std::io::Read::take(file, most), &mut pem).map_err(|error| wrong(error.to_string()))?;
    let domain = settings.identity.trust_domain.clone().or_else(|| domain_of_roots(&pem));
    Bundle::from_pem(domain.ok_or(StartError::TrustDomain)?, &pem).map_err(|error| wrong(error.to_string()))
}

/// Who this process is by its configuration; without a service, its token decides.
fn wanted(settings: &AgentSettings, domain: &TrustDomain) -> Result<Option<SpiffeId>, StartError> {
    let id = |service: &crate::settings::ServiceSettings| SpiffeId::service(domain, &service.namespace, &service.name);
    settings.mesh.service.as_ref().map(id).transpose().map_err(StartError::Service)
}
