//! Whom a certificate names, in the order in which Envoy judges by it: URIs, DNS names, the subject. It verifies nothing.

use std::fmt::Write;
use std::sync::Arc;

use heddle_node::hex;
use x509_parser::asn1_rs::oid;
use x509_parser::prelude::{AttributeTypeAndValue, GeneralName, X509Certificate, X509Name};

/// Names of types of attributes as OpenSSL writes them; the others are written by their number.
static TYPES: [(x509_parser::asn1_rs::Oid<'static>, &str); 14] = [
    (oid!(2.5.4.3), "CN"),
    (oid!(2.5.4.4), "SN"),
    (oid!(2.5.4.5), "serialNumber"),
    (oid!(2.5.4.6), "C"),
    (oid!(2.5.4.7), "L"),
    (oid!(2.5.4.8), "ST"),
    (oid!(2.5.4.9), "street"),
    (oid!(2.5.4.10), "O"),
    (oid!(2.5.4.11), "OU"),
    (oid!(2.5.4.12), "title"),
    (oid!(2.5.4.42), "GN"),
    (oid!(1.2.840.113549.1.9.1), "emailAddress"),
    (oid!(0.9.2342.19200300.100.1.1), "UID"),
    (oid!(0.9.2342.19200300.100.1.25), "DC"),
];

/// All names.
pub(super) fn principals(certificate: &X509Certificate<'_>) -> Arc<[Box<str>]> {
    let names = certificate.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let names = || names.into_iter().flatten();
    let uris = names().filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).into()) } else { None });
    let hosts = names().filter_map(|name| if let GeneralName::DNSName(host) = name { Some((*host).into()) } else { None });
    uris.chain(hosts).chain([distinguished(certificate.subject()).into()]).collect()
}

/// A distinguished name as RFC 2253 writes it, the last part first.
fn distinguished(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut out = String::new();
    for (number, part) in parts.into_iter().rev().enumerate() {
        for (nth, attribute) in part.iter().enumerate() {
            if nth > 0 || number > 0 {
                out.push(if nth > 0 { '+' } else { ',' });
            }
            write_attribute(attribute, &mut out);
        }
    }
    out
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, out: &mut String) {
    let known = TYPES.iter().find(|(oid, _)| oid == attribute.attr_type());
    match (known, attribute.as_str()) {
        (Some((_, name)), Ok(text)) => {
            out.push_str(name);
            out.push('=');
            escape(text, out);
        }
        _ => {
            out.push_str(&attribute.attr_type().to_id_string());
            out.push_str("=#");
            out.push_str(&hex::encode(attribute.attr_value().data).to_ascii_uppercase());
        }
    }
}

/// A value, in which nothing reads as the end of it (section 2.4).
fn escape(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            // Writing to a `String` cannot fail.
            _ => _ = write!(out, "\\{byte:02X}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rcgen::{CertificateParams, CustomExtension, DnType, KeyPair, SanType};
    use x509_parser::prelude::FromDer;

    use super::*;

    fn named(change: impl FnOnce(&mut CertificateParams)) -> Vec<String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        principals(&certificate).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn uris_come_before_hosts_and_the_subject_last() {
        let all = named(|params| {
            let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
            let uri = |name: &str| SanType::URI(name.try_into().unwrap());
            params.subject_alt_names = vec![dns("a.example"), uri("spiffe://a/b"), dns("b.example"), uri("http://c")];
            params.distinguished_name.push(DnType::CountryName, "FR");
            params.distinguished_name.push(DnType::OrganizationName, "Cheese, \"Co\" ü");
            params.distinguished_name.push(DnType::CommonName, " a ");
        });
        let subject = "CN=\\ a\\ ,O=Cheese\\, \\\"Co\\\" \\C3\\BC,C=FR";
        assert_eq!(all, ["spiffe://a/b", "http://c", "a.example", "b.example", subject]);
    }

    #[test]
    fn who_has_no_names_has_an_empty_subject() {
        assert_eq!(named(|_| {}), [""]);
        let unread = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0xff, 0xff]);
        assert_eq!(named(|params| params.custom_extensions.push(unread)), [""], "names that cannot be read are none");
    }
}
