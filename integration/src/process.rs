//! A child process with its output in a file; stopped by its own pid when dropped.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a story fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of output that a failed story shows of each process.
const TAIL: usize = 40;

pub struct Process {
    child: Child,
    pub log: PathBuf,
    name: String,
}

impl Process {
    /// Starts a command; standard output and error go to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Process { child, log, name }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by name, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name} {}", self.name);
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end:\n{}", self.name, self.output());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            eprintln!("---- end of the output of {} ----\n{}", self.name, lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
}

/// Asks again until there is an answer, at most [`PATIENCE`]; `what` is what is waited for.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "still waiting for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
