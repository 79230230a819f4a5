//! Certificates on the wire: names and references, never key material.

use heddle_proto::heddle::config::v1 as wire;

use super::read::{Fault, Read, list, name, narrow, texts, to_texts};
use crate::model::{Certificate, ClientValidation, TlsVersion};

pub(super) fn to_wire(certificate: &Certificate) -> wire::Certificate {
    wire::Certificate {
        id: certificate.id.to_string(),
        snis: to_texts(&certificate.snis),
        secrets: to_texts(&certificate.secrets),
        client: certificate.client.as_ref().map(|client| wire::ClientValidation {
            ca: client.ca.to_string(),
            depth: client.depth.into(),
            skip_uri_regex: to_texts(&client.skip_uri_regex),
        }),
        min_version: version_to_wire(certificate.min_version).into(),
        max_version: version_to_wire(certificate.max_version).into(),
        listeners: to_texts(&certificate.listeners),
    }
}

pub(super) fn from_wire(message: wire::Certificate) -> Read<Certificate> {
    let client = message.client.map(|client| -> Read<ClientValidation> {
        Ok(ClientValidation {
            ca: name("client.ca", client.ca)?,
            depth: narrow("client.depth", client.depth)?,
            skip_uri_regex: texts("client.skip_uri_regex", client.skip_uri_regex)?,
        })
    });
    let (low, high) = (version("min_version", message.min_version)?, version("max_version", message.max_version)?);
    if low > high {
        return Err(Fault::new("min_version", "expected at most max_version".to_owned()));
    }
    Ok(Certificate {
        id: name("id", message.id)?,
        snis: texts("snis", message.snis)?,
        secrets: list("secrets", message.secrets, name)?,
        client: client.transpose()?,
        min_version: low,
        max_version: high,
        listeners: list("listeners", message.listeners, name)?,
    })
}

fn version_to_wire(version: TlsVersion) -> wire::TlsVersion {
    match version {
        TlsVersion::V1_2 => wire::TlsVersion::TlsVersion12,
        TlsVersion::V1_3 => wire::TlsVersion::TlsVersion13,
    }
}

fn version(field: &str, value: i32) -> Read<TlsVersion> {
    match wire::TlsVersion::try_from(value) {
        Ok(wire::TlsVersion::TlsVersion12) => Ok(TlsVersion::V1_2),
        Ok(wire::TlsVersion::TlsVersion13) => Ok(TlsVersion::V1_3),
        _ => Err(Fault::new(field, format!("expected TLS 1.2 or 1.3, found {value}"))),
    }
}
