//! Resources that name secrets kept elsewhere: which ones, and what is compiled anew when they stand for something else. It looks nothing up.

use std::collections::BTreeSet;
use std::sync::Arc;

use heddle_node::weak_map::WeakMap;
use heddle_xds::catalog::ConfigFault;
use heddle_xds::codec::InvalidResource;
use heddle_xds::model::{self, Kind, Resource, SecretBody};
use serde_json::Value;

use super::Compiler;
use crate::secrets::reference::is_reference;
use crate::secrets::{References, wanted};

/// The references that a resource has.
fn of(resource: &Resource) -> BTreeSet<String> {
    let of_plugins =
        |plugins: &[model::PluginConf]| plugins.iter().flat_map(|plugin| wanted(&plugin.config)).collect::<BTreeSet<_>>();
    match resource {
        Resource::Route(route) => of_plugins(&route.plugins),
        Resource::MeshService(service) => of_plugins(&service.plugins),
        Resource::MeshInbound(inbound) => of_plugins(&inbound.plugins),
        Resource::GlobalRule(rule) => of_plugins(&rule.plugins),
        Resource::Consumer(consumer) => {
            let mut all = of_plugins(&consumer.plugins);
            all.extend(consumer.credentials.iter().flat_map(|credential| wanted(&credential.config)));
            all
        }
        Resource::PluginMetadata(metadata) => wanted(&metadata.config),
        Resource::Secret(secret) => {
            texts(secret).into_iter().filter(|text| is_reference(text)).map(|text| text.to_string()).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn texts(secret: &model::Secret) -> Vec<&Arc<str>> {
    match &secret.body {
        SecretBody::KeyPair { chain_pem, key_pem } => vec![chain_pem, key_pem],
        SecretBody::Roots(pem) => vec![pem],
        SecretBody::Manager(_) => Vec::new(),
    }
}

/// Key material with what its references stand for.
///
/// # Errors
/// One of them is not known, or TLS does not take what they stand for.
pub(super) fn material(secret: &model::Secret, references: &References) -> Result<model::Secret, ConfigFault> {
    let text = |text: &Arc<str>| match is_reference(text) {
        false => Ok(text.clone()),
        true => references
            .get(text)
            .ok_or_else(|| ConfigFault { path: String::new(), message: format!("{text} cannot be looked up now") }),
    };
    let body = match &secret.body {
        SecretBody::KeyPair { chain_pem, key_pem } => {
            SecretBody::KeyPair { chain_pem: text(chain_pem)?, key_pem: text(key_pem)? }
        }
        SecretBody::Roots(pem) => SecretBody::Roots(text(pem)?),
        SecretBody::Manager(json) => SecretBody::Manager(json.clone()),
    };
    body.usable().map_err(|fault| ConfigFault { path: fault.field.to_owned(), message: fault.reason })?;
    Ok(model::Secret { name: secret.name.clone(), body })
}

/// Credentials with what their references stand for. One of which something is not known proves nothing, so it is left out.
pub(super) fn credentials(all: &[model::Credential], references: &References) -> Vec<model::Credential> {
    let resolved = all.iter().filter_map(|credential| match references.resolved(&credential.config) {
        (config, true) => Some(model::Credential { config, ..credential.clone() }),
        (_, false) => None,
    });
    resolved.collect()
}

impl Compiler {
    /// The references that a resource needs; a manager of secrets is taken notice of.
    pub fn wants(&self, resource: &Resource) -> BTreeSet<String> {
        if let Resource::Secret(model::Secret { name, body: SecretBody::Manager(json) }) = resource {
            self.references.manager(name, Some(json.clone()));
        }
        of(resource)
    }

    /// Notes what a resource refers to, whether it could be compiled or not.
    pub(super) fn refer(&mut self, resource: &Resource) {
        let key = (resource.kind(), resource.name().clone());
        let references = of(resource);
        if references.is_empty() {
            self.referring.remove(&key);
        } else {
            self.referring.insert(key, (references, resource.clone()));
        }
    }

    /// Forgets what a resource refers to.
    pub(super) fn forget(&mut self, kind: Kind, name: &str) {
        self.referring.remove(&(kind, name.into()));
        if kind == Kind::Secret {
            self.references.manager(name, None);
        }
    }

    /// The metadata of a plugin with its references, not with what they stand for.
    pub(super) fn as_told(&self, plugin: &Arc<str>, config: &Value) -> Value {
        match self.referring.get(&(Kind::PluginMetadata, plugin.clone())) {
            Some((_, Resource::PluginMetadata(metadata))) => (*metadata.config).clone(),
            _ => config.clone(),
        }
    }

    /// Compiles whatever has one of these references anew: they stand for something else now. What cannot be compiled stays as it was.
    pub fn referred_changed(&mut self, changed: &BTreeSet<String>) -> Vec<InvalidResource> {
        let concerned = self.referring.values().filter(|(references, _)| !references.is_disjoint(changed));
        let resources: Vec<Resource> = concerned.map(|(_, resource)| resource.clone()).collect();
        self.anew = true;
        self.chains = WeakMap::default();
        let refused = resources.into_iter().filter_map(|resource| self.set(resource).err()).collect();
        self.anew = false;
        refused
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::outbound::Outbound;
    use crate::upstream;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[tokio::test]
    async fn a_key_of_another_certificate_is_refused_and_the_good_one_stays() {
        let pool = upstream::Clusters::new(Arc::default(), None, tokio::runtime::Handle::current());
        let ((chain, key), (_, other)) = (pair(), pair());
        let environment: &'static str = other.clone().leak();
        let of = Arc::new(move |name: &str| (name == "OTHER").then(|| environment.to_owned()));
        let references = References::new(of, "".into(), Outbound::default());
        let kept = references.keep().unwrap();
        kept.ready(BTreeSet::from(["$env://OTHER".to_owned()])).await;
        let mut compiler = Compiler::new(1, pool, Outbound::default(), references);
        let secret = |body: SecretBody| Resource::Secret(model::Secret { name: "s".into(), body });
        let shown = |key: &str| secret(SecretBody::KeyPair { chain_pem: chain.as_str().into(), key_pem: key.into() });
        compiler.set(shown(&key)).unwrap();
        for (bad, field) in [
            (shown(&other), "tls_certificate.private_key"),
            (shown("$env://OTHER"), "tls_certificate.private_key"),
            (secret(SecretBody::Roots("garbage".into())), "validation_context.trusted_ca"),
        ] {
            let fault = compiler.set(bad).unwrap_err();
            assert_eq!((&*fault.name, fault.kind, fault.field.as_str()), ("s", Kind::Secret, field), "{fault}");
        }
        let good = SecretBody::KeyPair { chain_pem: chain.as_str().into(), key_pem: key.as_str().into() };
        assert!(compiler.tables().secrets["s"].body == good, "the last good one stays");
    }
}
