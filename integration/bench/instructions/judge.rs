//! Comparing counts with the baseline: what is worse is refused, what is better is to be committed. Before that it proves that it can refuse.

use std::process::ExitCode;
use std::sync::Mutex;

use super::baseline::{Baseline, here};
use super::callgrind;
use super::cases::{self, Case};

/// A count above this share of the baseline is refused.
const WORSE: f64 = 1.05;
/// A count below this share is worth committing. Where strings lie in memory moves some counts by up to three per cent.
const BETTER: f64 = 0.96;
/// Instructions that never matter, so that the smallest cases do not fail over nothing: the same sources built in another folder, where the compiler
/// orders and inlines a little otherwise, moved them by forty.
const SLACK: f64 = 48.0;
/// Times that a count is taken. Tables are seeded anew in every process: where keys fall together, finding a route costs more, by 5.3 % at most as far as was
/// seen. It never costs less than where they lie apart, so the least is what the code takes.
const TAKEN: usize = 5;

/// What is said of one count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
    New,
}

fn verdict(before: Option<f64>, now: f64) -> Verdict {
    match before {
        None => Verdict::New,
        Some(before) if now > (before * WORSE).max(before + SLACK) => Verdict::Worse,
        Some(before) if now < (before * BETTER).min(before - SLACK) => Verdict::Better,
        Some(_) => Verdict::Same,
    }
}

/// The count of a case without what is around it.
pub fn net(case: &Case, measured: &[(&'static str, f64)]) -> f64 {
    let of = |name: &str| measured.iter().find(|(other, _)| *other == name).map(|(_, count)| *count);
    of(case.name).unwrap_or_default() - case.less.and_then(of).unwrap_or_default()
}

/// The least counts of cases, without what is around them.
pub fn least(cases: &[Case]) -> Vec<(&'static str, f64)> {
    let mut least = taken(cases);
    (1..TAKEN).for_each(|_| lower(&mut least, taken(cases)));
    nets(cases, &least)
}

/// Counts of cases without what is around them. Those that are worse than the baseline are taken again, as they may be over nothing.
fn measure(cases: &[Case], baseline: &Baseline) -> Vec<(&'static str, f64)> {
    let mut least = taken(cases);
    for _ in 1..TAKEN {
        let worse = |case: &&Case| verdict(baseline.get(case.name), net(case, &least)) == Verdict::Worse;
        let again: Vec<&str> = cases.iter().filter(worse).flat_map(|case| [Some(case.name), case.less]).flatten().collect();
        if again.is_empty() {
            break;
        }
        lower(&mut least, taken(cases.iter().filter(|case| again.contains(&case.name))));
    }
    nets(cases, &least)
}

fn nets(cases: &[Case], measured: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
    cases.iter().map(|case| (case.name, net(case, measured))).collect()
}

fn lower(least: &mut [(&'static str, f64)], again: Vec<(&'static str, f64)>) {
    for (name, count) in again {
        let before = least.iter_mut().find(|(other, _)| *other == name).unwrap();
        before.1 = before.1.min(count);
    }
}

/// Counts cases once with all that is around them, as many at a time as there are processors.
fn taken<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Vec<(&'static str, f64)> {
    let cases: Vec<&Case> = cases.into_iter().collect();
    let waiting = Mutex::new(cases.iter().enumerate());
    let counted = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some((place, case)) = waiting.lock().unwrap().next() else { return };
            let count = callgrind::count(case);
            counted.lock().unwrap().push((place, case.name, count));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut counted = counted.into_inner().unwrap();
    counted.sort_by_key(|(place, ..)| *place);
    counted.into_iter().map(|(_, name, count)| (name, count)).collect()
}

/// A loop that is six per cent longer must be refused and one that is four per cent longer must not: the whole way from the process under callgrind to the verdict.
fn prove() {
    let measured = taken(&cases::yardsticks());
    let of = |name: &str| measured.iter().find(|(other, _)| *other == name).map(|(_, count)| *count).unwrap();
    let (base, four, six) = (of("yardstick/1000"), of("yardstick/1040"), of("yardstick/1060"));
    assert_eq!(verdict(Some(base), four), Verdict::Same, "{base} and {four} differ by less than 5 %");
    assert_eq!(verdict(Some(base), six), Verdict::Worse, "{base} and {six} differ by more than 5 %");
    assert_eq!(verdict(Some(six), base), Verdict::Better, "{six} was more than {base}");
}

/// Measures, shows and judges. `whole` says that all cases are there, so that a baseline which names others is wrong.
pub fn check(cases: &[Case], whole: bool) -> ExitCode {
    prove();
    let (baseline, here) = (Baseline::read(), here());
    let measured = measure(cases, &baseline);
    let judged: Vec<_> =
        measured.iter().map(|(name, now)| (*name, baseline.get(name), *now, verdict(baseline.get(name), *now))).collect();
    println!("{:<36} {:>10} {:>10} {:>8}", "instructions of", "baseline", "now", "");
    for (name, before, now, verdict) in &judged {
        let (before_text, change) = match before {
            Some(before) => (format!("{before:.0}"), format!("{:+.1} %", (now / before - 1.0) * 100.0)),
            None => ("-".to_owned(), String::new()),
        };
        let word = match verdict {
            Verdict::Same => "",
            Verdict::Better => "better",
            Verdict::Worse => "WORSE",
            Verdict::New => "NEW",
        };
        println!("{name:<36} {before_text:>10} {now:>10.0} {change:>8} {word}");
    }
    let has = |wanted: Verdict| judged.iter().any(|(.., verdict)| *verdict == wanted);
    let gone: Vec<_> =
        baseline.counts.iter().filter(|(name, _)| whole && measured.iter().all(|(other, _)| other != name)).collect();
    let bless = "run `integration/bench/instructions/run bless` and commit baseline.json";
    if has(Verdict::Better) {
        println!("Some counts are better: {bless}, so that nobody loses them again.");
    }
    if has(Verdict::New) || !gone.is_empty() {
        println!("The cases are not those of the baseline (no longer there: {gone:?}): {bless}.");
        return ExitCode::FAILURE;
    }
    if !has(Verdict::Worse) {
        return ExitCode::SUCCESS;
    }
    if here != baseline.place {
        println!(
            "Worse, but the baseline was taken elsewhere, so this only warns.\n  baseline: {}\n  here:     {here}",
            baseline.place
        );
        return ExitCode::SUCCESS;
    }
    println!(
        "Counts marked WORSE are more than 5 % above the baseline: `integration/bench/instructions/run profile CASE` shows where they are.\n\
         If a cost buys something that is worth it: {bless}, and say in the message what it buys."
    );
    ExitCode::FAILURE
}
