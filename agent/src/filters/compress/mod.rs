//! What `gzip`, `brotli` and `zstd` share: who may be given a compressed response, which response may be, and the body on its way through a coder.

mod accept;
mod coded;
#[cfg(test)]
mod codings;
mod config;
mod rules;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

pub(super) use coded::{Coder, CoderError, spare};
pub(super) use config::{HttpVersion, Types};
pub(super) use rules::{Rules, encoded};

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

impl Coding {
    /// Its registered name.
    pub(super) fn token(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}
