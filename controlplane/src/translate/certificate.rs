//! `ssls` and `secrets`: certificates that are shown, the key material behind them, and where secrets are looked up. Nothing is decoded here.

use std::sync::Arc;

use heddle_xds::model::{Certificate, ClientValidation, Resource, Secret, SecretBody, TlsVersion};
use serde::Deserialize;

use super::context::Unit;
use crate::model::Key;
use crate::model::resources::{Ssl, SslClient, SslType};
use crate::state::Stored;

/// The name of the secret with the `index`th pair of an `ssls` resource.
pub(super) fn pair_name(key: &Key, index: usize) -> Arc<str> {
    format!("{key}/{index}").into()
}

/// The name of the secret with the roots that clients of an `ssls` resource are checked against.
pub(super) fn roots_name(key: &Key) -> Arc<str> {
    format!("{key}/ca").into()
}

/// Translates one `ssls` resource. One of type client only holds key material that upstreams name.
pub(super) fn unit(key: &Key, stored: &Stored) -> Unit {
    let Ok(ssl) = Ssl::deserialize(&stored.value) else { return Unit::default() };
    if ssl.status == 0 {
        return Unit::default();
    }
    let mut resources: Vec<Resource> = ssl.pairs().enumerate().map(|(index, pair)| secret(key, index, pair)).collect();
    if ssl.kind == SslType::Server {
        let secrets = resources.iter().map(|secret| secret.name().clone()).collect();
        let client = ssl.client.as_ref().map(|client| validation(key, client, &mut resources));
        let (min_version, max_version) = versions(ssl.ssl_protocols.iter().flatten());
        resources.push(Resource::Certificate(Certificate {
            id: key.id.clone(),
            snis: ssl.all_snis().map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()).collect(),
            secrets,
            client,
            min_version,
            max_version,
            listeners: Vec::new(),
        }));
    }
    Unit { resources, ..Unit::default() }
}

/// Translates one manager of secrets: agents look references up themselves, so that what they stand for never passes here.
pub(super) fn manager(key: &Key, stored: &Stored) -> Unit {
    let body = SecretBody::Manager(stored.value.to_string().into());
    Unit { resources: vec![Resource::Secret(Secret { name: key.to_string().into(), body })], ..Unit::default() }
}

fn secret(key: &Key, index: usize, (chain, private): (&str, &str)) -> Resource {
    let body = SecretBody::KeyPair { chain_pem: chain.into(), key_pem: private.into() };
    Resource::Secret(Secret { name: pair_name(key, index), body })
}

fn validation(key: &Key, client: &SslClient, resources: &mut Vec<Resource>) -> ClientValidation {
    let ca = roots_name(key);
    resources.push(Resource::Secret(Secret { name: ca.clone(), body: SecretBody::Roots(client.ca.as_str().into()) }));
    let skip = client.skip_mtls_uri_regex.iter().flatten();
    ClientValidation { ca, depth: client.depth, skip_uri_regex: skip.map(|regex| regex.as_str().into()).collect() }
}

/// Lowest and highest of `ssl_protocols`; both that we speak when it names none of them.
fn versions<'a>(named: impl Iterator<Item = &'a String>) -> (TlsVersion, TlsVersion) {
    let named = named.filter_map(|name| match name.as_str() {
        "TLSv1.2" => Some(TlsVersion::V1_2),
        "TLSv1.3" => Some(TlsVersion::V1_3),
        _ => None,
    });
    let range = named.fold(None, |range: Option<(TlsVersion, TlsVersion)>, version| {
        Some(range.map_or((version, version), |(low, high)| (low.min(version), high.max(version))))
    });
    range.unwrap_or((TlsVersion::V1_2, TlsVersion::V1_3))
}
