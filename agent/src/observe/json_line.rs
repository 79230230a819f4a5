//! One line of the JSON access log, written straight into the batch: no formatting machinery on the way of every request.

use std::time::Duration;

use crate::exchange::variable::POLICY;
use crate::exchange::{Door, Exchange};
use crate::http::Name;
use crate::http::chars::{HIGHS, any_word, has_byte, has_control};
use crate::http::digits::{AddressText, push_number};

/// Values are cut here, so that a huge URI cannot fill the log; the line stays JSON.
const LONGEST: usize = 2 * 1024;

/// Writes one object; keys are stable, absent values are left out.
pub fn write(out: &mut Vec<u8>, x: &Exchange, duration: Duration) {
    out.extend_from_slice(b"{\"time_ms\":");
    push_number(out, x.started_ms);
    if x.remote == x.connection.peer {
        plain(out, b",\"client\":\"", x.connection.peer_text.whole());
    } else {
        plain(out, b",\"client\":\"", AddressText::of(x.remote).whole());
    }
    text(out, b",\"listener\":\"", x.connection.listener.as_bytes());
    text(out, b",\"method\":\"", x.original.method.as_str().as_bytes());
    plain(out, b",\"scheme\":\"", x.scheme().as_bytes());
    text(out, b",\"host\":\"", x.request.authority.as_bytes());
    text(out, b",\"path\":\"", x.original.path.as_bytes());
    if let Some(query) = &x.original.query {
        text(out, b",\"query\":\"", query.as_bytes());
    }
    plain(out, b",\"protocol\":\"", x.request.version.as_str().as_bytes());
    number(out, b",\"status\":", u64::from(x.answer.status));
    plain(out, b",\"reason\":\"", x.answer.reason.flag().as_bytes());
    number(out, b",\"bytes_in\":", x.answer.bytes_received);
    number(out, b",\"bytes_out\":", x.answer.bytes_sent);
    number(out, b",\"duration_us\":", micros(duration));
    if let Some(route) = x.routed() {
        text(out, b",\"route\":\"", route.id());
        if !route.service_id().is_empty() {
            text(out, b",\"service\":\"", route.service_id().as_bytes());
        }
    }
    if let Some(peer) = x.connection.door.peer() {
        text(out, b",\"peer\":\"", peer.as_bytes());
    }
    if x.connection.door != Door::Gateway
        && let Some(policy) = x.slot::<String>(POLICY)
    {
        text(out, b",\"policy\":\"", policy.as_bytes());
    }
    if let Some(consumer) = &x.consumer {
        text(out, b",\"consumer\":\"", consumer.username.as_bytes());
    }
    attempts(out, x);
    if let Some(agent) = x.request.fields.get_known(Name::UserAgent) {
        text(out, b",\"user_agent\":\"", agent);
    }
    if let Some(trace) = &x.trace {
        plain(out, b",\"trace_id\":\"", trace.trace_id_hex().as_bytes());
        plain(out, b",\"span_id\":\"", trace.span_id_hex().as_bytes());
    }
    out.push(b'}');
}

fn attempts(out: &mut Vec<u8>, x: &Exchange) {
    let Some(last) = x.attempts.last() else { return };
    plain(out, b",\"upstream\":\"", last.endpoint.text.whole());
    number(out, b",\"attempts\":", x.attempts.len() as u64);
    if let Some(status) = last.status {
        number(out, b",\"upstream_status\":", u64::from(status));
    }
    if let Some(header) = last.header {
        number(out, b",\"upstream_us\":", micros(header));
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    push_number(out, value);
}

/// Writes `key`, which ends in an opening quote, and a value of ours that needs no escape.
fn plain(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out.push(b'"');
}

/// Writes `key`, which ends in an opening quote, and the value escaped (RFC 8259 section 7). Most values need no escape and are copied whole.
fn text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    if value.len() <= LONGEST && !any_word(value, needs_care) {
        return plain(out, key, value);
    }
    out.extend_from_slice(key);
    let value = String::from_utf8_lossy(value);
    value[..value.floor_char_boundary(LONGEST)].bytes().for_each(|byte| escape(out, byte));
    out.push(b'"');
}

/// Whether one of eight bytes is a quote, a backslash, a control or no ASCII, which may be broken UTF-8.
fn needs_care(word: u64) -> bool {
    has_control(word) || word & HIGHS != 0 || has_byte(word, b'"') || has_byte(word, b'\\')
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        control @ (0..b' ' | 0x7f) => {
            let (high, low) = (DIGITS[usize::from(control >> 4)], DIGITS[usize::from(control & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
        plain => out.push(plain),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::*;
    use crate::exchange::testing::get;

    #[test]
    fn a_line_is_json_whatever_the_client_sends() {
        let mut x = get("a.example", "/");
        x.original.path = "/\"\\\n\u{7f}ä".repeat(1_000);
        x.answer.status = 404;
        let mut line = Vec::new();
        write(&mut line, &x, Duration::from_micros(1_234));
        assert!(line.iter().all(|byte| !byte.is_ascii_control()));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["status"], &value["duration_us"]), (&404.into(), &1_234.into()));
        assert!(value["path"].as_str().unwrap().starts_with("/\"\\\n\u{7f}ä/"));
        assert!(line.len() < 2 * 6 * LONGEST);
    }
}
