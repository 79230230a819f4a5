//! The Python in which clients of others are: gRPC's own, and one of the SPIFFE Workload API.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::heddle::binary;

/// The Python that knows them; made at the first use.
pub fn interpreter() -> PathBuf {
    let target = binary().ancestors().nth(2).unwrap().to_owned();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python.sh");
    let made = Command::new("bash").arg(script).env("CARGO_TARGET_DIR", &target).status().unwrap();
    assert!(made.success(), "the virtual environment could not be made");
    target.join("python/bin/python")
}

/// A command that runs one of the scripts of the stories.
pub fn script(name: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg(path(name));
    command
}

/// Where a script of the stories is.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}
