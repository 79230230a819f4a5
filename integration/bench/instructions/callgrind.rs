//! One case in a process of its own under callgrind, whose counter runs only inside [`crate::subject::counted`].

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cases::Case;

/// The function whose inside is counted.
const COUNTED: &str = "--toggle-collect=*subject::counted*";

/// Instructions per round, in user space.
pub fn count(case: &Case) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("callgrind.out");
    run(case, &out, &[]);
    let text = fs::read_to_string(&out).unwrap();
    let total = text.lines().filter_map(|line| line.strip_prefix("totals: ")).find_map(|total| total.trim().parse::<u64>().ok());
    let total = total.filter(|total| *total > 0).unwrap_or_else(|| panic!("nothing was counted for `{}`", case.name));
    total as f64 / case.rounds as f64
}

/// Shows which functions the instructions of a case are in.
pub fn profile(case: &Case) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("callgrind.out");
    // Lines would tell inlined functions apart, which nobody calls.
    run(case, &out, &["--dump-line=no"]);
    let status = Command::new("callgrind_annotate").arg(&out).status().unwrap();
    assert!(status.success(), "callgrind_annotate: {status}");
}

fn run(case: &Case, out: &Path, more: &[&str]) {
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", COUNTED])
        .args(more)
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["once", case.name])
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("valgrind does not start: {error}; install the package `valgrind`"));
    assert!(status.success(), "`{}` has failed under callgrind: {status}", case.name);
}
