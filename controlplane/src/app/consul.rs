//! What the control plane has of Consul: a client, and the providers that read configuration from it. It watches nothing itself.

use heddle_node::consul::Consul;

use super::StartError;
use crate::provider::{ConsulProvider, Memory, Provider, check_constraints};
use crate::settings::ConsulProviderSettings;

/// What there is of Consul.
type Opened = (Option<Consul>, Vec<Box<dyn Provider>>);

/// The client, and the providers that the settings ask for; without settings there is none.
pub(super) fn open(settings: Option<ConsulProviderSettings>, memory: Memory) -> Result<Opened, StartError> {
    let mut providers: Vec<Box<dyn Provider>> = Vec::new();
    let Some(ConsulProviderSettings { client, kv, catalog, intentions }) = settings else { return Ok((None, providers)) };
    let consul = Consul::new(client)?;
    if let Some(fault) = catalog.as_ref().and_then(check_constraints) {
        return Err(StartError::Resources(fault));
    }
    if let Some(kv) = kv {
        providers.push(Box::new(ConsulProvider::keys(consul.clone(), kv, memory.clone(), fastrand::Rng::new())));
    }
    if let Some(catalog) = catalog {
        providers.push(Box::new(ConsulProvider::catalog(consul.clone(), catalog, memory.clone(), fastrand::Rng::new())));
    }
    if let Some(intentions) = intentions {
        providers.push(Box::new(ConsulProvider::intentions(consul.clone(), intentions, memory, fastrand::Rng::new())));
    }
    Ok((Some(consul), providers))
}
