//! What commands say on standard output. A reader that goes away early (`| head`) is no failure.

use std::io::Write;

/// Prints text as it is.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to be told.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
