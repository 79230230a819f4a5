//! What is told of certificates, in the words of Traefik. Pure functions over DER; they verify nothing.

use std::fmt::Write;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{
    OID_DOMAIN_COMPONENT, OID_X509_COMMON_NAME, OID_X509_COUNTRY_NAME, OID_X509_LOCALITY_NAME, OID_X509_ORGANIZATION_NAME,
    OID_X509_ORGANIZATIONAL_UNIT, OID_X509_SERIALNUMBER, OID_X509_STATE_OR_PROVINCE_NAME,
};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use super::config::{Info, Name};

/// What stands as it is in a query (application/x-www-form-urlencoded with a blank as `+`).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');

/// The certificates as PEM without delimiters and line ends, commas between.
pub(super) fn pem(chain: &[Box<[u8]>]) -> String {
    chain.iter().map(|der| STANDARD.encode(der)).collect::<Vec<_>>().join(",")
}

/// What is told of the certificates, percent-encoded, commas between.
pub(super) fn info(chain: &[Box<[u8]>], wanted: &Info) -> String {
    let told =
        chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, certificate)| of(&certificate, wanted));
    let text = told.collect::<Vec<_>>().join(",");
    utf8_percent_encode(&text, ESCAPED).to_string().replace(' ', "+")
}

fn of(certificate: &X509Certificate<'_>, wanted: &Info) -> String {
    let mut told = Vec::new();
    for (label, name, attributes) in
        [("Subject", certificate.subject(), &wanted.subject), ("Issuer", certificate.issuer(), &wanted.issuer)]
    {
        let text = attributes.as_ref().map(|attributes| distinguished(name, attributes)).unwrap_or_default();
        if !text.is_empty() {
            told.push(format!("{label}=\"{text}\""));
        }
    }
    if wanted.serial_number {
        told.push(format!("SerialNumber=\"{}\"", certificate.tbs_certificate.serial));
    }
    let validity = certificate.validity();
    if wanted.not_before {
        told.push(format!("NB=\"{}\"", validity.not_before.timestamp()));
    }
    if wanted.not_after {
        told.push(format!("NA=\"{}\"", validity.not_after.timestamp()));
    }
    let sans = if wanted.sans { alternative_names(certificate) } else { Vec::new() };
    if !sans.is_empty() {
        told.push(format!("SAN=\"{}\"", sans.join(",")));
    }
    told.join(";")
}

fn distinguished(name: &X509Name<'_>, wanted: &Name) -> String {
    let mut text = String::new();
    for (label, oid, wanted) in [
        ("DC", OID_DOMAIN_COMPONENT, wanted.domain_component),
        ("C", OID_X509_COUNTRY_NAME, wanted.country),
        ("ST", OID_X509_STATE_OR_PROVINCE_NAME, wanted.province),
        ("L", OID_X509_LOCALITY_NAME, wanted.locality),
        ("O", OID_X509_ORGANIZATION_NAME, wanted.organization),
        ("OU", OID_X509_ORGANIZATIONAL_UNIT, wanted.organizational_unit),
        ("CN", OID_X509_COMMON_NAME, wanted.common_name),
        ("SN", OID_X509_SERIALNUMBER, wanted.serial_number),
    ] {
        let values = name.iter_by_oid(&oid).filter(|_| wanted).filter_map(|attribute| attribute.as_str().ok());
        for value in values {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a `String` cannot fail.
            _ = write!(text, "{separator}{label}={value}");
        }
    }
    text
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let rank = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(_) => 0,
        GeneralName::RFC822Name(_) => 1,
        GeneralName::IPAddress(_) => 2,
        _ => 3,
    };
    let mut sorted: Vec<_> = names.value.general_names.iter().collect();
    sorted.sort_by_key(|name| rank(name));
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    };
    sorted.into_iter().filter_map(text).collect()
}
