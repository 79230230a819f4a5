//! What the connection-level fields of a head say together: lengths, codings, persistence. It knows neither direction of a message.

use super::Fault;
use crate::http::chars::trim;
use crate::http::{Name, Version};

/// Most options of `Connection`: each names a field that must be looked for, so many of them cost more than they weigh.
const MAX_OPTIONS: u8 = 32;

/// What the connection-level fields of a head say together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) upgrade: bool,
    close: bool,
    keep_alive: bool,
    connection_upgrade: bool,
    /// Seconds for which the sender keeps the connection at rest, as it says.
    pub(super) keeps: Option<u32>,
    /// Options of `Connection` that may still come.
    options: u8,
}

impl Default for Facts {
    fn default() -> Self {
        Facts {
            content_length: None,
            chunked: false,
            upgrade: false,
            close: false,
            keep_alive: false,
            connection_upgrade: false,
            keeps: None,
            options: MAX_OPTIONS,
        }
    }
}

impl Facts {
    /// Takes a field in.
    pub(super) fn note(&mut self, id: Name, value: &[u8]) -> Result<(), Fault> {
        match id {
            Name::ContentLength => {
                if self.content_length.is_some() {
                    return Err(Fault::Malformed("two Content-Length fields"));
                }
                self.content_length = Some(parse_length(value)?);
            }
            Name::TransferEncoding => {
                if self.chunked {
                    return Err(Fault::Malformed("two Transfer-Encoding fields"));
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Malformed("Transfer-Encoding is not `chunked`"));
                }
                self.chunked = true;
            }
            Name::Connection => self.note_connection(value)?,
            Name::Upgrade => self.upgrade = true,
            Name::KeepAlive => self.keeps = timeout_of(value).or(self.keeps),
            _ => return Ok(()),
        }
        if self.chunked && self.content_length.is_some() {
            return Err(Fault::Malformed("both Content-Length and Transfer-Encoding"));
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Fault> {
        for option in value.split(|&byte| byte == b',') {
            self.options = self.options.checked_sub(1).ok_or(Fault::Malformed("too many Connection options"))?;
            let option = trim(option);
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }

    /// Whether the connection goes on behind this message (RFC 9112 section 9.3).
    pub(super) fn persists(&self, version: Version) -> bool {
        !self.close && (version == Version::Http11 || self.keep_alive)
    }

    /// Whether the message asks for, or grants, another protocol.
    pub(super) fn upgrades(&self, version: Version) -> bool {
        self.upgrade && self.connection_upgrade && version == Version::Http11
    }

    /// Refuses a transfer coding where the version has none.
    pub(super) fn check_version(&self, version: Version) -> Result<(), Fault> {
        if self.chunked && version == Version::Http10 {
            return Err(Fault::Malformed("Transfer-Encoding in HTTP/1.0"));
        }
        Ok(())
    }
}

/// The `timeout` of a `Keep-Alive` field (RFC 2068 section 19.7.1.1); a hint, so what is malformed says nothing.
fn timeout_of(value: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"timeout=";
    let mut parts = value.split(|&byte| byte == b',').take(usize::from(MAX_OPTIONS)).map(trim);
    let found = parts.find(|part| part.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&found[NAME.len()..]).ok()?.parse().ok()
}

/// Digits only: no sign, no list, no blank, no overflow.
fn parse_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Malformed("bad Content-Length"));
    }
    Ok(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
