//! Resource files on the command line: read as the file provider reads them, written as people write them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use heddle_controlplane::model::Key;
use heddle_controlplane::provider::check_files;
use heddle_controlplane::state::Content;
use serde_json::Value;

use crate::environment;

/// Most bytes taken from standard input, as for a file.
const MAX_STDIN: u64 = 64 * 1024 * 1024;

/// All resources of these files and directories; `-` is standard input.
///
/// # Errors
/// All mistakes, one a line, each with its place.
pub fn read_resources(paths: &[PathBuf]) -> Result<Vec<(Key, Value)>, String> {
    let (mut all, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        if path.as_os_str() == "-" {
            let copy = Copy::of_stdin().map_err(|error| format!("standard input: {error}"))?;
            read(&copy.0, &mut all, &mut mistakes);
        } else {
            read(path, &mut all, &mut mistakes);
        }
    }
    if mistakes.is_empty() { Ok(all) } else { Err(mistakes.join("\n")) }
}

fn read(path: &Path, all: &mut Vec<(Key, Value)>, mistakes: &mut Vec<String>) {
    if !path.exists() {
        mistakes.push(format!("{}: there is no such file or directory", path.display()));
        return;
    }
    for update in check_files(path, environment::variables()) {
        match update.content {
            Content::Whole(resources) => all.extend(resources),
            Content::Broken(faults) => mistakes.extend(faults),
            Content::Gone => mistakes.push(format!("{}: it went away while it was read", update.source)),
        }
    }
}

/// Standard input in a file that goes away again.
struct Copy(PathBuf);

impl Copy {
    fn of_stdin() -> std::io::Result<Copy> {
        let copy = Copy(environment::temporary_file());
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX_STDIN).read_to_end(&mut bytes)?;
        std::fs::write(&copy.0, bytes)?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It lies in the system's folder for such files, which is swept anyway.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Resources by collection, as a file that `apply` takes.
pub fn write_resources(resources: impl Iterator<Item = (String, Value)>) -> String {
    let mut collections: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    resources.for_each(|(collection, value)| collections.entry(collection).or_default().push(value));
    serde_saphyr::to_string(&collections).unwrap_or_default()
}
