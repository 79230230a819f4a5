//! `heddle inject`: reads files, has them injected and writes what came of it. It does not know what an injection is.

mod args;

use std::io::Read;
use std::path::{Path, PathBuf};

pub use args::InjectArgs;
use heddle_sidecar::inject::generate::{
    ServiceWishes, UnitFile, consul, nomad, systemd, without_consul, without_nomad, without_systemd,
};
use heddle_sidecar::inject::{InjectSettings, Task, transform};
use heddle_sidecar::webhook::{ConfigurationSettings, webhook_configuration};

use crate::output::say;

/// Most bytes that are read; the injection has bounds of its own.
const MOST_BYTES: u64 = 64 << 20;

/// Obeys the command.
///
/// # Errors
/// All mistakes, one a line. Nothing was written then.
pub fn run(args: InjectArgs) -> Result<(), String> {
    let settings = args.settings.settings()?;
    let (output, uninject) = (args.output.as_deref(), args.uninject);
    let service = args.service;
    let wishes = ServiceWishes {
        service: service.service,
        namespace: service.namespace,
        port: service.port,
        protocol: service.protocol,
        outbound: service.outbound,
    };
    if let Some(path) = args.file {
        let task = if uninject { Task::Uninject } else { Task::Inject(&settings) };
        return kubernetes(&path, output, task);
    }
    if let Some(path) = args.systemd.as_deref().filter(|_| uninject) {
        return without_units(&path.display().to_string(), output);
    }
    if let Some(path) = args.systemd {
        return units(&path, output, &wishes, &settings);
    }
    if let Some(path) = args.nomad {
        let (name, text) = read(&path)?;
        let done = if uninject { without_nomad(&name, &text) } else { nomad(&name, &text, &wishes, &settings) };
        return write(output, &done?);
    }
    if let Some(path) = args.consul {
        let (name, text) = read(&path)?;
        let done = if uninject { without_consul(&name, &text) } else { consul(&name, &text, &wishes, &settings) };
        return write(output, &done?);
    }
    let webhook = args.webhook;
    let settings = ConfigurationSettings {
        namespace: webhook.webhook_namespace,
        service: webhook.webhook_service,
        port: webhook.webhook_port,
        ca: webhook.webhook_ca.as_deref().map(args::pem).transpose()?,
    };
    write(output, &webhook_configuration(&settings))
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

/// Writes the files below a directory as they will lie below `/`, or prints them one after the other.
fn units(path: &Path, output: Option<&Path>, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<(), String> {
    let (name, text) = read(path)?;
    let files = systemd(&name, &text, wishes, settings)?;
    let Some(folder) = output else {
        let place = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/etc/systemd/system/{path}") };
        let all: Vec<String> = files.iter().map(|file| format!("# {}\n{}", place(&file.path), file.text)).collect();
        say(&all.join("\n"));
        return Ok(());
    };
    for file in &files {
        let path = below(folder, file);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, &file.text).map_err(failed)?;
        eprintln!("heddle: wrote {}", path.display());
    }
    let own = files.first().map(|file| below(folder, file)).unwrap_or_default();
    for other in other_sidecars(&own) {
        eprintln!(
            "heddle: warning: {} is a sidecar of this host, too: both open the same ports unless you give one of them others (agent.admin, agent.probes, inbound.address, \
             outbound) in its configuration",
            other.display()
        );
    }
    Ok(())
}

/// Units of other sidecars beside this one.
fn other_sidecars(own: &Path) -> Vec<PathBuf> {
    let beside =
        own.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_unit = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path != own && name.starts_with("heddle-") && name.ends_with(".service")
    };
    let is_ours = |path: &PathBuf| read(path).is_ok_and(|(_, text)| text.starts_with("# Written by `heddle inject --systemd "));
    let mut others: Vec<PathBuf> = beside.filter(is_unit).filter(is_ours).collect();
    others.sort();
    others
}

/// Where a file lies below a directory that stands for `/`.
fn below(folder: &Path, file: &UnitFile) -> PathBuf {
    match file.path.strip_prefix('/') {
        Some(absolute) => folder.join(absolute),
        None => folder.join("etc/systemd/system").join(&file.path),
    }
}

/// Removes what was written for a unit below a directory, or says what it is. Nothing is removed when one of the units is somebody else's.
fn without_units(name: &str, output: Option<&Path>) -> Result<(), String> {
    let files = without_systemd(name)?;
    let root = Path::new("/");
    let found = |file: &UnitFile| Some(below(output.unwrap_or(root), file)).filter(|path| output.is_none() || path.exists());
    let paths: Vec<(PathBuf, &UnitFile)> = files.iter().filter_map(|file| Some((found(file)?, file))).collect();
    if output.is_none() {
        let all: Vec<String> = paths.iter().map(|(path, _)| path.display().to_string()).collect();
        say(&(all.join("\n") + "\n"));
        return Ok(());
    }
    for (path, file) in paths.iter().filter(|(_, file)| !file.text.is_empty()) {
        let (name, text) = read(path)?;
        if !text.starts_with(&file.text) {
            return Err(format!(
                "{name}: was not written by `heddle inject`: remove it by hand, or leave it; nothing was removed"
            ));
        }
    }
    for (path, _) in &paths {
        std::fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))?;
        eprintln!("heddle: removed {}", path.display());
        if let Some(folder) = path.parent().filter(|folder| folder.extension().is_some_and(|ending| ending == "d")) {
            // Others may have drop-ins there: then it stays.
            let _ = std::fs::remove_dir(folder);
        }
    }
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
