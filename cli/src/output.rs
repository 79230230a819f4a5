//! What commands say on standard output, and how they say it. A reader that goes away early (`| head`) is no failure.

use std::io::Write;

/// Prints text as it is.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to be told.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A span in its largest unit.
pub fn ago(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..=119 => format!("{seconds}s"),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}
