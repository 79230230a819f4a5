//! Services of the mesh, the policies that protect them and who is let in, as they come in. It knows neither where calls come from nor what a policy means.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use heddle_node::identity::{Identity, SpiffeId, TrustDomain};
use heddle_xds::catalog::ConfigFault;
use heddle_xds::model::{self, MeshProtocol};

use super::compile::{Compiler, first};
use super::{Action, MeshServices, PeerModes};
use crate::authorize::Policies;
use crate::filters::Chain;
use crate::observe::RouteStats;
use crate::route::CompiledRoute;

/// A service as this node calls it.
#[derive(Clone)]
pub struct MeshService {
    /// `<namespace>/<service>`.
    pub name: Arc<str>,
    /// What its application speaks.
    pub protocol: MeshProtocol,
    /// The address that its names resolve to.
    pub vip: Option<IpAddr>,
    /// Ports on which it is called; empty is any.
    pub ports: Arc<[u16]>,
    /// What stands for a route to it: its filters, its upstream, its counters.
    pub route: Arc<CompiledRoute<Action>>,
    /// Services that its plugins lead to.
    pub depends: Arc<[Arc<str>]>,
    /// Its ports that are services of their own.
    pub own_ports: Arc<[u16]>,
    /// Who vouches for its instances; `None` where nobody does, as it is called in clear.
    pub domain: Option<TrustDomain>,
}

impl MeshService {
    /// Whether clients call it on this port.
    pub fn is_called_on(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.contains(&port)
    }

    /// The service that stands for this port of it, where that is one of its own.
    pub fn own_port(&self, port: u16) -> Option<Arc<str>> {
        self.own_ports.contains(&port).then(|| format!("{}:{port}", self.name).into())
    }
}

/// What the compiler keeps of the mesh.
#[derive(Default)]
pub(super) struct Known {
    services: BTreeMap<Arc<str>, model::MeshService>,
    pub(super) compiled: Arc<MeshServices>,
    /// What runs for requests that come in to this node's application, with its chain.
    pub(super) inbound: Option<model::MeshInbound>,
    policies: BTreeMap<Arc<str>, model::AuthorizationPolicy>,
    authorization: Arc<Policies>,
    peers: BTreeMap<Arc<str>, model::PeerAuthentication>,
    pub(super) modes: Arc<PeerModes>,
    identity: Identity,
    domain: Option<TrustDomain>,
}

impl Known {
    /// The services as they were told.
    pub(super) fn services(&self) -> impl Iterator<Item = &model::MeshService> {
        self.services.values()
    }

    /// The policies as they were told.
    pub(super) fn policies(&self) -> impl Iterator<Item = &model::AuthorizationPolicy> {
        self.policies.values()
    }

    /// Who is let in, as it was told.
    pub(super) fn peers(&self) -> impl Iterator<Item = &model::PeerAuthentication> {
        self.peers.values()
    }

    /// The policies, compiled. They may have come before the trust domain was known.
    pub(super) fn authorization(&mut self) -> Arc<Policies> {
        if self.domain.as_ref() != self.identity.bundles().own_domain() {
            self.authorize();
        }
        self.authorization.clone()
    }

    fn authorize(&mut self) {
        self.domain = self.identity.bundles().own_domain().cloned();
        let domain = self.domain.as_ref().map(TrustDomain::as_str);
        let compiled = Policies::compile(self.policies.values(), domain, &self.authorization);
        self.authorization = Arc::new(compiled);
    }
}

/// Chains that take the places of others.
pub(super) struct ChainsInMesh {
    services: Vec<(Arc<str>, Arc<Chain>)>,
    inbound: Option<Arc<Chain>>,
}

/// The trust domain of those who stand behind an upstream, all of whom are of one service.
fn domain_of(upstream: &model::Upstream) -> Option<TrustDomain> {
    let first = upstream.mesh.as_ref()?.identities.first()?;
    SpiffeId::parse(first).ok().map(|id| id.trust_domain().clone())
}

/// A route that every request would match, under the name of an upstream; for logs and metrics `name` is its name and that of its service.
pub(super) fn route(id: &str, name: &str) -> model::Route {
    model::Route {
        id: id.into(),
        name: name.into(),
        service_id: "".into(),
        service_name: name.into(),
        matches: model::RouteMatch { uris: vec!["/*".into()], ..model::RouteMatch::default() },
        priority: 0,
        created: 0,
        plugins: Vec::new(),
        upstream: None,
        timeouts: None,
        enable_websocket: true,
        max_duration: None,
    }
}

impl Compiler {
    pub(super) fn set_mesh_service(&mut self, service: model::MeshService) -> Result<(), ConfigFault> {
        let before = self.mesh.services.get(&service.name).zip(self.mesh.compiled.get(&service.name));
        let (chain, stats) = match before {
            Some((told, compiled)) if told.plugins == service.plugins && !self.anew => {
                (compiled.route.target.chain.clone(), compiled.route.target.stats.clone())
            }
            known => {
                let stats = known.map(|(_, compiled)| compiled.route.target.stats.clone());
                let stats = stats.unwrap_or_else(|| Arc::new(RouteStats::new(self.workers)));
                (Arc::new(self.chain(&service.plugins)?), stats)
            }
        };
        let action = Action {
            chain,
            upstream: Some(service.upstream.name.clone()),
            timeouts: service.timeouts,
            enable_websocket: true,
            max_duration: None,
            stats,
        };
        let compiled = MeshService {
            name: service.name.clone(),
            protocol: service.protocol,
            vip: service.vip,
            ports: service.ports.clone().into(),
            route: Arc::new(CompiledRoute::compile(&route(&service.upstream.name, &service.name), action).map_err(first)?),
            depends: service.depends.clone().into(),
            own_ports: service.own_ports.clone().into(),
            domain: domain_of(&service.upstream),
        };
        self.set_upstream(service.upstream.clone());
        Arc::make_mut(&mut self.mesh.compiled).insert(service.name.clone(), Arc::new(compiled));
        self.mesh.services.insert(service.name.clone(), service);
        Ok(())
    }

    pub(super) fn remove_mesh_service(&mut self, name: &str) {
        if let Some(service) = self.mesh.services.remove(name) {
            self.remove_upstream(&service.upstream.name);
        }
        Arc::make_mut(&mut self.mesh.compiled).remove(name);
    }

    /// Compiles the mesh's users of a plugin anew, as `uses` finds them: those that call services, and what comes in. Nothing is in use yet.
    pub(super) fn users_in_mesh(&self, uses: &dyn Fn(&[model::PluginConf]) -> bool) -> Result<ChainsInMesh, ConfigFault> {
        let services = self.mesh.services.values().filter(|service| uses(&service.plugins));
        let services = services.map(|service| Ok((service.name.clone(), Arc::new(self.chain(&service.plugins)?))));
        let inbound = self.mesh.inbound.as_ref().filter(|inbound| uses(&inbound.plugins));
        let inbound = inbound.map(|inbound| self.chain(&inbound.plugins).map(Arc::new)).transpose()?;
        Ok(ChainsInMesh { services: services.collect::<Result<_, ConfigFault>>()?, inbound })
    }

    /// Puts chains in the places of those before.
    pub(super) fn use_in_mesh(&mut self, chains: ChainsInMesh) {
        for (name, chain) in chains.services {
            let (Some(told), Some(service)) = (self.mesh.services.get(&name), self.mesh.compiled.get(&name)) else { continue };
            let action = Action { chain, ..service.route.target.clone() };
            // It has compiled before, with the same conditions.
            let Ok(route) = CompiledRoute::compile(&route(&told.upstream.name, &name), action) else { continue };
            let service = MeshService { route: Arc::new(route), ..MeshService::clone(service) };
            Arc::make_mut(&mut self.mesh.compiled).insert(name, Arc::new(service));
        }
        if let Some(chain) = chains.inbound {
            self.run_inbound(chain);
        }
    }

    pub(super) fn set_inbound(&mut self, inbound: model::MeshInbound) -> Result<(), ConfigFault> {
        let unchanged = self.mesh.inbound.as_ref().is_some_and(|before| before.plugins == inbound.plugins);
        if !unchanged || self.anew {
            let chain = Arc::new(self.chain(&inbound.plugins)?);
            self.run_inbound(chain);
        }
        self.mesh.inbound = Some(inbound);
        Ok(())
    }

    pub(super) fn remove_inbound(&mut self, service: &str) {
        if self.mesh.inbound.take_if(|inbound| *inbound.service == *service).is_some() {
            self.run_inbound(Arc::default());
        }
    }

    /// Names who this node is: namespaces in policies are those of its trust domain.
    #[must_use]
    pub fn identified_by(mut self, identity: Identity) -> Compiler {
        self.mesh.identity = identity;
        self
    }

    pub(super) fn set_policy(&mut self, policy: model::AuthorizationPolicy) {
        self.mesh.policies.insert(policy.id.clone(), policy);
        self.mesh.authorize();
    }

    pub(super) fn set_peers(&mut self, peers: model::PeerAuthentication) {
        self.mesh.peers.insert(peers.id.clone(), peers);
        self.mesh.modes = Arc::new(PeerModes::compile(self.mesh.peers.values()));
    }

    pub(super) fn remove_peers(&mut self, id: &str) {
        self.mesh.peers.remove(id);
        self.mesh.modes = Arc::new(PeerModes::compile(self.mesh.peers.values()));
    }

    pub(super) fn remove_policy(&mut self, id: &str) {
        if self.mesh.policies.remove(id).is_some() {
            self.mesh.authorize();
        }
    }
}
