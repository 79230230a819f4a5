//! A disk that is full: writes are refused with 507, traffic goes on, and writes work again when there is room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::nginx::Nginx;
use heddle_integration::process::until;
use serde_json::json;

/// A small file system of its own, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    /// `None` where we may not mount.
    fn mount(at: &Path) -> Option<Small> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| Small(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_serves_on() {
    let place = heddle_integration::place::Place::new();
    let Some(disk) = Small::mount(&place.path("disk")) else {
        eprintln!("not run: mounting a file system needs more rights");
        return;
    };
    let (nginx, setup) = (Nginx::saying("on"), Setup { data_dir: Some(disk.0.clone()), ..Setup::default() });
    let heddle = Heddle::run_with(setup);
    heddle.route("all", "/*", nginx.address);
    heddle.until_status("/", 200);
    let filler = disk.0.join("filler");
    let _ = std::fs::write(&filler, vec![0; 8 * 1024 * 1024]);
    let body =
        |i: usize| json!({ "uri": format!("/{i}"), "plugins": {}, "desc": "d".repeat(200), "labels": { "l": "v".repeat(200) } });
    let mut next = 0..;
    let refused = until("the disk to be full", || {
        let i = next.next()?;
        Some(heddle.admin("PUT", &format!("/routes/r{i}"), body(i))).filter(|answer| !matches!(answer.status, 200 | 201))
    });
    assert_eq!(refused.status, 507, "{}", refused.text());
    assert_eq!(heddle.get("/").text(), "on");
    assert!(heddle.admin("GET", "/status", serde_json::Value::Null).text().contains("\"writable\":false"));
    std::fs::remove_file(filler).unwrap();
    until("writes to work again", || (heddle.admin("PUT", "/routes/again", body(0)).status < 300).then_some(()));
}
