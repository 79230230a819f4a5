//! One case in a process of its own under callgrind, whose counter runs only inside [`crate::subject::counted`].

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::cases::Case;

/// Functions that a profile shows.
const SHOWN: usize = 50;
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
    let output = Command::new("callgrind_annotate").args(["--threshold=100", "--auto=no"]).arg(&out).output().unwrap();
    assert!(output.status.success(), "callgrind_annotate: {}", String::from_utf8_lossy(&output.stderr));
    let mut functions = BTreeMap::<String, u64>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((count, name)) = entry(line) {
            *functions.entry(name.to_owned()).or_default() += count;
        }
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| Reverse(*count));
    for (name, count) in functions.iter().take(SHOWN) {
        println!("{:>8.0}  {name}", *count as f64 / case.rounds as f64);
    }
}

/// Count and function of a line such as `1,234 (5.00%)  file.rs:function [object]`. One function has a line for each file that it has code from.
fn entry(line: &str) -> Option<(u64, &str)> {
    let (count, rest) = line.trim_start().split_once(" (")?;
    let (_, place) = rest.split_once("%)")?;
    let (_, name) = place.trim_start().split_once(':')?;
    let name = name.split(" [/").next().unwrap_or(name);
    Some((count.replace(',', "").parse().ok()?, name))
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
