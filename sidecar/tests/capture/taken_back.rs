//! What capture takes away, and what it leaves: the routing that another capture needs, tables of others, what was there before something failed. It knows
//! nothing of how traffic is tried.

use std::future::{pending, poll_fn};
use std::task::Poll;

use heddle_sidecar::capture::{CaptureError, CaptureSettings, Doors, Tools};

use crate::verified::{answering, contains_all, of_root};
use crate::world::World;
use crate::{MODES, Mode, settings};

fn called(table: &str, mode: Mode) -> CaptureSettings {
    CaptureSettings { table: table.to_owned(), ..settings(mode) }
}

/// Puts rules into force without trying them.
async fn establish(tools: &Tools, wanted: CaptureSettings, stop: impl Future<Output = ()>) -> Result<(), CaptureError> {
    tools.establish(&CaptureSettings { verify: false, ..wanted }, Doors::OfAnyone, stop).await.map(drop)
}

#[tokio::test]
async fn one_capture_takes_no_routing_away_that_another_one_needs() {
    let world = World::new();
    let (tools, mut hands) = (world.tools(), world.pod_hands().await);
    tools.apply(&settings(Mode::Tproxy)).await.unwrap();
    let before = world.traces();
    tools.remove(&called("never_was", Mode::Redirect)).await.unwrap();
    assert_eq!(world.traces(), before);
    for mode in MODES {
        tools.apply(&called("other", mode)).await.unwrap();
        assert!(world.traces().contains("from all fwmark 0x4845"), "{mode:?}: {}", world.traces());
        tools.remove(&called("other", mode)).await.unwrap();
        assert_eq!(world.traces(), before, "{mode:?}");
    }
    world.foreign("table inet mine {\nchain theirs {\ntype filter hook output priority 0;\nudp dport 15053 drop\n}\n}\n");
    let with_theirs = world.traces();
    let said = hands.capture("establish", "proxy_uid: 0, table: other").await;
    contains_all(&said, &["refused: ", "the rules were taken away again"]);
    assert_eq!(world.traces(), with_theirs, "put back");
    // The last one that needs it takes it along.
    tools.apply(&called("other", Mode::Tproxy)).await.unwrap();
    tools.remove(&settings(Mode::Tproxy)).await.unwrap();
    assert!(world.traces().contains("from all fwmark 0x4845"));
    tools.remove(&called("other", Mode::Tproxy)).await.unwrap();
    assert!(!world.traces().contains("18501"), "{}", world.traces());
}

#[tokio::test]
async fn routing_that_a_capture_needs_and_lacks_is_missed() {
    let world = World::new();
    let (tools, mut hands) = (world.tools(), world.pod_hands().await);
    let _agent = answering(world.pod_hands().await, Mode::Tproxy).await;
    tools.apply(&settings(Mode::Tproxy)).await.unwrap();
    let whole = world.traces();
    for (order, told) in [
        ("-4 rule del priority 18501", "the policy routing of IPv4 is missing"),
        ("-6 route flush table 18501", "the policy routing of IPv6 is missing"),
    ] {
        world.ip(order);
        let shown = tools.show(&settings(Mode::Tproxy)).await.unwrap();
        contains_all(&shown, &["# in force, as these settings want it\n# but ", told, "`heddle capture apply` brings it back"]);
        let verified = hands.capture("verify", of_root(Mode::Tproxy)).await;
        contains_all(&verified, &["refused: ", told, "`heddle capture apply` brings it back"]);
        assert!(!verified.contains("other rules"), "it is known what is wrong: {verified}");
        tools.apply(&settings(Mode::Tproxy)).await.unwrap();
        assert_eq!(world.traces(), whole);
    }
    // Of a family that is not captured, none is missed.
    tools.remove(&settings(Mode::Tproxy)).await.unwrap();
    let of_one = CaptureSettings { ipv6: false, ..settings(Mode::Tproxy) };
    tools.apply(&of_one).await.unwrap();
    assert!(!tools.show(&of_one).await.unwrap().contains("missing"));
}

#[tokio::test]
async fn a_table_of_somebody_else_is_neither_replaced_nor_taken_away() {
    let world = World::new();
    let (tools, mut hands) = (world.tools(), world.pod_hands().await);
    world.foreign(
        "table inet filter {\nchain theirs {\ncomment \"no heddle capture, generation 1\"\ntype filter hook forward priority 0; policy drop;\n}\n}\n",
    );
    let before = world.traces();
    for mode in MODES {
        let theirs = called("filter", mode);
        let refusals = [
            tools.apply(&theirs).await.unwrap_err(),
            tools.remove(&theirs).await.unwrap_err(),
            establish(&tools, theirs.clone(), pending()).await.unwrap_err(),
        ];
        for refused in refusals {
            contains_all(&refused.to_string(), &["the table `inet filter` is somebody else's", "--table", "nothing was changed"]);
        }
        let shown = tools.show(&theirs).await.unwrap();
        assert!(shown.starts_with("# no capture is in force; this table is somebody else's"), "{shown}");
        let verified = hands.capture("verify", &format!("{}, table: filter", of_root(mode))).await;
        contains_all(&verified, &["refused: ", "the table `inet filter` is somebody else's"]);
        assert_eq!(world.traces(), before, "{mode:?}");
    }
    let slip = tools.remove(&called("filter; flush ruleset", Mode::Redirect)).await.unwrap_err();
    assert!(matches!(slip, CaptureError::Settings(_)), "{slip}");
    assert_eq!(world.traces(), before);
}

#[tokio::test]
async fn what_fails_before_its_rules_are_in_force_leaves_no_routing() {
    let world = World::new();
    let mut hands = world.pod_hands().await;
    world.ip("link set lo down");
    let down = world.traces();
    world.tools().apply(&settings(Mode::Tproxy)).await.unwrap_err();
    assert_eq!(world.traces(), down, "there is no way over loopback");
    contains_all(&hands.capture("establish", of_root(Mode::Tproxy)).await, &["refused: `ip` failed: "]);
    assert_eq!(world.traces(), down);
    world.ip("link set lo up");
    // A kernel that lacks a module takes none of a script that needs it.
    let without = world.tools_after(
        "if [ \"$1\" = -f ]; then cat > script; if grep -q 'tproxy ip' script; then echo 'Error: Could not process rule: No such file or directory' >&2; cat script >&2; exit 1; fi; exec < script; fi",
    );
    for before in [None, Some(Mode::Redirect)] {
        if let Some(mode) = before {
            without.apply(&settings(mode)).await.unwrap();
        }
        let traces = world.traces();
        for refused in [
            without.apply(&settings(Mode::Tproxy)).await.unwrap_err(),
            establish(&without, settings(Mode::Tproxy), pending()).await.unwrap_err(),
        ] {
            assert!(matches!(refused, CaptureError::Kernel { feature: "nft_tproxy", .. }), "{refused}");
            assert_eq!(world.traces(), traces, "{before:?}");
        }
    }
    // What works goes on working.
    world.tools().apply(&settings(Mode::Tproxy)).await.unwrap();
    let traces = world.traces();
    without.apply(&CaptureSettings { exclude_uids: vec![5], ..settings(Mode::Tproxy) }).await.unwrap_err();
    assert_eq!(world.traces(), traces);
}

#[tokio::test]
async fn rules_that_cannot_be_looked_at_are_looked_at_once_more_and_then_said_to_be_in_force() {
    for mode in MODES {
        let world = World::new();
        // Once the kernel has taken them, it is not asked with success: once, or ever again.
        let once = world
            .tools_after("case \"$*\" in -f*) touch taken;; *'list table'*) if [ -e taken ]; then rm taken; exit 1; fi;; esac");
        establish(&once, settings(mode), pending()).await.unwrap();
        once.remove(&settings(mode)).await.unwrap();
        let never =
            world.tools_after("case \"$*\" in -f*) touch sealed;; *'list table'*) if [ -e sealed ]; then exit 1; fi;; esac");
        let said = establish(&never, settings(mode), pending()).await.unwrap_err().to_string();
        contains_all(
            &said,
            &["`nft` failed: ", "the rules of the table `inet heddle` are in force", "`heddle capture remove --table heddle`"],
        );
        assert!(world.traces().contains("table inet heddle"));
    }
}

#[tokio::test]
async fn what_the_kernel_has_taken_is_taken_back_where_its_tool_has_failed_all_the_same() {
    for mode in MODES {
        let world = World::new();
        let before = world.traces();
        let failing = world.tools_after(&format!(
            "if [ \"$1\" = -f ]; then cat > script; if grep -q hook script; then {} -f script; exit 1; fi; exec < script; fi",
            world.tools().nft.display()
        ));
        let said = establish(&failing, settings(mode), pending()).await.unwrap_err().to_string();
        contains_all(&said, &["`nft` failed: ", "the rules were taken away again"]);
        assert_eq!(world.traces(), before, "{mode:?}");
    }
}

#[tokio::test]
async fn who_is_stopped_is_heard_after_his_turn_has_come_as_well() {
    for mode in MODES {
        let world = World::new();
        let before = world.traces();
        let mut asked = 0;
        let once_asked = poll_fn(|_| {
            asked += 1;
            if asked > 1 { Poll::Ready(()) } else { Poll::Pending }
        });
        let said = establish(&world.tools(), settings(mode), once_asked).await.unwrap_err();
        assert_eq!(said, CaptureError::Interrupted);
        let in_force = world.sees("table inet heddle");
        let said = establish(&world.tools(), settings(mode), in_force).await.unwrap_err().to_string();
        contains_all(&said, &["it was stopped by a signal", "the rules were taken away again"]);
        assert_eq!(world.traces(), before, "{mode:?}");
    }
}
