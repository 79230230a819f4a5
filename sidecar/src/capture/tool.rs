//! Runs one tool of the system to its end and gives back what it said. It knows nothing of what tools are asked.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::trouble::CaptureError;

/// How long one call of a tool may take; each is a handful of messages to the kernel.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a tool: what it wrote, or its complaint.
pub(super) async fn run(
    tool: &'static str,
    program: &Path,
    arguments: &[impl AsRef<std::ffi::OsStr>],
    input: String,
    missing: CaptureError,
) -> Result<Result<String, String>, CaptureError> {
    let failed = |error: std::io::Error| CaptureError::Failed { tool, said: error.to_string() };
    let spawned = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // The keyboard stops us, not what we are in the midst of.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing),
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
