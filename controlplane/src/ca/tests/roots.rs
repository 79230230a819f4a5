//! Roots over their life: made, kept, replaced, brought by an operator.

use heddle_node::identity::{Identity, TrustDomain};

use super::super::issuer::Issuer;
use super::*;

fn holder(node: &str, version: &str) -> Holder {
    Holder { node: node.into(), spiffe_id: String::new(), version: version.into(), ..Holder::default() }
}

#[tokio::test]
async fn the_root_outlives_the_process_and_lies_sealed() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let version = authority.trusted().borrow().version.clone();
    let signed = join(&authority, "web").await;
    drop(authority);
    let again = place.open().await.unwrap();
    assert_eq!(again.trusted().borrow().version, version);
    assert!(verify(&again, &signed, place.now()).is_ok());
    let overview = again.overview(&[]);
    assert_eq!((overview.roots[0].live, overview.roots[0].last_expiry_ms), (1, Some(START + 3_600_000)));
    assert_eq!(again.tokens().len(), 1);
    drop(again);
    std::fs::remove_file(place.path().join("secrets.key")).unwrap();
    assert!(matches!(place.open().await, Err(CaError::Seal(_))), "without its key the root is worth nothing");
}

#[tokio::test]
async fn another_trust_domain_does_not_take_the_authority_over() {
    let mut place = Place::new();
    drop(place.open().await.unwrap());
    place.settings.trust_domain = TrustDomain::new("other.example.org").unwrap();
    assert!(matches!(place.open().await, Err(CaError::TrustDomain { .. })));
}

#[tokio::test]
async fn a_rotation_survives_a_restart_in_every_step_and_loses_nobody() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let before = join(&authority, "web").await;
    authority.rotate().await.unwrap();
    assert!(authority.rotate().await.is_err(), "one at a time");
    drop(authority);

    let authority = place.open().await.unwrap();
    let version = authority.trusted().borrow().version.clone();
    let (ready, late) = (authority.holders().enter(holder("a", &version)), authority.holders().enter(holder("b", "")));
    place.later(61);
    authority.advance(&[]).await.unwrap();
    let overview = authority.overview(&["c".to_owned()]);
    assert!(matches!(overview.phase, Phase::Spreading { .. }) && overview.waits.len() == 2, "{overview:?}");
    let still_old = join(&authority, "web").await;
    late.as_ref().unwrap().holds(&version);
    authority.advance(&[]).await.unwrap();
    assert!(matches!(authority.overview(&[]).phase, Phase::Retiring { .. }));
    drop((ready, late, authority));

    let authority = place.open().await.unwrap();
    let new = join(&authority, "web").await;
    for signed in [&before, &still_old, &new] {
        assert!(verify(&authority, signed, place.now()).is_ok());
    }
    place.later(3_600);
    authority.advance(&[]).await.unwrap();
    assert_eq!(authority.overview(&[]).roots.len(), 2, "the grace for slow clocks is not over");
    place.later(301);
    authority.advance(&[]).await.unwrap();
    let overview = authority.overview(&[]);
    assert_eq!((overview.phase, overview.roots.len()), (Phase::Steady, 1));
    let last = join(&authority, "web").await;
    drop(authority);
    let authority = place.open().await.unwrap();
    assert!(verify(&authority, &last, place.now()).is_ok());
    assert!(verify(&authority, &still_old, place.now()).is_err());
}

#[tokio::test]
async fn a_rotation_can_be_taken_back_before_the_new_root_signs() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let version = authority.trusted().borrow().version.clone();
    authority.rotate().await.unwrap();
    assert_ne!(authority.trusted().borrow().version, version);
    authority.interfere(true).await.unwrap();
    assert_eq!(authority.trusted().borrow().version, version);
    authority.rotate().await.unwrap();
    authority.interfere(false).await.unwrap();
    assert!(matches!(authority.overview(&[]).phase, Phase::Retiring { .. }));
    assert!(authority.interfere(true).await.is_err());
}

#[tokio::test]
async fn an_old_root_is_replaced_by_itself() {
    let mut place = Place::new();
    place.settings.ca.root_ttl = Duration::from_secs(100_000);
    let authority = place.open().await.unwrap();
    authority.advance(&[]).await.unwrap();
    assert_eq!(authority.overview(&[]).phase, Phase::Steady);
    place.later(81_000);
    authority.advance(&[]).await.unwrap();
    assert!(matches!(authority.overview(&[]).phase, Phase::Spreading { .. }));
}

#[tokio::test]
async fn no_identity_outlives_its_root() {
    let mut place = Place::new();
    place.settings.ca.root_ttl = Duration::from_secs(100);
    let authority = place.open().await.unwrap();
    let signed = join(&authority, "web").await;
    assert_eq!(signed.not_after, place.now() + Duration::from_secs(100));
    place.later(101);
    let refused = authority.sign(&request(Some(WEB)).0, &Proof::Connection, &Peer::Process).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Authority);
}

#[tokio::test]
async fn an_operator_brings_an_authority_and_changes_it() {
    let mut place = Place::new();
    let own = place.open().await.unwrap();
    let by_own = join(&own, "web").await;
    drop(own);
    let domain = place.settings.trust_domain.clone();
    let issuer = Issuer::generate(&domain, place.now(), Duration::from_secs(900_000), Duration::ZERO).unwrap();
    let (certificate, key) = (place.path().join("ca.pem"), place.path().join("ca.key"));
    let pem = heddle_node::identity::Bundle::from_der(domain, vec![issuer.root().clone()]).unwrap().pem();
    std::fs::write(&certificate, pem).unwrap();
    std::fs::write(&key, KeyPair::try_from(issuer.key_der().to_vec()).unwrap().serialize_pem()).unwrap();
    place.settings.ca.files = Some(CaFiles { certificate, key: key.clone() });
    let theirs = place.open().await.unwrap();
    let by_theirs = join(&theirs, "web").await;
    assert!(verify(&theirs, &by_own, place.now()).is_ok() && verify(&theirs, &by_theirs, place.now()).is_ok());
    assert!(matches!(theirs.rotate().await, Err(CaError::External)));
    drop(theirs);

    place.settings.ca.files = None;
    let own = place.open().await.unwrap();
    let again = join(&own, "web").await;
    for signed in [&by_own, &by_theirs, &again] {
        assert!(verify(&own, signed, place.now()).is_ok(), "all of them are still valid");
    }
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    place.settings.ca.files = Some(CaFiles { certificate: place.path().join("ca.pem"), key });
    drop(own);
    assert!(matches!(place.open().await, Err(CaError::File { why, .. }) if why.contains("not that of the first certificate")));
}

#[tokio::test]
async fn the_control_plane_renews_itself_when_half_is_over_and_when_the_root_changes() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    let mut own = authority.own().unwrap();
    authority.identify(&mut own).await.unwrap();
    let identity = own.identity();
    let serial = |identity: &Identity| identity.svid().unwrap().serial_hex();
    let first = serial(&identity);
    authority.identify(&mut own).await.unwrap();
    assert_eq!(serial(&identity), first, "it is fresh");
    place.later(1_801);
    authority.identify(&mut own).await.unwrap();
    let second = serial(&identity);
    assert_ne!(second, first, "half of its life is over");
    authority.rotate().await.unwrap();
    authority.identify(&mut own).await.unwrap();
    assert_eq!(serial(&identity), second);
    assert_eq!(identity.bundles().own().unwrap().roots().len(), 2, "bundles are taken over at once");
    authority.interfere(false).await.unwrap();
    authority.identify(&mut own).await.unwrap();
    assert_ne!(serial(&identity), second, "another root signs now");
}

#[tokio::test]
async fn an_agent_of_the_same_process_has_an_identity_and_is_seen_to_hold_the_bundles() {
    let place = Place::new();
    let authority = place.open().await.unwrap();
    assert!(authority.agent("gw-1", "heddle", "controlplane").is_err(), "nobody else is the control plane");
    let (mut own, mut agent) = (authority.own().unwrap(), authority.agent("gw-1", "default", "gateway").unwrap());
    for resident in [&mut own, &mut agent] {
        authority.identify(resident).await.unwrap();
    }
    let id = "spiffe://heddle.local/ns/default/svc/gateway";
    assert_eq!(agent.identity().svid().unwrap().id().as_str(), id);
    assert_eq!(last(&authority).await.spiffe_id, id, "it is written down like any other");
    authority.rotate().await.unwrap();
    let behind = authority.overview(&["gw-1".to_owned()]);
    assert_ne!(behind.holders[0].version, behind.version);
    authority.identify(&mut agent).await.unwrap();
    let told = authority.overview(&["gw-1".to_owned()]);
    assert_eq!((told.holders.len(), &*told.holders[0].version), (1, &*told.version), "no rotation waits for it in vain");
}
