//! The comparison with other proxies runs, gives figures that can be right, and leaves nothing behind. How fast anything is, it does not judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_integration::heddle::binary;
use heddle_integration::place::Place;
use heddle_integration::process::{Process, until};
use serde_json::Value;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/compare").join(name)
}

/// A comparison of this build with nginx whose temporary files are below `place`.
fn comparison(place: &Place, arguments: &[&str]) -> Command {
    let temporary = place.path("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let mut command = Command::new(script("run"));
    command
        .arg("--heddle")
        .arg(binary())
        .args(["--only", "heddle,nginx", "--rounds", "1", "--seconds", "1", "--tries", "1"])
        .args(arguments);
    command.env("TMPDIR", temporary);
    command
}

/// Temporary files of the comparison, and processes that have them in their command line, their environment or open.
fn left_behind(place: &Place) -> usize {
    let temporary = place.path("tmp");
    let name = temporary.display().to_string();
    let names = |bytes: &[u8]| bytes.windows(name.len()).any(|window| window == name.as_bytes());
    let belongs = |folder: &Path| {
        let said = ["cmdline", "environ"].into_iter().any(|file| names(&std::fs::read(folder.join(file)).unwrap_or_default()));
        let mut open = std::fs::read_dir(folder.join("fd")).into_iter().flatten().flatten();
        said || open.any(|file| std::fs::read_link(file.path()).is_ok_and(|path| names(path.as_os_str().as_encoded_bytes())))
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter(|entry| belongs(&entry.as_ref().unwrap().path())).count();
    std::fs::read_dir(&temporary).unwrap().count() + processes
}

#[test]
fn figures_come_out() {
    let place = Place::new();
    let json = place.path("figures.json");
    let output = comparison(&place, &["--loads", "h1,handshakes,idle", "--idle", "100", "--json"]).arg(&json).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let figure = |load: &str, proxy: &str, key: &str| {
        let value = &result["loads"][load]["proxies"][proxy][key];
        value.as_f64().unwrap_or_else(|| panic!("{load}, {proxy}, {key}: {value}\n{said}"))
    };
    for proxy in ["heddle", "nginx"] {
        for load in ["h1", "handshakes"] {
            assert!(figure(load, proxy, "requests") > 10.0, "{said}");
            assert!((1.0..100_000.0).contains(&figure(load, proxy, "cpu_us")), "{said}");
            assert!(figure(load, proxy, "p99_ms") >= figure(load, proxy, "p50_ms"), "{said}");
            assert!(figure(load, proxy, "errors") == 0.0, "{said}");
        }
        // A handshake is worth many requests on a connection that is kept; if it is not, tickets are used.
        assert!(figure("handshakes", proxy, "cpu_us") > 3.0 * figure("h1", proxy, "cpu_us"), "{said}");
        assert!(figure("idle", proxy, "connections") == 100.0, "{said}");
    }
    assert!(result["loads"]["h1"]["ratio"].as_f64().unwrap() > 0.1, "{said}");
    let report = Command::new(script("report")).arg(&json).output().unwrap();
    let tables = String::from_utf8_lossy(&report.stdout);
    assert!(report.status.success() && tables.contains("| HTTP/1.1, 64 connections, 60 B |"), "{tables}");
    assert_eq!(left_behind(&place), 0, "{said}");
}

#[test]
fn proxies_do_what_each_load_wants_of_them() {
    let place = Place::new();
    let loads = "h1,grpc,routes,plugins,websocket,latency";
    let output = comparison(&place, &["--prove", "--only", "heddle,nginx,haproxy", "--loads", loads]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("plugins: heddle, nginx, haproxy, heddle-base"), "{said}");
    assert_eq!(left_behind(&place), 0, "{said}");
}

#[test]
fn an_interrupt_stops_everything_that_was_started() {
    let place = Place::new();
    let mut process = Process::start(comparison(&place, &["--loads", "h1"]), place.path("log"));
    // nginx is the last that is started.
    let folder = || std::fs::read_dir(place.path("tmp")).unwrap().next()?.ok();
    until("the proxies", || folder()?.path().join("nginx-access.log").exists().then_some(()));
    assert!(left_behind(&place) > 3, "{}", process.output());
    process.signal("INT");
    assert_eq!(process.wait().code(), Some(130), "{}", process.output());
    assert_eq!(left_behind(&place), 0, "{}", process.output());
}
