//! Who is let in: members of the mesh, callers in clear where that is permitted, and nobody else; and for how long.

use super::*;

#[tokio::test]
async fn strict_lets_in_who_proves_to_be_a_member_and_nobody_else() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let answer = ask(&mut sidecar.call(&[b"http/1.1"]).await, GET).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok"), "{answer}");

        assert_eq!(ask(&mut sidecar.clear().await, GET).await, "");
        let nobody = Identity::new();
        nobody.set_bundles(sidecar.authority.bundles());
        let stranger = Authority::new("mesh.example").member(API);
        stranger.set_bundles(sidecar.authority.bundles());
        let foreign = Authority::new("other.example").member(API);
        foreign.set_bundles(sidecar.authority.bundles());
        let expired = sidecar.authority.member(API);
        expired.set_svid(sidecar.authority.svid(API, clock::wall() - HOUR));
        for (who, caller) in [("nobody", nobody), ("stranger", stranger), ("foreign", foreign), ("expired", expired)] {
            if let Ok(mut stream) = sidecar.call_as(&caller, &[b"http/1.1"]).await {
                assert_eq!(ask(&mut stream, GET).await, "", "{who}");
            }
        }
        assert_eq!(seen.borrow().len(), 1);
        let metrics = sidecar.metrics();
        assert!(metrics.contains("refused_connections_total{reason=\"handshake\"} 4\n"), "{metrics}");
        assert!(metrics.contains("refused_connections_total{reason=\"plaintext\"} 1\n"), "{metrics}");
        assert!(!metrics.contains("plaintext_connections_total{"), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn permissive_lets_in_members_and_callers_in_clear_by_one_port_and_counts_the_latter() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |inbound| inbound.mode = Some(PeerMode::Permissive));
        assert!(ask(&mut sidecar.clear().await, GET).await.ends_with("ok"));
        let offers: [&[&[u8]]; 2] = [&[b"http/1.1"], &[]];
        for alpn in offers {
            assert!(ask(&mut sidecar.call(alpn).await, GET).await.ends_with("ok"));
        }
        let nobody = Identity::new();
        nobody.set_bundles(sidecar.authority.bundles());
        if let Ok(mut stream) = sidecar.call_as(&nobody, &[b"http/1.1"]).await {
            assert_eq!(ask(&mut stream, GET).await, "");
        }
        let told: Vec<bool> = seen.borrow().iter().map(|head| head.contains("x-forwarded-client-cert: By=")).collect();
        assert_eq!(told, [false, true, true]);
        let port = address.port();
        let metrics = sidecar.metrics();
        assert!(metrics.contains(&format!("heddle_mesh_plaintext_connections_total{{port=\"{port}\"}} 1\n")), "{metrics}");
        assert_eq!(sidecar.stats.callers_in_clear()[port.to_string()]["peers"][0]["address"], "127.0.0.1");
    })
    .await;
}

#[tokio::test]
async fn a_mode_may_be_that_of_a_port_alone_and_disable_speaks_no_tls() {
    story(async {
        let (address, seen) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |inbound| {
            inbound.ports.insert(address.port(), PeerMode::Disable);
        });
        assert!(ask(&mut sidecar.clear().await, GET).await.ends_with("ok"));
        assert!(sidecar.call_as(&sidecar.authority.member(API), &[b"http/1.1"]).await.is_err());
        // A member that has not heard of it yet is one all the same: nobody fails while a mode changes.
        let (response, _) =
            sidecar.http2().await.send_request(http::Request::get("https://web.shop/").body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
        let told: Vec<bool> = seen.borrow().iter().map(|head| head.contains("x-forwarded-client-cert: By=")).collect();
        assert_eq!(told, [false, true], "by its certificate, as ever");
    })
    .await;
}

/// Asks on a connection that stays.
async fn is_answered(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    stream.write_all(GET.replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
    assert!(head(stream).await.starts_with("HTTP/1.1 200"));
    stream.read_exact(&mut [0; 2]).await.unwrap();
}

/// What is told of the callers in clear that were refused last.
fn why(sidecar: &Sidecar) -> String {
    let told = sidecar.identity.refusals().take(u64::MAX).entries;
    let entry = told.last().filter(|entry| entry.reason == "plaintext").unwrap();
    entry.detail.rsplit_once(": ").unwrap().1.to_owned()
}

#[tokio::test]
async fn who_may_call_in_clear_no_more_is_asked_to_leave_within_a_second_and_members_stay() {
    story(async {
        let (address, seen) = answering(OK).await;
        let mut sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        assert_eq!(ask(&mut sidecar.clear().await, GET).await, "", "strict where nobody says anything");
        assert_eq!(why(&sidecar), "nothing says another mode than strict");
        sidecar.told(PeerMode::Permissive, &[]);
        let (mut clear, mut silent) = (sidecar.clear().await, sidecar.clear().await);
        let mut member = sidecar.call(&[b"http/1.1"]).await;
        for _ in 0..2 {
            is_answered(&mut clear).await;
            is_answered(&mut member).await;
            sidecar.told(PeerMode::Strict, &[(address.port(), PeerMode::Permissive)]);
        }
        sidecar.told(PeerMode::Strict, &[]);
        assert!(ends_within(&mut clear, Duration::from_secs(1)).await);
        assert_eq!(ask(&mut silent, GET).await, "", "what it was when it connected does not count");
        assert_eq!(ask(&mut sidecar.clear().await, GET).await, "");
        assert_eq!(why(&sidecar), "a peer_authentication says strict");
        assert!(ask(&mut member, GET).await.ends_with("ok"));
        assert_eq!(seen.borrow().len(), 5);
        let metrics = sidecar.metrics();
        assert!(metrics.contains("refused_connections_total{reason=\"plaintext\"} 4\n"), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn what_the_sidecars_own_settings_demand_is_not_made_laxer_from_afar() {
    story(async {
        let (address, _) = answering(OK).await;
        for (own, told, lets_in) in [
            (PeerMode::Strict, PeerMode::Permissive, false),
            (PeerMode::Permissive, PeerMode::Strict, false),
            (PeerMode::Permissive, PeerMode::Disable, true),
        ] {
            let mut sidecar = Sidecar::before(address, MeshProtocol::Http, |inbound| inbound.mode = Some(own));
            sidecar.told(told, &[]);
            assert_eq!(ask(&mut sidecar.clear().await, GET).await.ends_with("ok"), lets_in, "{own:?} {told:?}");
            assert!(ask(&mut sidecar.call(&[b"http/1.1"]).await, GET).await.ends_with("ok"), "{own:?} {told:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_is_trusted_no_more_is_cut_off_within_a_second() {
    story(async {
        let (address, _) = answering(OK).await;
        let sidecar = Sidecar::before(address, MeshProtocol::Http, |_| ());
        let mut stays = sidecar.call(&[b"http/1.1"]).await;
        stays.write_all(GET.replace("Connection: close\r\n", "").as_bytes()).await.unwrap();
        assert!(head(&mut stays).await.starts_with("HTTP/1.1 200"));
        // A new certificate of our own and a bundle with the same root change nothing for it.
        sidecar.identity.set_svid(sidecar.authority.svid(WEB, clock::wall() + HOUR));
        sidecar.identity.set_bundles(sidecar.authority.bundles());
        assert!(!ends_within(&mut stays, Duration::from_millis(300)).await);
        sidecar.identity.set_bundles(Authority::new("mesh.example").bundles());
        assert!(ends_within(&mut stays, Duration::from_secs(1)).await);
        assert!(sidecar.metrics().contains("refused_connections_total{reason=\"untrusted\"} 1\n"));
    })
    .await;
}

#[tokio::test]
async fn old_connections_end_when_nothing_is_in_flight_and_are_cut_after_the_grace() {
    story(async {
        let silent = application(|stream| async move {
            std::future::pending::<()>().await;
            drop(stream);
        });
        let sidecar = Sidecar::before(silent.await, MeshProtocol::Http, |inbound| {
            inbound.max_connection_age = Duration::from_millis(200);
            inbound.max_connection_age_grace = Duration::from_secs(2);
        });
        let (mut idle, mut busy) = (sidecar.call(&[b"http/1.1"]).await, sidecar.call(&[b"http/1.1"]).await);
        busy.write_all(GET.as_bytes()).await.unwrap();
        assert!(ends_within(&mut idle, Duration::from_millis(1_800)).await);
        assert!(ends_within(&mut busy, Duration::from_secs(5)).await);
        assert!(sidecar.metrics().contains("refused_connections_total{reason=\"age\"} 1\n"));
    })
    .await;
}
