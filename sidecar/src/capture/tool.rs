//! Runs one tool of the system to its end and gives back what it said. It knows nothing of what tools are asked.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::trouble::CaptureError;

/// How long one call of a tool may take; each is a handful of messages to the kernel.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where tools for administrators are, which the paths of services and of other users leave out.
const ELSEWHERE: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Runs a tool: what it wrote, or its complaint.
pub(super) async fn run(
    tool: &'static str,
    program: &Path,
    arguments: &[impl AsRef<OsStr>],
    input: String,
    missing: CaptureError,
) -> Result<Result<String, String>, CaptureError> {
    let failed = |error: io::Error| CaptureError::Failed { tool, said: error.to_string() };
    let mut child = match spawn(program, arguments) {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing),
        Err(error) => return Err(failed(error)),
    };
    let stdin = child.stdin.take();
    let work = async {
        let feed = async move {
            if let Some(mut stdin) = stdin {
                // A tool that ends before it has read everything says why by itself.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        tokio::join!(feed, child.wait_with_output()).1
    };
    let output = tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| CaptureError::TimedOut { tool, seconds: PATIENCE.as_secs() })?
        .map_err(failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

/// Starts it, from the path of this process or from where it is otherwise.
fn spawn(program: &Path, arguments: &[impl AsRef<OsStr>]) -> io::Result<Child> {
    let is_name = program.components().count() == 1;
    let elsewhere = ELSEWHERE.iter().filter(|_| is_name).map(|folder| Path::new(folder).join(program));
    let mut spawned = Err(io::Error::from(io::ErrorKind::NotFound));
    for program in std::iter::once(program.to_owned()).chain(elsewhere) {
        spawned = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The keyboard stops us, not what we are in the midst of.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        if !spawned.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            break;
        }
    }
    spawned
}
