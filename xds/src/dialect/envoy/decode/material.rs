//! Key material of a resource that was read: what TLS would not take is refused with the resource that holds it. It knows no other resource.

use super::piece::Chain;
use super::read::{Fault, Read};
use super::{DecodeFault, Piece};
use crate::model::Secret;

/// Where a resource says what its TLS shows and trusts.
const CONTEXT: &str = "transport_socket.typed_config.common_tls_context";

/// Looks at all that a resource holds itself.
///
/// # Errors
/// Certificates, a key or roots are of no use.
pub fn usable(piece: &Piece) -> Read<()> {
    match piece {
        Piece::Secret(secret) => secret.body.usable().map_err(|fault| Fault::new(fault.field, fault.reason)),
        Piece::Cluster(cluster) => cluster.secrets.iter().try_for_each(in_place),
        Piece::Listener(door) => door.secrets.iter().try_for_each(|secret| {
            let holds = |chain: &Chain| {
                let certificate = chain.certificate.as_ref();
                certificate.is_some_and(|certificate| {
                    let roots = certificate.client.as_ref().map(|client| &client.ca);
                    certificate.secrets.iter().chain(roots).any(|name| *name == secret.name)
                })
            };
            let place = door.chains.iter().enumerate().find(|(_, chain)| holds(chain)).map(|(at, chain)| chain.place(at));
            in_place(secret).map_err(|fault| fault.inside(&place.unwrap_or_default()))
        }),
        Piece::Endpoints(_) | Piece::Routes(_) | Piece::Extension(_) => Ok(()),
    }
}

/// The names of what stands in place end with its number, as they are made.
fn in_place(secret: &Secret) -> Read<()> {
    secret.body.usable().map_err(|fault| {
        let number = secret.name.rsplit('/').next().unwrap_or_default();
        let field = fault.field.replace("tls_certificate.", &format!("tls_certificates[{number}]."));
        DecodeFault::new(format!("{CONTEXT}.{field}"), fault.reason)
    })
}
