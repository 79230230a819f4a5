//! `heddle inject`: reads files, has them injected and writes what came of it. It does not know what an injection is.

mod args;

use std::io::Read;
use std::path::Path;

pub use args::InjectArgs;
use heddle_sidecar::inject::{Task, transform};

use crate::output::say;

/// Most bytes that are read; the injection has bounds of its own.
const MOST_BYTES: u64 = 64 << 20;

/// Obeys the command.
///
/// # Errors
/// All mistakes, one a line. Nothing was written then.
pub fn run(args: InjectArgs) -> Result<(), String> {
    let InjectArgs { file, output, uninject, settings, .. } = args;
    let settings = settings.settings()?;
    let Some(path) = file else { return Err("nothing to do".to_owned()) };
    let task = if uninject { Task::Uninject } else { Task::Inject(&settings) };
    kubernetes(&path, output.as_deref(), task)
}

fn kubernetes(path: &Path, output: Option<&Path>, task: Task<'_>) -> Result<(), String> {
    let (name, text) = read(path)?;
    let work = transform(&name, &text, task).map_err(|mistakes| mistakes.join("\n"))?;
    for warning in &work.warnings {
        eprintln!("heddle: warning: {warning}");
    }
    for title in &work.opted_out {
        eprintln!("heddle: {title} does not want a sidecar (heddle.io/inject)");
    }
    write(output, &work.text)?;
    eprintln!("heddle: {} workloads changed, {} as they should be already", work.changed, work.unchanged);
    Ok(())
}

/// A file, or standard input, as text.
fn read(path: &Path) -> Result<(String, String), String> {
    let name = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| format!("{name}: {error}"))?)
    };
    let size = source.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("{name}: {error}"))?;
    if size as u64 > MOST_BYTES {
        return Err(format!("{name}: expected at most {MOST_BYTES} bytes"));
    }
    Ok((name, text))
}

fn write(output: Option<&Path>, text: &str) -> Result<(), String> {
    match output {
        Some(path) => std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display())),
        None => {
            say(text);
            Ok(())
        }
    }
}
