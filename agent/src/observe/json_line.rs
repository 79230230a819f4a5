//! One line of the JSON access log, written straight into the batch: no formatting machinery on the way of every request.

use std::time::Duration;

use crate::exchange::Exchange;
use crate::http::digits::{push_address, push_number};

/// Values are cut here, so that a huge URI cannot fill the log; the line stays JSON.
const LONGEST: usize = 2 * 1024;

/// Writes one object; keys are stable, absent values are left out.
pub fn write(out: &mut Vec<u8>, x: &Exchange, duration: Duration) {
    out.extend_from_slice(b"{\"time_ms\":");
    push_number(out, x.started_ms);
    out.extend_from_slice(b",\"client\":\"");
    push_address(out, x.remote);
    out.push(b'"');
    text(out, b",\"listener\":\"", &x.connection.listener);
    text(out, b",\"method\":\"", x.original.method.as_str());
    text(out, b",\"scheme\":\"", x.scheme());
    text(out, b",\"host\":\"", &x.request.authority);
    text(out, b",\"path\":\"", &x.original.path);
    if let Some(query) = &x.original.query {
        text(out, b",\"query\":\"", query);
    }
    text(out, b",\"protocol\":\"", x.request.version.as_str());
    number(out, b",\"status\":", u64::from(x.answer.status));
    text(out, b",\"reason\":\"", x.answer.reason.flag());
    number(out, b",\"bytes_in\":", x.answer.bytes_received);
    number(out, b",\"bytes_out\":", x.answer.bytes_sent);
    number(out, b",\"duration_us\":", micros(duration));
    if let Some(route) = &x.route {
        text(out, b",\"route\":\"", &route.id);
        if !route.service_id.is_empty() {
            text(out, b",\"service\":\"", &route.service_id);
        }
    }
    if let Some(consumer) = &x.consumer {
        text(out, b",\"consumer\":\"", &consumer.username);
    }
    attempts(out, x);
    if let Some(agent) = x.request.fields.get_str("user-agent") {
        text(out, b",\"user_agent\":\"", agent);
    }
    if let Some(trace) = &x.trace {
        text(out, b",\"trace_id\":\"", &trace.trace_id_hex());
        text(out, b",\"span_id\":\"", &trace.span_id_hex());
    }
    out.push(b'}');
}

fn attempts(out: &mut Vec<u8>, x: &Exchange) {
    let Some(last) = x.attempts.last() else { return };
    out.extend_from_slice(b",\"upstream\":\"");
    push_address(out, last.address);
    number(out, b"\",\"attempts\":", x.attempts.len() as u64);
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

/// Writes `key`, which ends in an opening quote, and the value escaped (RFC 8259 section 7). Most values need no escape and are copied whole.
fn text(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    let value = &value[..value.floor_char_boundary(LONGEST)];
    if value.bytes().all(is_plain) {
        out.extend_from_slice(value.as_bytes());
    } else {
        value.bytes().for_each(|byte| escape(out, byte));
    }
    out.push(b'"');
}

fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\' && byte != 0x7f
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        plain if is_plain(plain) => out.push(plain),
        control => {
            let (high, low) = (DIGITS[usize::from(control >> 4)], DIGITS[usize::from(control & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
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
