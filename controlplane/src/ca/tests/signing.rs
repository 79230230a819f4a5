//! Who gets which identity, and what is written down of it.

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;

#[tokio::test]
async fn a_token_gives_one_identity_once() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let (token, about) = authority.create_token("default", "web", None, "ops").await.unwrap();
    let (csr, _) = request(Some(WEB));
    let signed = authority.sign(&csr, &Proof::Token(token.clone()), &clear()).await.unwrap();
    assert_eq!(signed.id.as_str(), WEB);
    assert_eq!(verify(&authority, &signed, place.now()).unwrap().as_str(), WEB);
    let decision = last(&authority).await;
    assert!(decision.is_issued());
    assert_eq!((decision.proof.as_str(), decision.subject.clone()), ("token", format!("token {}", about.id)));
    assert_eq!((decision.peer.as_str(), decision.spiffe_id.as_str()), ("127.0.0.1:4711", WEB));
    assert_eq!(decision.not_after_ms, START + 3_600_000);

    let refused = authority.sign(&request(Some(WEB)).0, &Proof::Token(token), &clear()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::TokenUsed);
    let decision = last(&authority).await;
    assert_eq!((decision.verdict.as_str(), decision.spiffe_id.as_str(), decision.serial.as_str()), ("token-used", WEB, ""));
    assert!(authority.tokens()[0].used_ms.is_some());
}

#[tokio::test]
async fn of_many_who_use_a_token_at_once_one_gets_the_identity() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let (token, _) = authority.create_token("default", "web", None, "ops").await.unwrap();
    let one = |token: String| {
        let authority = authority.clone();
        tokio::spawn(async move { authority.sign(&request(None).0, &Proof::Token(token), &clear()).await.is_ok() })
    };
    let tries: Vec<_> = (0..16).map(|_| one(token.clone())).collect();
    let mut issued = 0;
    for attempt in tries {
        issued += usize::from(attempt.await.unwrap());
    }
    assert_eq!(issued, 1);
}

#[tokio::test]
async fn proofs_that_are_not_good_are_refused_and_written_down() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let (token, about) = authority.create_token("default", "web", Some(Duration::from_secs(60)), "ops").await.unwrap();
    let (csr, _) = request(None);
    let refused = async |csr: &[u8], proof: Proof, peer: Peer| {
        let refusal = authority.sign(csr, &proof, &peer).await.unwrap_err();
        let decision = last(&authority).await;
        assert_eq!(decision.verdict, refusal.reason.label());
        assert_eq!((decision.serial.as_str(), decision.not_after_ms), ("", 0));
        refusal.reason
    };
    let with_token = || Proof::Token(token.clone());
    assert_eq!(refused(&csr, Proof::Connection, clear()).await, Reason::NoProof);
    let nobody = Peer::Tls { address: "10.0.0.1:1".parse().unwrap(), identity: None };
    assert_eq!(refused(&csr, Proof::Connection, nobody).await, Reason::NoProof);
    assert_eq!(refused(&csr, Proof::Token("hj1.aa.bb".into()), clear()).await, Reason::TokenUnknown);
    assert_eq!(refused(&csr, Proof::Kubernetes("x".into()), clear()).await, Reason::KubernetesOff);
    assert_eq!(refused(&request(Some(API)).0, with_token(), clear()).await, Reason::OtherIdentity);
    assert_eq!(refused(b"junk", with_token(), clear()).await, Reason::Request);
    assert_eq!(refused(&vec![0; 20_000], with_token(), clear()).await, Reason::RequestSize);
    place.later(61);
    assert_eq!(refused(&csr, with_token(), clear()).await, Reason::TokenExpired);
    assert!(authority.revoke_token(&about.id).await.unwrap());
    assert_eq!(refused(&csr, with_token(), clear()).await, Reason::TokenUnknown);
    assert!(!authority.revoke_token(&about.id).await.unwrap());
    assert_eq!(authority.journal(None, 100, true).await.unwrap().len(), 9);
}

#[tokio::test]
async fn a_flood_of_refusals_makes_no_certificate_forgotten() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    join(&authority, "web").await;
    for _ in 0..60 {
        let refused = authority.sign(&request(None).0, &Proof::Token("hj1.aa.bb".into()), &clear()).await;
        assert_eq!(refused.unwrap_err().reason, Reason::TokenUnknown);
    }
    let all = authority.journal(None, 10, false).await.unwrap();
    assert!(all.len() == 10 && all.iter().all(|(_, decision)| !decision.is_issued()), "newest first, of both");
    let older = authority.journal(Some(all[9].0), 100, false).await.unwrap();
    assert_eq!((older.len(), older[50].1.spiffe_id.as_str(), older[50].1.is_issued()), (51, WEB, true));
    assert_eq!(authority.journal(None, 100, true).await.unwrap().len(), 60);
}

#[tokio::test]
async fn the_present_identity_is_renewed_and_gives_no_other() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let first = join(&authority, "web").await;
    place.later(1_800);
    let peer = connection(&first);
    let second = authority.sign(&request(Some(WEB)).0, &Proof::Connection, &peer).await.unwrap();
    assert_eq!(second.not_after, first.not_after + Duration::from_secs(1_800));
    assert_eq!(last(&authority).await.subject, WEB);
    let other = authority.sign(&request(Some(API)).0, &Proof::Connection, &peer).await.unwrap_err();
    assert_eq!(other.reason, Reason::OtherIdentity);
    place.later(1_800 + 600);
    let stale = authority.sign(&request(None).0, &Proof::Connection, &peer).await.unwrap_err();
    assert_eq!(stale.reason, Reason::Expired, "a connection proves nothing once its certificate has expired");
    let foreign = Place::new();
    let stranger = join(&foreign.open().await.unwrap(), "web").await;
    let refused = authority.sign(&request(None).0, &Proof::Connection, &connection(&stranger)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Expired);
}

#[tokio::test]
async fn nobody_else_is_the_control_plane() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let own = "spiffe://heddle.local/ns/heddle/svc/controlplane";
    assert!(authority.create_token("heddle", "controlplane", None, "ops").await.is_err());
    let refused = authority.sign(&request(Some(own)).0, &Proof::Connection, &Peer::Process).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Reserved);
    let gateway = authority.sign(&request(Some(WEB)).0, &Proof::Connection, &Peer::Process).await.unwrap();
    assert_eq!(gateway.id.as_str(), WEB);
    let mut resident = authority.own().unwrap();
    authority.identify(&mut resident).await.unwrap();
    assert_eq!(resident.identity().svid().unwrap().id().as_str(), own);
}

#[tokio::test]
async fn certificates_are_what_identities_should_be() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let (one, two) = (join(&authority, "web").await, join(&authority, "web").await);
    let (_, leaf) = X509Certificate::from_der(&one.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && extended.server_auth && !extended.any);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.raw_serial().len(), 16);
    assert!(leaf.raw_serial()[0] < 0x80, "serial numbers are positive");
    let (_, other) = X509Certificate::from_der(&two.chain[0]).unwrap();
    assert_ne!(leaf.raw_serial(), other.raw_serial());
    let backdated = place.now().duration_since(one.not_before).unwrap();
    assert_eq!(backdated, place.settings.clock_skew);
}

#[tokio::test]
async fn requests_get_nothing_but_an_identity() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let ask = async |change: fn(&mut CertificateParams), key: &KeyPair| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
        change(&mut params);
        let csr = params.serialize_request(key).unwrap().der().to_vec();
        authority.sign(&csr, &Proof::Connection, &Peer::Process).await.map(|_| ()).map_err(|refusal| refusal.reason)
    };
    let key = KeyPair::generate().unwrap();
    assert_eq!(ask(|_| {}, &key).await, Ok(()));
    assert_eq!(ask(|_| {}, &KeyPair::generate_for(&PKCS_ED25519).unwrap()).await, Ok(()));
    assert_eq!(ask(|_| {}, &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).await, Ok(()));
    assert_eq!(ask(|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature], &key).await, Ok(()));
    let extra: [fn(&mut CertificateParams); 4] = [
        |params| params.subject_alt_names.push(SanType::DnsName("example.org".try_into().unwrap())),
        |params| params.subject_alt_names = vec![SanType::URI("https://example.org".try_into().unwrap())],
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
    ];
    for change in extra {
        assert_eq!(ask(change, &key).await, Err(Reason::Extra));
    }
    let mut tampered = request(Some(WEB)).0;
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let refused = authority.sign(&tampered, &Proof::Connection, &Peer::Process).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Signature);
    let long = [&request(Some(WEB)).0[..], b"x"].concat();
    let refused = authority.sign(&long, &Proof::Connection, &Peer::Process).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Request);
}

#[tokio::test]
async fn a_herd_is_spread() {
    let place = Place { settings: IdentitySettings { signing: (200.0, 1.0), ..Place::new().settings }, ..Place::new() };
    let authority = place.open().await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..20 {
        match authority.sign(&request(Some(WEB)).0, &Proof::Connection, &Peer::Process).await {
            Ok(_) => {}
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::Rate);
                waits.push(refusal.retry_ms.unwrap());
            }
        }
    }
    assert_eq!(waits.len(), 10);
    assert!(waits.iter().all(|wait| (1_000..=3_000).contains(wait)), "{waits:?}");
    assert!(authority.sign(&request(Some(API)).0, &Proof::Connection, &Peer::Process).await.is_ok());
}
