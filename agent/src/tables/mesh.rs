//! Services of the mesh and the policies that protect them, as they come in. It knows neither where calls come from nor what a policy means.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use heddle_xds::catalog::ConfigFault;
use heddle_xds::model::{self, MeshProtocol};

use super::compile::Compiler;
use super::{Action, MeshServices};
use crate::observe::RouteStats;

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
    /// What is done with a request to it.
    pub action: Action,
    /// Services that its plugins lead to.
    pub depends: Arc<[Arc<str>]>,
}

/// What the compiler keeps of the mesh.
#[derive(Default)]
pub(super) struct Known {
    services: BTreeMap<Arc<str>, model::MeshService>,
    pub(super) compiled: Arc<MeshServices>,
    pub(super) policies: Arc<BTreeMap<Arc<str>, Arc<model::AuthorizationPolicy>>>,
}

impl Known {
    /// The services as they were told.
    pub(super) fn services(&self) -> impl Iterator<Item = &model::MeshService> {
        self.services.values()
    }
}

impl Compiler {
    pub(super) fn set_mesh_service(&mut self, service: model::MeshService) -> Result<(), ConfigFault> {
        let before = self.mesh.services.get(&service.name).zip(self.mesh.compiled.get(&service.name));
        let (chain, stats) = match before {
            Some((told, compiled)) if told.plugins == service.plugins && !self.anew => {
                (compiled.action.chain.clone(), compiled.action.stats.clone())
            }
            known => {
                let stats = known.map(|(_, compiled)| compiled.action.stats.clone());
                let stats = stats.unwrap_or_else(|| Arc::new(RouteStats::new(self.workers)));
                (Arc::new(self.chain(&service.plugins)?), stats)
            }
        };
        let action = Action {
            chain,
            upstream: Some(service.upstream.name.clone()),
            timeouts: service.timeouts,
            enable_websocket: true,
            stats,
        };
        let compiled = MeshService {
            name: service.name.clone(),
            protocol: service.protocol,
            vip: service.vip,
            ports: service.ports.clone().into(),
            action,
            depends: service.depends.clone().into(),
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

    pub(super) fn set_policy(&mut self, policy: model::AuthorizationPolicy) {
        Arc::make_mut(&mut self.mesh.policies).insert(policy.id.clone(), Arc::new(policy));
    }

    pub(super) fn remove_policy(&mut self, id: &str) {
        Arc::make_mut(&mut self.mesh.policies).remove(id);
    }
}
