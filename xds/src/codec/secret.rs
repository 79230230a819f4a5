//! Secrets as standard SDS carries them, with the material inline. It never shows material in an error.

use std::sync::Arc;

use heddle_proto::envoy::config::core::v3::DataSource;
use heddle_proto::envoy::config::core::v3::data_source::Specifier;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use tls::secret::Type;

use super::read::{Fault, MAX_BLOB, Read, name, required};
use crate::model::{Secret, SecretBody};

pub(super) fn to_wire(secret: &Secret) -> tls::Secret {
    let body = match &secret.body {
        SecretBody::KeyPair { chain_pem, key_pem } => Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: inline(chain_pem),
            private_key: inline(key_pem),
            ..Default::default()
        }),
        SecretBody::Manager(json) => Type::GenericSecret(tls::GenericSecret { secret: inline(json) }),
        SecretBody::Roots(pem) => {
            Type::ValidationContext(tls::CertificateValidationContext { trusted_ca: inline(pem), ..Default::default() })
        }
    };
    tls::Secret { name: secret.name.to_string(), r#type: Some(body) }
}

pub(super) fn from_wire(message: tls::Secret) -> Read<Secret> {
    let body = match required("type", message.r#type)? {
        Type::TlsCertificate(pair) => {
            if pair.password.is_some() {
                return Err(Fault::new("tls_certificate.password", "an encrypted key is not supported"));
            }
            SecretBody::KeyPair {
                chain_pem: pem("tls_certificate.certificate_chain", pair.certificate_chain)?,
                key_pem: pem("tls_certificate.private_key", pair.private_key)?,
            }
        }
        Type::GenericSecret(generic) => SecretBody::Manager(pem("generic_secret.secret", generic.secret)?),
        Type::ValidationContext(context) => SecretBody::Roots(pem("validation_context.trusted_ca", context.trusted_ca)?),
    };
    Ok(Secret { name: name("name", message.name)?, body })
}

fn inline(pem: &Arc<str>) -> Option<DataSource> {
    Some(DataSource { specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())) })
}

/// Inline material only: a control plane must not make an agent read its files or environment.
fn pem(field: &str, source: Option<DataSource>) -> Read<Arc<str>> {
    let text = match required(field, source)?.specifier {
        Some(Specifier::InlineBytes(bytes)) => {
            String::from_utf8(bytes).map_err(|_| Fault::new(field, "expected text, found bytes that are not UTF-8"))?
        }
        Some(Specifier::InlineString(text)) => text,
        _ => return Err(Fault::new(field, "expected inline_bytes or inline_string")),
    };
    if text.len() > MAX_BLOB {
        return Err(Fault::new(field, format!("has {} bytes, at most {MAX_BLOB} are allowed", text.len())));
    }
    Ok(text.into())
}
