//! The only place that looks at the process: environment variables, host name, cores, user. Everything else gets these as values.
#![expect(clippy::disallowed_methods, reason = "this is the place where the environment is read")]

use std::sync::Arc;

use heddle_node::config::Environment;
use heddle_node::notify::{self, Notifier};

/// Variables of the process, for `${NAME}` in configuration files.
pub fn variables() -> Arc<dyn Environment + Send + Sync> {
    Arc::new(|name: &str| std::env::var(name).ok())
}

/// The host name, which is the default node id.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String = name.trim().chars().filter(|character| !character.is_whitespace() && !character.is_control()).collect();
    if name.is_empty() { "heddle".to_owned() } else { name }
}

/// Cores that this process may use, the default number of workers.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Who types the command, for the history of changes.
pub fn author() -> String {
    let user =
        ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    user.map_or_else(|| "cli".to_owned(), |user| format!("cli:{user}"))
}

/// This program, to be started again.
pub fn program() -> std::io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

/// The user that this process runs as.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The service manager that started this process, when there is one.
pub fn notifier() -> Notifier {
    Notifier::new(std::env::var(notify::VARIABLE).ok())
}

/// A file of our own for what comes on standard input.
pub fn temporary_file() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("heddle-stdin-{}.yaml", std::process::id()))
}
