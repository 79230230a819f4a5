//! Capture on hosts that are not as most are: IPv6 switched off, tools out of the way, root that is somebody else outside. It knows rules only by what they do.

use std::fs::File;

use heddle_sidecar::capture::CaptureSettings;

use crate::hands::Hands;
use crate::verified::{all_arrived, contains_all, of_root};
use crate::world::{Family, World};
use crate::{MODES, Mode, server};

/// The doors of an agent whose host has IPv4 alone.
async fn agent_of_ipv4(mut hands: Hands, mode: Mode) -> Hands {
    let how = if mode == Mode::Tproxy { "transparent" } else { "plain" };
    for door in ["inbound 0.0.0.0:15006", "outbound 127.0.0.1:15001", "names 127.0.0.1:15053"] {
        hands.listen(&format!("tcp {door} {how}")).await;
    }
    hands.listen("agent names 127.0.0.1:15053 plain").await;
    hands
}

#[tokio::test]
async fn a_host_that_has_switched_ipv6_off_needs_no_word() {
    for mode in MODES {
        for interface in ["all", "lo"] {
            let world = World::new();
            world.switch_ipv6_off(interface);
            let (before, mut hands) = (world.traces(), world.pod_hands().await);
            let _peer = server(world.peer_hands().await, "peer", &[80]).await;
            let to = Family::V6.socket(Family::V6.peer(), 80);
            assert_eq!(world.app_reaches(&to), interface == "lo", "only a part of it is off");
            // As nobody listens yet, and beside an agent.
            let alone = hands.capture("establish", of_root(mode)).await;
            let _agent = agent_of_ipv4(world.pod_hands().await, mode).await;
            let beside = hands.capture("expect", of_root(mode)).await;
            for seen in [alone, beside, hands.capture("verify", of_root(mode)).await] {
                contains_all(
                    &seen,
                    &[
                        "IPv4: a connection to 10.77.0.254:15001 arrived at 127.0.0.1:15001",
                        "IPv4: a question for a name (UDP) to 10.77.0.254:53 arrived at 127.0.0.1:15053",
                        "IPv6: a connection: not tried: it is switched off on this host",
                        "IPv6: a question for a name (TCP): not tried: it is switched off on this host",
                        "inbound: its rules are in force",
                    ],
                );
            }
            assert!(!world.traces().contains("meta nfproto ipv6 accept"), "it may be switched on again");
            assert!(!world.app_reaches(&to), "{mode:?}: nothing slips by");
            assert_eq!(hands.capture("remove", of_root(mode)).await, "");
            assert_eq!(world.traces(), before, "{mode:?} {interface}");
        }
    }
}

#[tokio::test]
async fn tools_for_administrators_are_found_where_the_path_leaves_them_out() {
    for mode in MODES {
        let world = World::new();
        let mut hands = world.pod_hands_as("env PATH=/nowhere").await;
        all_arrived(&hands.capture("establish", of_root(mode)).await, "10.77.0.254", "fd77::ffff:ffff:ffff:fffe");
    }
}

#[tokio::test]
async fn a_container_whose_root_is_nobody_on_its_host_waits_for_nobody() {
    let world = World::new();
    // The host's own root has been here, in the same /run.
    world.tools().remove(&CaptureSettings::default()).await.unwrap();
    let rootless = "setpriv --reuid 1000 --regid 1000 --clear-groups unshare --user --map-root-user --net";
    let mut container = world.pod_hands_as(rootless).await;
    assert_eq!(container.capture("establish", "proxy_uid: 0, verify: false").await, "");
    assert_eq!(container.capture("remove", "proxy_uid: 0").await, "");
}

#[tokio::test]
async fn mistakes_in_settings_are_told_before_anybody_is_waited_for() {
    let world = World::new();
    let mut hands = world.pod_hands().await;
    hands.capture("remove", "").await;
    let lock = File::open(format!("/run/heddle-capture/net-{}.lock", world.number())).unwrap();
    lock.lock().unwrap();
    for what in ["establish", "expect", "verify"] {
        contains_all(&hands.capture(what, "proxy_mark: 0x4845").await, &["refused: capture.proxy_mark: ", "take another one"]);
    }
}
