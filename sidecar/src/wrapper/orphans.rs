//! The duty of the first process of a container: to bury those whose parents have gone. It leaves the wrapper's own children to those who wait for them.

use rustix::process::{Pid, WaitOptions, getpid, waitpid};

/// Most processes that are looked at in one go; the next signal brings the rest.
const MOST: usize = 10_000;

/// Buries orphans that have ended, when this is process 1: nobody else gets any. `own` are children that somebody waits for.
pub(super) fn bury(own: &[Option<Pid>]) {
    if getpid() != Pid::INIT {
        return;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten().take(MOST) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        let stat = || std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if !own.contains(&Some(pid)) && is_dead_child_of_init(&stat()) {
            // An error means that it is buried already.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// By `/proc/PID/stat` (proc_pid_stat(5)): state and parent stand behind the name, which may contain anything but ends with the last parenthesis.
fn is_dead_child_of_init(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z 1 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_children_of_process_1_are_buried() {
        assert!(is_dead_child_of_init("77 (sh) Z 1 77 77 0 -1"));
        assert!(is_dead_child_of_init("77 (a) S 2 (b) Z 1 77"));
        for stat in ["77 (sh) S 1 77", "77 (sh) Z 12 77", "77 () Z 1 x) S 1 77", ""] {
            assert!(!is_dead_child_of_init(stat), "{stat}");
        }
    }
}
