//! Chains: whose they are, and why they are refused.

use rcgen::KeyPair;

use super::super::{CLOCK_TOLERANCE, Rejection, Usage, domain_of_roots, peer_of};
use super::*;
use crate::clock;

const WEB: &str = "/ns/default/svc/web";

fn judged(bundles: &Bundles, chain: &[CertificateDer<'static>]) -> Result<SpiffeId, Rejection> {
    let client = bundles.verify(chain, Usage::Client, clock::wall());
    assert_eq!(client, bundles.verify(chain, Usage::Server, clock::wall()));
    client
}

/// What is said of a leaf that `change` has made of a good one.
fn refused(change: impl FnOnce(&mut CertificateParams)) -> Rejection {
    let authority = Authority::new("a.test");
    let mut params = leaf_params("spiffe://a.test/ns/default/svc/web");
    change(&mut params);
    judged(&authority.bundles(), &authority.issue_any(params).0).unwrap_err()
}

#[test]
fn a_good_chain_tells_whose_it_is() {
    let authority = Authority::new("a.test");
    let svid = authority.svid(WEB);
    assert_eq!(judged(&authority.bundles(), svid.chain()).unwrap(), id("spiffe://a.test/ns/default/svc/web"));
    assert_eq!(peer_of(svid.chain()).as_ref(), Some(svid.id()));
    assert_eq!(peer_of(&[]), None);
}

#[test]
fn a_chain_over_an_intermediate_is_good_and_a_longer_one_is_not_looked_at() {
    let authority = Authority::new("a.test");
    let (certificate, issuer) = authority.intermediate("spiffe://a.test");
    let key = KeyPair::generate().unwrap();
    let leaf = leaf_params("spiffe://a.test/x").signed_by(&key, &issuer).unwrap().der().clone();
    assert!(judged(&authority.bundles(), &[leaf.clone(), certificate.clone()]).is_ok());
    assert!(matches!(judged(&authority.bundles(), std::slice::from_ref(&leaf)), Err(Rejection::Untrusted { .. })));
    let long = [leaf, certificate.clone(), certificate.clone(), certificate.clone(), certificate.clone(), certificate];
    assert_eq!(judged(&authority.bundles(), &long), Err(Rejection::TooLong(6)));
}

#[test]
fn an_intermediate_of_another_trust_domain_cannot_vouch() {
    let authority = Authority::new("a.test");
    let (certificate, issuer) = authority.intermediate("spiffe://b.test");
    let key = KeyPair::generate().unwrap();
    let leaf = leaf_params("spiffe://a.test/x").signed_by(&key, &issuer).unwrap().der().clone();
    assert!(matches!(judged(&authority.bundles(), &[leaf, certificate]), Err(Rejection::Untrusted { .. })));
}

#[test]
fn a_workload_cannot_sign_another() {
    let authority = Authority::new("a.test");
    let key = KeyPair::generate().unwrap();
    let params = leaf_params("spiffe://a.test/x");
    let holder = params.clone().signed_by(&key, &authority.issuer).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let forged = leaf_params("spiffe://a.test/admin").signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
    assert!(matches!(judged(&authority.bundles(), &[forged, holder]), Err(Rejection::Untrusted { .. })));
}

#[test]
fn the_form_of_a_leaf_is_demanded() {
    assert_eq!(judged(&Bundles::default(), &[]), Err(Rejection::NoCertificate));
    assert!(matches!(judged(&Bundles::default(), &[CertificateDer::from(vec![1, 2, 3])]), Err(Rejection::Malformed(_))));
    assert_eq!(refused(|leaf| leaf.subject_alt_names.clear()), Rejection::NoIdentity);
    let second = SanType::URI("spiffe://a.test/other".try_into().unwrap());
    assert_eq!(refused(|leaf| leaf.subject_alt_names.push(second)), Rejection::ManyIdentities(2));
    let http = SanType::URI("https://a.test/".try_into().unwrap());
    assert_eq!(refused(|leaf| leaf.subject_alt_names.push(http)), Rejection::ManyIdentities(2));
    assert!(matches!(
        refused(|leaf| leaf.subject_alt_names = vec![SanType::URI("spiffe://a.test".try_into().unwrap())]),
        Rejection::Malformed(_)
    ));
    assert!(matches!(refused(|leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyEncipherment]), Rejection::Malformed(_)));
}

#[test]
fn an_authority_is_no_workload() {
    assert!(matches!(refused(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), Rejection::Authority { .. }));
    assert!(matches!(refused(|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)), Rejection::Authority { .. }));
}

#[test]
fn names_beside_the_id_do_no_harm() {
    let authority = Authority::new("a.test");
    let mut params = leaf_params("spiffe://a.test/x");
    params.subject_alt_names.push(SanType::DnsName("web.default.mesh".try_into().unwrap()));
    assert!(judged(&authority.bundles(), &authority.issue_any(params).0).is_ok());
}

#[test]
fn extended_key_usage_holds_where_it_is_there() {
    let authority = Authority::new("a.test");
    let mut params = leaf_params("spiffe://a.test/x");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (chain, _) = authority.issue_any(params.clone());
    assert!(authority.bundles().verify(&chain, Usage::Server, clock::wall()).is_ok());
    assert!(matches!(authority.bundles().verify(&chain, Usage::Client, clock::wall()), Err(Rejection::Untrusted { .. })));
    params.extended_key_usages.clear();
    assert!(judged(&authority.bundles(), &authority.issue_any(params).0).is_ok());
}

#[test]
fn times_count_with_a_small_tolerance() {
    let authority = Authority::new("a.test");
    let svid = authority.svid(WEB);
    let at = |time: SystemTime| authority.bundles().verify(svid.chain(), Usage::Client, time);
    assert!(at(svid.not_after() + CLOCK_TOLERANCE).is_ok());
    assert!(matches!(at(svid.not_after() + CLOCK_TOLERANCE + Duration::from_secs(5)), Err(Rejection::Expired { ago_s: 35, .. })));
    assert!(at(svid.not_before() - CLOCK_TOLERANCE).is_ok());
    assert!(matches!(
        at(svid.not_before() - CLOCK_TOLERANCE - Duration::from_secs(5)),
        Err(Rejection::NotYetValid { in_s: 35, .. })
    ));
}

#[test]
fn a_short_life_is_not_stretched_by_the_tolerance() {
    let authority = Authority::new("a.test");
    let mut params = leaf_params("spiffe://a.test/x");
    let from = clock::wall();
    valid(&mut params, from, from + Duration::from_secs(10));
    let svid = authority.issue(params);
    let at = |seconds| authority.bundles().verify(svid.chain(), Usage::Client, svid.not_after() + Duration::from_secs(seconds));
    assert!(at(1).is_ok());
    assert!(matches!(at(2), Err(Rejection::Expired { .. })));
}

#[test]
fn a_leaf_is_vouched_for_by_its_own_trust_domain_only() {
    let (ours, theirs) = (Authority::new("a.test"), Authority::new("b.test"));
    let foreign = theirs.svid(WEB);
    assert!(matches!(judged(&ours.bundles(), foreign.chain()), Err(Rejection::ForeignTrustDomain { .. })));
    let federated = ours.bundles().with_federated(theirs.bundle());
    assert_eq!(judged(&federated, foreign.chain()).unwrap(), id("spiffe://b.test/ns/default/svc/web"));
    // A federated domain cannot make identities of ours.
    let forged = theirs.issue(leaf_params("spiffe://a.test/ns/default/svc/web"));
    assert!(matches!(judged(&federated, forged.chain()), Err(Rejection::Untrusted { .. })));
}

#[test]
fn bundles_go_through_pem() {
    let (one, two) = (Authority::new("a.test"), Authority::new("a.test"));
    let both = Bundle::from_der(domain("a.test"), vec![one.certificate.clone(), two.certificate.clone()]).unwrap();
    assert_eq!(Bundle::from_pem(domain("a.test"), &both.pem()).unwrap(), both);
    assert_eq!(domain_of_roots(&both.pem()), Some(domain("a.test")));
    assert_eq!(domain_of_roots(&(both.pem() + &Authority::new("b.test").bundle().pem())), None);
    for svid in [one.svid(WEB), two.svid(WEB)] {
        assert!(judged(&Bundles::new(both.clone()), svid.chain()).is_ok());
    }
    assert!(Bundle::from_pem(domain("a.test"), "").is_err());
    assert!(Bundle::from_pem(domain("a.test"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    assert!(Bundle::from_der(domain("a.test"), vec![one.certificate.clone(); 33]).is_err());
}

#[test]
fn svids_go_through_pem_and_hide_their_key() {
    let authority = Authority::new("a.test");
    let svid = authority.svid(WEB);
    let again = Svid::from_pem(&svid.chain_pem(), &svid.key_pem()).unwrap();
    assert_eq!((again.id(), again.serial_hex(), again.not_after()), (svid.id(), svid.serial_hex(), svid.not_after()));
    assert!(Svid::from_pem(&svid.chain_pem(), &authority.svid(WEB).key_pem()).is_err());
    assert!(Svid::from_pem(&svid.key_pem(), &svid.key_pem()).is_err());
    let shown = format!("{svid:?}");
    assert!(shown.contains("spiffe://a.test/ns/default/svc/web") && shown.len() < 250, "{shown}");
}

#[test]
fn open_connections_are_judged_by_the_bundles_of_now() {
    let (old, new) = (Authority::new("a.test"), Authority::new("a.test"));
    let mut params = leaf_params("spiffe://a.test/x");
    let now = clock::wall();
    valid(&mut params, now - 3 * HOUR, now - HOUR);
    let long_open = old.issue(params);
    let identity = old.member(WEB);
    assert!(matches!(identity.bundles().verify(long_open.chain(), Usage::Client, now), Err(Rejection::Expired { .. })));
    assert_eq!(identity.recheck(long_open.chain()).unwrap(), id("spiffe://a.test/x"));
    let mut changes = identity.changes();
    identity.set_bundles(new.bundles());
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), 3);
    assert!(matches!(identity.recheck(long_open.chain()), Err(Rejection::Untrusted { .. })));
}
