//! Counts the instructions of the hot path under callgrind and compares them with `baseline.json`, which needs no quiet machine. `run` beside this file builds and starts it.
//!
//! `check [GROUP…]` compares and fails when a count is more than 5 % worse, `bless` writes the baseline, `profile CASE` shows where the
//! instructions are, `time [GROUP…]` shows nanoseconds (on a quiet machine), `once CASE` is what runs under callgrind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod baseline;
mod callgrind;
mod cases;
mod judge;
mod subject;

use std::process::ExitCode;

use baseline::Baseline;
use cases::Case;
use subject::{counted, drive, unseen};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rounds before anything is counted: pools are filled and caches warm then.
const WARM_UP: usize = 64;
/// Rounds of which the shortest counts when time is measured.
const TIMED: usize = 20_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let rest = words.get(1..).unwrap_or_default();
    match words.first().map(String::as_str) {
        Some("once") if rest.len() == 1 => once(&rest[0]),
        Some("check") => return judge::check(&chosen(rest), rest.is_empty()),
        Some("bless") if rest.is_empty() => Baseline::of(judge::least(&cases::all())).write(),
        Some("profile") if rest.len() == 1 => callgrind::profile(&called(&rest[0])),
        Some("time") => time(&chosen(rest)),
        _ => {
            eprintln!("usage: run check [GROUP…] | bless | profile CASE | time [GROUP…] | once CASE");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// The cases whose names begin with one of these words, and those that are taken off them; all without a word.
fn chosen(words: &[String]) -> Vec<Case> {
    let mut all = cases::all();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.starts_with(word.as_str()));
    let less: Vec<_> = all.iter().filter(|case| wanted(case.name)).filter_map(|case| case.less).collect();
    all.retain(|case| wanted(case.name) || less.contains(&case.name));
    all
}

fn called(name: &str) -> Case {
    let known = || cases::all().iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
    cases::find(name).unwrap_or_else(|| panic!("no case is called `{name}`; there are {}", known()))
}

fn once(name: &str) {
    let case = called(name);
    let mut subject = (case.make)();
    drive(&mut *subject, WARM_UP, unseen);
    drive(&mut *subject, case.rounds, counted);
}

fn time(cases: &[Case]) {
    let measured: Vec<(&str, f64)> = cases
        .iter()
        .map(|case| {
            let mut subject = (case.make)();
            drive(&mut *subject, WARM_UP, unseen);
            (case.name, subject::time(&mut *subject, TIMED))
        })
        .collect();
    for case in cases {
        println!("{:<36} {:>8.0} ns", case.name, judge::net(case, &measured));
    }
}
