//! Answers of the control plane as values of ours. Whatever is not a good answer is an error in words.

use std::time::SystemTime;

use heddle_node::identity::{Bundle, Bundles, MAX_CHAIN, TrustDomain};
use heddle_proto::heddle::identity::v1 as proto;
use rustls_pki_types::CertificateDer;

use super::super::signer::{Signed, Trust};

/// The most trust domains.
const MAX_DOMAINS: usize = 1_024;

/// What was signed.
pub(super) fn signed(response: proto::SignResponse) -> Result<Signed, String> {
    if response.chain_der.is_empty() || response.chain_der.len() > MAX_CHAIN {
        return Err(format!("a chain of {} certificates, expected 1 to {MAX_CHAIN}", response.chain_der.len()));
    }
    let server_time = response.server_time.and_then(time).ok_or("no time of the control plane")?;
    let trust = trust(response.bundles.ok_or("no bundles")?)?;
    Ok(Signed { chain: response.chain_der.into_iter().map(CertificateDer::from).collect(), trust, server_time })
}

/// Whom to trust. A federated domain whose bundle cannot be used is left out, and told; our own must be there.
pub(super) fn trust(bundles: proto::Bundles) -> Result<Trust, String> {
    if bundles.bundles.len() > MAX_DOMAINS {
        return Err(format!("bundles of {} trust domains, expected at most {MAX_DOMAINS}", bundles.bundles.len()));
    }
    let own = TrustDomain::new(&bundles.trust_domain).map_err(|error| error.to_string())?;
    let mut ours = None;
    let mut others = Vec::new();
    for bundle in bundles.bundles {
        match read(bundle) {
            Ok(bundle) if *bundle.domain() == own => ours = Some(bundle),
            Ok(bundle) => others.push(bundle),
            Err(error) => tracing::warn!(error, "a trust bundle is left out"),
        }
    }
    let ours = ours.ok_or_else(|| format!("no usable bundle of {own}"))?;
    let all = others.into_iter().fold(Bundles::new(ours), Bundles::with_federated);
    Ok(Trust { bundles: all, version: bundles.version })
}

fn read(bundle: proto::Bundle) -> Result<Bundle, String> {
    let domain = TrustDomain::new(&bundle.trust_domain).map_err(|error| error.to_string())?;
    let roots = bundle.roots_der.into_iter().map(CertificateDer::from).collect();
    Bundle::from_der(domain, roots).map_err(|error| error.to_string())
}

/// A moment that this machine's clock can say.
pub(super) fn time(stamp: impl TryInto<SystemTime>) -> Option<SystemTime> {
    stamp.try_into().ok()
}
