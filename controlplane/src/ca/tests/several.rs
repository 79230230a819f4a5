//! Several control planes with one authority.

use super::*;
use crate::store::{Cluster, Records};

/// Authorities beside one cluster that were opened at the same time.
async fn several(cluster: &Cluster, count: usize) -> Vec<Authority> {
    let clock: Clock = Arc::new(|| START);
    let opening = (0..count).map(|_| async {
        let store = cluster.store("/ca/", clock.clone()).await;
        let news = store.news().unwrap();
        let seal = Arc::new(Seal::new(&[7; 32]).unwrap());
        let settings = IdentitySettings::default();
        let authority = Authority::open(settings, store, seal, clock.clone(), fastrand::Rng::with_seed(7)).await.unwrap();
        let (completion, drain) = heddle_node::drain::pair();
        tokio::spawn(authority.clone().follow(news, drain));
        // It follows until the test ends.
        std::mem::forget(completion);
        authority
    });
    futures_util::future::join_all(opening).await
}

async fn until(what: &str, mut there: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still waiting for {what}");
}

#[tokio::test]
async fn all_have_one_root_and_a_token_is_good_once_for_all() {
    let cluster = Cluster::of(1);
    let all = several(&cluster, 3).await;
    let version = |authority: &Authority| authority.trusted().borrow().version.clone();
    until("one root", || all.iter().all(|authority| version(authority) == version(&all[0]))).await;
    let (token, about) = all[0].create_token("default", "web", None, "ops").await.unwrap();
    let knows = |authority: &Authority| authority.tokens().iter().any(|token| token.id == about.id);
    until("the token everywhere", || all.iter().all(knows)).await;
    let requests: Vec<Vec<u8>> = all.iter().map(|_| request(Some(WEB)).0).collect();
    let (proof, peer) = (Proof::Token(token), clear());
    let tries = all.iter().zip(&requests).map(|(authority, csr)| authority.sign(csr, &proof, &peer));
    let signed: Vec<bool> = futures_util::future::join_all(tries).await.into_iter().map(|signed| signed.is_ok()).collect();
    assert_eq!(signed.iter().filter(|signed| **signed).count(), 1, "{signed:?}");

    let before = version(&all[1]);
    all[2].rotate().await.unwrap();
    until("the new root everywhere", || all.iter().all(|authority| version(authority) == version(&all[2]))).await;
    assert_ne!(version(&all[1]), before);
    assert!(all[1].revoke_token(&about.id).await.unwrap());
    until("the token to be forgotten", || !all.iter().any(knows)).await;
}
