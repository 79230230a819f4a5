//! Identities in a control plane that runs: its authority, its own certificate, what its port speaks, and which nodes are let in. It signs nothing itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use heddle_node::drain::DrainWatch;
use heddle_node::identity::{ClientAuth, Identity};
use heddle_xds::link::{Peer, Speaks, Turned};
use heddle_xds::protocol::NodeInfo;
use heddle_xds::server::{Elsewhere, Gate, NodeRegistry};
use heddle_xds::snapshot::SIDECAR;
use parking_lot::Mutex;
use tonic::Status;

use super::kept::Kept;
use crate::ca::{Authority, CaError, Reason, Resident};
use crate::grpc::{IdentityServer, IdentityService, sidecars};
use crate::mesh::DEFAULT_TRUST_DOMAIN;
use crate::seal::Seal;
use crate::settings::{ControlPlaneSettings, Door, ROOTS_FILE};
use crate::store::{Clock, Records};

/// Whether there are identities, and what follows from that.
pub(super) struct Identities {
    /// `None`: there are none.
    pub(super) authority: Option<Authority>,
    /// Of the control plane itself.
    own: Identity,
    /// Of the agent in the same process, when there is one.
    agent: Option<Identity>,
    /// Both, until the house is kept.
    residents: Mutex<Vec<Resident>>,
    door: Door,
}

/// The agent in the same process, which is to have an identity.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Its node id.
    pub node: String,
    /// The namespace of its service.
    pub namespace: String,
    /// Its service.
    pub service: String,
}

impl Identities {
    /// Opens the authority, when there is one, and gives the control plane and the agent beside it their identities.
    pub(super) async fn open(
        settings: &ControlPlaneSettings,
        beside: Option<Beside>,
        records: Arc<dyn Records>,
        seal: Arc<Seal>,
        clock: Clock,
    ) -> Result<Identities, CaError> {
        let door = settings.xds.door;
        let Some(identity) = settings.identity.clone() else {
            return Ok(Identities { authority: None, own: Identity::new(), agent: None, residents: Mutex::default(), door });
        };
        let authority = Authority::open(identity, records, seal, clock, fastrand::Rng::new()).await?;
        let own = authority.own()?;
        let agent = beside.map(|beside| authority.agent(&beside.node, &beside.namespace, &beside.service)).transpose()?;
        let (who, agents) = (own.identity(), agent.as_ref().map(Resident::identity));
        let mut residents: Vec<Resident> = [Some(own), agent].into_iter().flatten().collect();
        for resident in &mut residents {
            authority.identify(resident).await?;
        }
        Ok(Identities { authority: Some(authority), own: who, agent: agents, residents: Mutex::new(residents), door })
    }

    /// Who this control plane is, when there are identities.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.authority.is_some().then(|| self.own.clone())
    }

    /// Who the agent in the same process is, when there are identities.
    pub(super) fn agent(&self) -> Option<Identity> {
        self.agent.clone()
    }

    /// Renews, rotates and forgets until the drain begins, and keeps the roots below `data_dir`.
    pub(super) fn keep_house(&self, nodes: Arc<NodeRegistry>, kept: &Kept, data_dir: &Path, drain: DrainWatch) {
        let Some(authority) = self.authority.clone() else { return };
        tokio::spawn(keep_roots(data_dir.join(ROOTS_FILE), self.own.clone()));
        if let Some(news) = kept.news() {
            tokio::spawn(authority.clone().follow(news, drain.clone(), fastrand::Rng::new()));
        }
        if let Some(among) = &kept.among {
            authority.among(among.fellows());
        }
        let residents = std::mem::take(&mut *self.residents.lock());
        tokio::spawn(authority.run(residents, move || sidecars(&nodes), kept.leader.clone(), drain));
    }

    /// Of whose identities services are.
    pub(super) fn trust_domain(&self) -> &str {
        self.authority.as_ref().map_or(DEFAULT_TRUST_DOMAIN, |authority| authority.trust_domain().as_str())
    }

    /// What the port speaks.
    pub(super) fn speaks(&self) -> Speaks {
        let config = || self.own.server_config(ClientAuth::Optional, &[b"h2"]);
        match (self.door, &self.authority) {
            (Door::Tls, _) => Speaks::Tls(config()),
            (Door::Both, Some(_)) => Speaks::Both(config()),
            (Door::Both, None) | (Door::Clear, _) => Speaks::Clear,
        }
    }

    /// Writes down whose certificates open no connection.
    pub(super) fn turned(&self) -> Turned {
        let authority = self.authority.clone();
        Arc::new(move |address, why| {
            if let Some(authority) = authority.clone() {
                let peer = Peer::Tls { address, identity: None };
                tokio::spawn(async move { authority.turned_away(&peer, String::new(), Reason::Certificate, why).await });
            }
        })
    }

    /// The service by which nodes get who they are.
    /// Those who are told bundles by it are sent elsewhere with their other streams.
    pub(super) fn service(&self, elsewhere: Option<Elsewhere>, drain: &DrainWatch) -> Option<IdentityServer> {
        let authority = self.authority.clone()?;
        Some(IdentityService::new(authority, self.door == Door::Tls, elsewhere, drain.clone()).into_server())
    }

    /// Which nodes may ask for configuration.
    pub(super) fn gate(&self) -> Gate {
        let (authority, door) = (self.authority.clone(), self.door);
        Arc::new(move |peer, node| {
            let admitted = match &authority {
                None => Ok(()),
                Some(authority) => admit(authority, door, peer, node),
            };
            if admitted.is_ok() {
                locate(peer, node);
            }
            admitted
        })
    }
}

/// Keeps the roots in a file, as they change: a port that speaks TLS alone tells them to nobody who does not know them yet, and whoever operates this host has
/// to begin with something.
async fn keep_roots(path: PathBuf, own: Identity) {
    let mut changes = own.changes();
    loop {
        changes.mark_unchanged();
        if let Some(roots) = own.bundles().own()
            && let Err(error) = replace(&path, &roots.pem())
        {
            tracing::warn!(path = %path.display(), %error, "the roots cannot be written; `heddle ca export` tells them to whoever knows them");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Whoever reads it finds all of it, old or new.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}

/// Takes namespace and service of a node from its certificate, never from what it says.
fn admit(authority: &Authority, door: Door, peer: &Peer, node: &mut NodeInfo) -> Result<(), Status> {
    let scope = &mut node.scope;
    let claimed = format!("{}/{}", scope.namespace, scope.service);
    let turn_away = |claimed: &str, reason: Reason, told: Status| {
        let (authority, peer, claimed, why) = (authority.clone(), peer.clone(), claimed.to_owned(), told.message().to_owned());
        tokio::spawn(async move { authority.turned_away(&peer, claimed, reason, why).await });
        Err(told)
    };
    let id = match (peer, peer.id()) {
        (Peer::Process, _) => return Ok(()),
        (_, Some(id)) => id,
        (_, None) if door == Door::Tls => {
            let told = Status::unauthenticated("discovery demands a client certificate; join first (IdentityService.Sign)");
            return turn_away(&claimed, Reason::NoProof, told);
        }
        (_, None) if scope.service.is_empty() => {
            // Policies of a namespace are for those who prove that they are of it.
            scope.namespace = "".into();
            return Ok(());
        }
        (_, None) => {
            let told = format!("who claims to be {claimed} has to show its certificate; connect with TLS");
            return turn_away(&claimed, Reason::NoProof, Status::unauthenticated(told));
        }
    };
    let own = Some(id).filter(|id| id.trust_domain() == authority.trust_domain());
    let Some((namespace, service)) = own.and_then(|id| id.namespace().zip(id.service_name())) else {
        let told = format!("{id} is no identity of {}", authority.trust_domain());
        return turn_away(id.as_str(), Reason::ForeignDomain, Status::permission_denied(told));
    };
    let differs = |claimed: &str, verified: &str| !claimed.is_empty() && claimed != verified;
    if differs(&scope.namespace, namespace) || differs(&scope.service, service) {
        let told = format!("node {} claims to be {claimed}, its certificate says {id}", scope.id);
        return turn_away(&claimed, Reason::OtherIdentity, Status::permission_denied(told));
    }
    // What a node is shown follows from its role: gateways see private keys, so a workload must not be one by saying so.
    if *scope.role != *SIDECAR && !authority.may_be_gateway(namespace, service) {
        let told = format!(
            "{id} is no gateway; say `role: sidecar`, or name {namespace}/{service} in identity.gateways of the control plane"
        );
        return turn_away(&claimed, Reason::OtherIdentity, Status::permission_denied(told));
    }
    (scope.namespace, scope.service) = (namespace.into(), service.into());
    Ok(())
}

/// An instance that does not say where it is reached is reached where it comes from.
fn locate(peer: &Peer, node: &mut NodeInfo) {
    if let (Some(instance), Some(address)) = (&mut node.instance, peer.address())
        && instance.address.is_empty()
    {
        instance.address = address.ip().to_canonical().to_string().into();
        instance.is_seen = true;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_node::identity::SpiffeId;
    use heddle_xds::link::PeerIdentity;
    use heddle_xds::model::{Instance, MeshProtocol};
    use tonic::Code;

    use super::*;
    use crate::settings::IdentitySettings;
    use crate::store::Embedded;

    async fn authority(folder: &std::path::Path) -> Authority {
        let clock: Clock = Arc::new(|| 1_700_000_000_000);
        let store = Arc::new(Embedded::open(folder, clock.clone()).unwrap());
        let seal = Arc::new(Seal::new(&[1; 32]).unwrap());
        Authority::open(IdentitySettings::default(), store, seal, clock, fastrand::Rng::with_seed(1)).await.unwrap()
    }

    fn tls(id: Option<&str>) -> Peer {
        let good_until = std::time::SystemTime::UNIX_EPOCH;
        let identity = id.map(|id| Arc::new(PeerIdentity { id: SpiffeId::parse(id).unwrap(), chain: vec![], good_until }));
        Peer::Tls { address: "10.0.0.7:1".parse().unwrap(), identity }
    }

    fn node(namespace: &str, service: &str) -> NodeInfo {
        let mut node = NodeInfo::default();
        (node.scope.id, node.scope.role) = ("n".into(), SIDECAR.into());
        (node.scope.namespace, node.scope.service) = (namespace.into(), service.into());
        node
    }

    #[tokio::test]
    async fn a_node_is_who_its_certificate_says() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path()).await;
        let web = "spiffe://heddle.local/ns/default/svc/web";
        let judge = |door, peer: &Peer, mut node: NodeInfo| admit(&authority, door, peer, &mut node).map(|()| node.scope);
        let scope = judge(Door::Tls, &tls(Some(web)), node("", "")).unwrap();
        assert_eq!((&*scope.namespace, &*scope.service), ("default", "web"));
        let code = |door, peer: &Peer, node| judge(door, peer, node).unwrap_err().code();
        assert_eq!(code(Door::Tls, &tls(Some(web)), node("default", "api")), Code::PermissionDenied);
        assert_eq!(code(Door::Both, &tls(Some("spiffe://partner/ns/default/svc/web")), node("", "")), Code::PermissionDenied);
        assert_eq!(code(Door::Both, &tls(Some("spiffe://heddle.local/other")), node("", "")), Code::PermissionDenied);
        assert_eq!(code(Door::Tls, &tls(None), node("", "")), Code::Unauthenticated);
        assert_eq!(code(Door::Both, &tls(None), node("default", "web")), Code::Unauthenticated);
        assert_eq!(code(Door::Both, &Peer::Clear("127.0.0.1:1".parse().unwrap()), node("default", "web")), Code::Unauthenticated);
        assert!(judge(Door::Both, &Peer::Clear("127.0.0.1:1".parse().unwrap()), node("", "")).is_ok());
        assert!(judge(Door::Tls, &Peer::Process, node("default", "web")).is_ok());
    }

    #[tokio::test]
    async fn a_workload_is_no_gateway_by_saying_so() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority(folder.path()).await;
        let judge = |service: &str, role: &str| {
            let mut node = node("", "");
            node.scope.role = role.into();
            let peer = tls(Some(&format!("spiffe://heddle.local/ns/default/svc/{service}")));
            admit(&authority, Door::Tls, &peer, &mut node).map_err(|status| status.code())
        };
        for role in ["gateway", "", "control-plane"] {
            assert_eq!(judge("web", role), Err(Code::PermissionDenied), "{role}");
        }
        assert_eq!((judge("web", SIDECAR), judge("gateway", "gateway")), (Ok(()), Ok(())));
    }

    #[test]
    fn an_instance_is_where_it_comes_from_unless_it_says_otherwise() {
        let instance = |address: &str| Instance {
            address: address.into(),
            port: 15_006,
            protocol: MeshProtocol::Http,
            ports: Vec::new(),
            version: "".into(),
            labels: vec![],
            draining: false,
            process: 0,
            application: 0,
            is_seen: false,
        };
        let mut node = NodeInfo { instance: Some(instance("")), ..NodeInfo::default() };
        locate(&tls(None), &mut node);
        assert_eq!(node.instance, Some(Instance { is_seen: true, ..instance("10.0.0.7") }));
        node.instance = Some(instance("10.9.9.9"));
        locate(&tls(None), &mut node);
        assert_eq!(node.instance, Some(instance("10.9.9.9")));
    }
}
