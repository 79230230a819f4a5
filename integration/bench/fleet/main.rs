//! How fast a change reaches the last of many nodes and what it costs: a real control plane, simulated agents or Envoys on real streams.
//!
//! `cargo build --release --workspace && cargo run --release -p heddle-integration --example fleet`
#![allow(missing_docs)]

use std::process::ExitCode;

use heddle_integration::fleet::dialect::Dialect;
use heddle_integration::fleet::ledger::Reach;
use heddle_integration::fleet::report::{self, Row};
use heddle_integration::fleet::wire::Form;
use heddle_integration::fleet::writer::{CHOSEN, Size, Subject};
use heddle_integration::fleet::{Fleet, block, pin_generator};
use serde_json::{Value, json};

const USAGE: &str = "\
fleet [--dialect heddle|envoy] [--sotw] [--agents 1000] [--routes 10000] [--endpoints 10000] [--rate 100] [--seconds 60]
      [--change both|routes|endpoints] [--only run|table] [--json] [--unpinned]

Starts and stops the control plane by itself; HEDDLE_BINARY names another binary. Control plane and generator have one core
each, unless --unpinned. --only run leaves the table of proportions out, --only table leaves the run out. --change says
what the run changes: both in turn, or one of them alone.

--dialect says whose types the simulated nodes ask for, and how:
  heddle   all of ours, as agents do, by delta (the default)
  envoy    Cluster and Listener as wildcards, ClusterLoadAssignment and RouteConfiguration by the names that stand there, in the order of Envoy 1.40,
           by delta, or by state of the world with --sotw. All routes are one RouteConfiguration, which is sent whole whenever one of them changes:
           at 10,000 routes that is megabytes for each node, so the table changes routes and endpoints apart";

/// Changes for one row of the table, and how many a second: few enough that each is delivered by itself. Where one costs little, more.
const EVERYBODY: (usize, f64) = (40, 4.0);
const ONE: (usize, f64) = (200, 20.0);
/// What the table compares the full size with.
const FEW_ROUTES: usize = 100;
const FEW_AGENTS: usize = 10;

/// The same for routes of Envoys: all routes together are told again.
const WHOLE_TABLE: (usize, f64) = (10, 0.25);

struct Options {
    dialect: Dialect,
    agents: usize,
    size: Size,
    rate: f64,
    seconds: f64,
    change: Subject,
    run: bool,
    table: bool,
    json: bool,
    pinned: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut sotw = false;
        let mut options = Options {
            dialect: Dialect::Heddle,
            agents: 1000,
            size: Size { routes: 10_000, endpoints: 10_000 },
            rate: 100.0,
            seconds: 60.0,
            change: Subject::Everything,
            run: true,
            table: true,
            json: false,
            pinned: true,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number =
                |text: String| text.parse::<usize>().ok().filter(|n| *n > 0).ok_or(format!("{text} is no number above 0"));
            match word.as_str() {
                "--dialect" => match value()?.as_str() {
                    "heddle" => options.dialect = Dialect::Heddle,
                    "envoy" => options.dialect = Dialect::Envoy(Form::Delta),
                    other => return Err(format!("--dialect {other}: expected heddle or envoy")),
                },
                "--sotw" => sotw = true,
                "--agents" => options.agents = number(value()?)?,
                "--routes" => options.size.routes = number(value()?)?,
                "--endpoints" => options.size.endpoints = number(value()?)?,
                "--rate" => options.rate = number(value()?)? as f64,
                "--seconds" => options.seconds = number(value()?)? as f64,
                "--json" => options.json = true,
                "--unpinned" => options.pinned = false,
                "--change" => match value()?.as_str() {
                    "both" => options.change = Subject::Everything,
                    "routes" => options.change = Subject::Routes,
                    "endpoints" => options.change = Subject::Endpoints,
                    other => return Err(format!("--change {other}: expected both, routes or endpoints")),
                },
                "--only" => match value()?.as_str() {
                    "run" => options.table = false,
                    "table" => options.run = false,
                    other => return Err(format!("--only {other}: expected run or table")),
                },
                _ => return Err(format!("{word} is not known")),
            }
        }
        match options.dialect {
            Dialect::Envoy(_) if sotw => options.dialect = Dialect::Envoy(Form::Sotw),
            Dialect::Heddle if sotw => {
                return Err("--sotw: our own types are asked for by delta; expected --dialect envoy".to_owned());
            }
            _ => {}
        }
        Ok(options)
    }

    /// What the table changes, each by itself.
    fn subjects(&self) -> &'static [(&'static str, Subject)] {
        match self.dialect {
            Dialect::Heddle => &[("routes and endpoints", Subject::Everything)],
            Dialect::Envoy(_) => &[("endpoints", Subject::Endpoints), ("a route", Subject::Routes)],
        }
    }
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let pinned = if options.pinned { pin_generator() } else { Ok(()) };
    match pinned.and_then(|()| block(measure(&options))) {
        Ok((run, rows)) if options.json => println!("{:#}", json!({ "run": run, "proportions": rows })),
        Ok((run, rows)) => {
            if !run.is_null() {
                println!("{}", report::run_text(&run));
            }
            if !rows.is_null() {
                println!("{}", report::rows_text(&rows));
            }
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn say(text: &str) {
    eprintln!("{text}");
}

/// The run and the table; both use the same large control plane.
async fn measure(options: &Options) -> Result<(Value, Value), String> {
    let mut rows = Vec::new();
    if options.table {
        let size = Size { routes: FEW_ROUTES.min(options.size.routes), ..options.size };
        let fleet = start(size, options).await?;
        grow(&fleet, FEW_AGENTS.min(options.agents)).await?;
        rows.extend(everything(&fleet, options).await?);
        grow(&fleet, options.agents).await?;
        rows.extend(everything(&fleet, options).await?);
    }
    let fleet = start(options.size, options).await?;
    if options.table {
        grow(&fleet, FEW_AGENTS.min(options.agents)).await?;
        rows.extend(everything(&fleet, options).await?);
    }
    let loading = grow(&fleet, options.agents).await?;
    let loaded = fleet.memory().0;
    let mut run = Value::Null;
    if options.run {
        say(&format!("{} changes a second for {} s ...", options.rate, options.seconds));
        let changes = (options.rate * options.seconds) as usize;
        run = report::json(&fleet.measure(options.change, options.rate, changes).await?);
        run["memory_mib"] = report::memory(&fleet, loaded);
        run["load_seconds"] = json!((loading.as_secs_f64() * 100.0).round() / 100.0);
    }
    if options.table {
        rows.extend(everything(&fleet, options).await?);
        rows.push(row("one agent's listener", &fleet, Subject::OneListener, Reach::One(CHOSEN)).await?);
    }
    match fleet.stale() {
        0 => Ok((run, if options.table { report::rows_json(&rows) } else { Value::Null })),
        stale => Err(format!("{stale} times an agent does not have the newest content of what was changed")),
    }
}

async fn start(size: Size, options: &Options) -> Result<Fleet, String> {
    say(&format!("a control plane with {} routes and {} endpoints ...", size.routes, size.endpoints));
    Fleet::start(size, options.dialect, options.pinned).await
}

async fn grow(fleet: &Fleet, agents: usize) -> Result<std::time::Duration, String> {
    say(&format!("{agents} agents ..."));
    let told = |entered: usize| {
        if entered.is_multiple_of(250) {
            say(&format!("  {entered} have everything"));
        }
    };
    fleet.grow(agents, told).await
}

async fn everything(fleet: &Fleet, options: &Options) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (what, subject) in options.subjects() {
        rows.push(row(what, fleet, *subject, Reach::All).await?);
    }
    Ok(rows)
}

async fn row(what: &'static str, fleet: &Fleet, subject: Subject, reach: Reach) -> Result<Row, String> {
    let (changes, rate) = match (reach, subject) {
        (Reach::One(_), _) => ONE,
        (_, Subject::Routes) => WHOLE_TABLE,
        _ => EVERYBODY,
    };
    say(&format!("{changes} changes of {what}, {rate} a second ..."));
    Ok(Row { what, reach, measured: fleet.measure(subject, rate, changes).await? })
}
