//! TLS towards endpoints: client configurations by what they trust and present, shared by all who agree on that.

use std::sync::{Arc, Weak};

use heddle_node::identity::{Expect, Identity, SpiffeId};
use heddle_xds::model::{MeshPeer, Secret, SecretBody, UpstreamTls};
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};

use crate::net::{self, KeyPair, SystemRoots};

pub(in crate::upstream) use crate::net::server_name;

/// Finds key material by name.
pub type Secrets<'a> = &'a dyn Fn(&str) -> Option<Arc<Secret>>;

/// Makes client configurations and hands out the same one for the same demands, so that pools and TLS sessions are shared.
#[derive(Debug)]
pub struct TlsStore {
    provider: Arc<CryptoProvider>,
    system_roots: SystemRoots,
    made: Mutex<Vec<(Demand, Weak<ClientConfig>)>>,
    /// Those for endpoints in the mesh, by the identities that they expect.
    mesh: Mutex<Vec<(Peers, Weak<ClientConfig>)>>,
}

/// Identities that are expected.
type Peers = Vec<Arc<str>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Demand {
    verify: bool,
    ca: Option<Arc<Secret>>,
    client_cert: Option<Arc<Secret>>,
    h2: bool,
}

impl Default for TlsStore {
    fn default() -> TlsStore {
        TlsStore {
            provider: Arc::new(aws_lc_rs::default_provider()),
            system_roots: SystemRoots::default(),
            made: Mutex::default(),
            mesh: Mutex::default(),
        }
    }
}

impl TlsStore {
    /// The client configuration for `tls`. The message of an error names the secret at fault.
    pub fn client(&self, tls: &UpstreamTls, h2: bool, secrets: Secrets<'_>) -> Result<Arc<ClientConfig>, String> {
        let find = |name: &Option<Arc<str>>| match name {
            Some(name) => secrets(name).map(Some).ok_or_else(|| format!("secret `{name}` is not known (yet)")),
            None => Ok(None),
        };
        let demand = Demand { verify: tls.verify, ca: find(&tls.ca)?, client_cert: find(&tls.client_cert)?, h2 };
        let mut made = self.made.lock();
        made.retain(|(_, config)| config.strong_count() > 0);
        if let Some(config) = made.iter().filter(|(known, _)| *known == demand).find_map(|(_, config)| config.upgrade()) {
            return Ok(config);
        }
        let config = Arc::new(self.make(&demand)?);
        made.push((demand, Arc::downgrade(&config)));
        Ok(config)
    }

    /// The client configuration for endpoints of the mesh that have one of these identities.
    pub fn mesh(&self, identity: &Identity, peer: &MeshPeer) -> Result<Arc<ClientConfig>, String> {
        let mut made = self.mesh.lock();
        made.retain(|(_, config)| config.strong_count() > 0);
        if let Some(config) = made.iter().filter(|(ids, _)| *ids == peer.identities).find_map(|(_, config)| config.upgrade()) {
            return Ok(config);
        }
        let ids = peer.identities.iter().map(|id| SpiffeId::parse(id).map_err(|error| format!("identity `{id}`: {error}")));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let config = identity.client_config(Expect::AnyOf(ids), net::CALLER_ALPN);
        made.push((peer.identities.clone(), Arc::downgrade(&config)));
        Ok(config)
    }

    fn make(&self, demand: &Demand) -> Result<ClientConfig, String> {
        let roots = if demand.verify { Some(self.roots(demand)?) } else { None };
        let identity = demand.client_cert.as_deref().map(key_pair).transpose()?;
        let alpn: &[u8] = if demand.h2 { b"h2" } else { b"http/1.1" };
        net::client_config(&self.provider, roots, identity, &[alpn]).map_err(|error| match &demand.client_cert {
            Some(secret) => format!("secret `{}`: {error}", secret.name),
            None => error,
        })
    }

    fn roots(&self, demand: &Demand) -> Result<Arc<RootCertStore>, String> {
        match &demand.ca {
            Some(secret) => Ok(Arc::new(roots_of(secret)?)),
            None => self.system_roots.get(),
        }
    }
}

fn roots_of(secret: &Secret) -> Result<RootCertStore, String> {
    let pem = match &secret.body {
        SecretBody::Roots(pem) => pem,
        SecretBody::KeyPair { chain_pem, .. } => chain_pem,
        SecretBody::Manager(_) => return Err(format!("secret `{}`: expected certificates", secret.name)),
    };
    net::roots_of_pem(pem).map_err(|error| format!("secret `{}`: {error}", secret.name))
}

fn key_pair(secret: &Secret) -> Result<KeyPair, String> {
    let SecretBody::KeyPair { chain_pem, key_pem } = &secret.body else {
        return Err(format!("secret `{}`: expected a certificate with its key", secret.name));
    };
    net::key_pair_of_pem(chain_pem, key_pem).map_err(|error| format!("secret `{}`: {error}", secret.name))
}
