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
            Content::Whole(resources) => all.extend(resources.into_iter().map(|(key, value)| (key, own(value)))),
            Content::Broken(faults) => mistakes.extend(faults),
            Content::Gone => mistakes.push(format!("{}: it went away while it was read", update.source)),
        }
    }
}

/// A resource as its author wrote it: the file provider names `r1` of a file `r1@file`, and the store adds times.
fn own(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| !matches!(name.as_str(), "create_time" | "update_time"));
        if let Some(Value::String(id)) = fields.get_mut("id")
            && let Some((local, _)) = id.rsplit_once('@')
        {
            *id = local.to_owned();
        }
    }
    value
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
    resources.for_each(|(collection, value)| collections.entry(collection).or_default().push(own(value)));
    yaml(&collections)
}

/// A value as YAML.
pub fn yaml(value: &impl serde::Serialize) -> String {
    // JSON values are always YAML values too.
    serde_saphyr::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_read_from_a_file_does_not_bear_the_name_of_its_provider() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        std::fs::write(&path, "routes: [ { id: r1, uri: /a } ]").unwrap();
        let resources = read_resources(&[path]).unwrap();
        assert_eq!((resources[0].0.to_string(), &resources[0].1), ("routes/r1".to_owned(), &json!({ "id": "r1", "uri": "/a" })));
    }

    #[test]
    fn what_is_written_can_be_applied() {
        let stored = json!({ "id": "r1@file", "uri": "/a", "create_time": 1, "update_time": 2 });
        let text = write_resources(std::iter::once(("routes".to_owned(), stored)));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.yaml");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(read_resources(&[path]).unwrap()[0].1, json!({ "id": "r1", "uri": "/a" }), "{text}");
    }
}
