//! Tests of `pass-client-cert`.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::super::testing::{faults, filter, header, passes};
use crate::exchange::testing::request;
use crate::exchange::{ClientCertificate, ConnectionInfo, Exchange, TlsInfo};

const FORGED: [(&str, &str); 2] = [("X-Forwarded-TLS-Client-Cert", "forged"), ("x-forwarded-tls-client-cert-info", "forged")];

/// A request over TLS whose client has shown this chain.
fn shown(chain: &[&[u8]]) -> Exchange {
    let mut x = request("GET", "h", "/", &FORGED);
    let client = (!chain.is_empty()).then(|| ClientCertificate {
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        fingerprint: chain.len().to_string(),
        principals: Arc::default(),
        chain: chain.iter().map(|der| (*der).into()).collect(),
    });
    let tls = TlsInfo { server_name: None, version: "TLSv1.3", cipher: "", client, client_required_unless: None };
    x.connection = Rc::new(ConnectionInfo { tls: Some(tls), ..ConnectionInfo::clone(&x.connection) });
    x
}

fn certificate() -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["a.example".to_owned(), "192.0.2.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::Rfc822Name("m@a.example".try_into().unwrap()));
    params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().unwrap()));
    params.serial_number = Some(rcgen::SerialNumber::from(vec![1, 0, 0]));
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    for (kind, text) in [
        (DnType::CountryName, "FR"),
        (DnType::StateOrProvinceName, "Some State"),
        (DnType::LocalityName, "Toulouse"),
        (DnType::OrganizationName, "Cheese; & \"Co\""),
        (DnType::OrganizationalUnitName, "Unit"),
        (DnType::CommonName, "*.a.example"),
    ] {
        params.distinguished_name.push(kind, text);
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn told(config: &Value, chain: &[&[u8]]) -> (Option<String>, Option<String>) {
    let filter = filter("pass-client-cert", config);
    let mut last = None;
    // The second time from memory.
    for _ in 0..2 {
        let mut x = shown(chain);
        assert!(passes(filter.rewrite(&mut x)));
        let field = |name| header(&x, name).map(str::to_owned);
        let found = (field("x-forwarded-tls-client-cert"), field("x-forwarded-tls-client-cert-info"));
        assert!(last.is_none_or(|last| last == found));
        last = Some(found);
    }
    last.unwrap()
}

fn plain(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
}

#[test]
fn the_certificates_go_upstream_as_pem() {
    let der = certificate();
    let one = STANDARD.encode(&der);
    assert_eq!(told(&json!({"pem": true}), &[&der]), (Some(one.clone()), None));
    assert_eq!(told(&json!({"pem": true}), &[&der, &der]), (Some(format!("{one},{one}")), None));
}

#[test]
fn each_fact_is_told_on_demand() {
    let der = certificate();
    let all = json!({"domain_component": true, "country": true, "province": true, "locality": true, "organization": true,
        "organizational_unit": true, "common_name": true, "serial_number": true});
    for (info, expected) in [
        (json!({"subject": all}), "Subject=\"C=FR,ST=Some State,L=Toulouse,O=Cheese; & \"Co\",OU=Unit,CN=*.a.example\""),
        (json!({"subject": {"common_name": true}, "issuer": {"country": true}}), "Subject=\"CN=*.a.example\";Issuer=\"C=FR\""),
        (json!({"serial_number": true}), "SerialNumber=\"65536\""),
        (json!({"not_before": true, "not_after": true}), "NB=\"1577836800\";NA=\"4102444800\""),
        (json!({"sans": true}), "SAN=\"a.example,m@a.example,192.0.2.1,spiffe://a/b\""),
        (json!({}), ""),
    ] {
        let (pem, info) = told(&json!({"info": info}), &[&der]);
        assert_eq!((pem, plain(&info.unwrap()).as_str()), (None, expected));
    }
    let (_, escaped) = told(&json!({"info": {"subject": {"province": true}}}), &[&der]);
    assert_eq!(escaped.as_deref(), Some("Subject%3D%22ST%3DSome+State%22"));
    let (_, both) = told(&json!({"info": {"serial_number": true}}), &[&der, &der, b"junk"]);
    assert_eq!(plain(&both.unwrap()), "SerialNumber=\"65536\",SerialNumber=\"65536\"");
}

#[test]
fn what_clients_say_themselves_is_dropped() {
    assert_eq!(told(&json!({"pem": true, "info": {}}), &[]), (None, None));
    let mut x = request("GET", "h", "/", &FORGED);
    assert!(passes(filter("pass-client-cert", &json!({"pem": true})).rewrite(&mut x)));
    assert_eq!(x.request.fields.len(), 0);
}

#[test]
fn mistakes_are_refused() {
    assert_eq!(faults("pass-client-cert", &json!({})), [""]);
    assert_eq!(faults("pass-client-cert", &json!({"info": {"subject": {"name": true}}})), ["info.subject"]);
}
