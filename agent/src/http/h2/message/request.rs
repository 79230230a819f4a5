//! Requests that come: what HTTP/1 would read otherwise never gets beyond here (RFC 9113 sections 8.2 and 8.3.1). It knows no streams.

use super::read::Judge;
use super::{BlockFault, RequestFacts};
use crate::http::chars::is_token;
use crate::http::h1::{Fault, HeadLimits, is_authority};
use crate::http::h2::hpack::{Class, Decoder, Field, is_trim};
use crate::http::{Method, Name, RequestHead, Version};

/// A head that is being read.
struct Reading<'a> {
    judge: Judge,
    max_target: usize,
    lets_connect: bool,
    lets_any_authority: bool,
    head: &'a mut RequestHead,
    has_method: bool,
    has_scheme: bool,
    has_path: bool,
    has_authority: bool,
    has_host: bool,
    cookies: usize,
    expects_continue: bool,
}

/// Reads a request head into `head`, which is empty. `ended` is whether no content follows. With an error `head` holds what could be read.
pub fn read_request(
    decoder: &mut Decoder,
    block: &[u8],
    ended: bool,
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<RequestFacts, BlockFault> {
    head.version = Version::Http2;
    let mut reading = Reading {
        judge: Judge::new(limits),
        max_target: limits.max_target,
        lets_connect: limits.connect,
        lets_any_authority: limits.any_authority,
        head,
        has_method: false,
        has_scheme: false,
        has_path: false,
        has_authority: false,
        has_host: false,
        cookies: 0,
        expects_continue: false,
    };
    decoder.decode(block, |field| reading.take(&field))?;
    reading.complete(ended)
}

impl Reading<'_> {
    fn take(&mut self, field: &Field<'_>) {
        let sound = field.clean || field.class == Class::Path || (field.class == Class::Authority && is_trim(field.value));
        if !sound {
            self.judge.malformed("a value with bytes that it must not have, or with blanks around it");
        }
        match field.class {
            Class::Field(_) | Class::Bad => self.take_field(field),
            Class::Status => self.judge.malformed("a request with a status"),
            _ if !self.judge.admit_pseudo(field) => {}
            Class::Method => self.take_method(field.value),
            Class::Scheme => {
                self.has_scheme = true;
                self.head.asks_tls = field.value == b"https";
                if !matches!(field.value, b"https" | b"http") && !is_scheme(field.value) {
                    self.judge.malformed("bad scheme");
                }
            }
            Class::Authority => {
                self.has_authority = true;
                // One that is clean was looked at when it entered the table.
                match std::str::from_utf8(field.value) {
                    Ok(authority) if field.clean => self.head.authority.push_str(authority),
                    _ => self.take_authority(field.value),
                }
            }
            Class::Path => self.take_path(field.value),
            Class::Protocol => match std::str::from_utf8(field.value) {
                Ok(protocol) if is_token(field.value) => self.head.protocol = Some(protocol.into()),
                _ => self.judge.malformed("bad protocol"),
            },
        }
    }

    fn take_method(&mut self, value: &[u8]) {
        self.has_method = true;
        match (Method::known(value), std::str::from_utf8(value)) {
            (Some(method), _) => self.head.method = method,
            (None, _) if Method::is_miscased(value) => self.judge.refuse(Fault::Malformed("a method in small letters")),
            (None, Ok(method)) if is_token(value) => self.head.method = Method::from_token(method),
            _ => self.judge.malformed("bad method"),
        }
    }

    fn take_authority(&mut self, value: &[u8]) {
        match std::str::from_utf8(value) {
            Ok(authority) if self.lets_any_authority || is_authority(value) => {
                self.head.authority.push_str(authority);
                self.head.authority.make_ascii_lowercase();
            }
            _ => self.judge.refuse(Fault::Malformed("authority")),
        }
    }

    fn take_path(&mut self, value: &[u8]) {
        self.has_path = true;
        if value.is_empty() {
            return self.judge.malformed("empty path");
        }
        if value.len() > self.max_target {
            return self.judge.refuse(Fault::TargetTooLong);
        }
        let visible = value.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
        let Ok(target) = std::str::from_utf8(value).map_err(|_| ()).and_then(|target| if visible { Ok(target) } else { Err(()) })
        else {
            return self.judge.refuse(Fault::Malformed("bad byte in the path"));
        };
        match memchr::memchr(b'?', value) {
            Some(mark) => {
                self.head.path.push_str(&target[..mark]);
                self.head.query = Some(target[mark + 1..].to_owned());
            }
            None => self.head.path.push_str(target),
        }
    }

    fn take_field(&mut self, field: &Field<'_>) {
        let Some(id) = self.judge.admit(field) else { return };
        match id {
            Name::Host => self.take_host(field.value),
            Name::Cookie => self.take_cookie(field),
            Name::Expect => {
                if field.value.eq_ignore_ascii_case(b"100-continue") {
                    self.expects_continue = true;
                } else {
                    self.judge.refuse(Fault::Expectation);
                }
                self.head.fields.push_line(&field.line(id, field.value));
            }
            _ => self.head.fields.push_line(&field.line(id, field.value)),
        }
    }

    /// `Host` in the place of `:authority`; both only when they agree.
    fn take_host(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.has_host, true) {
            return self.judge.refuse(Fault::Malformed("two Host fields"));
        }
        if !self.has_authority {
            return self.take_authority(value);
        }
        if !self.head.authority.as_bytes().eq_ignore_ascii_case(value) {
            self.judge.refuse(Fault::Malformed("Host differs from the authority"));
        }
    }

    /// Crumbs, which come in a row, are counted one by one and joined (section 8.2.3).
    fn take_cookie(&mut self, field: &Field<'_>) {
        if self.cookies == 0 || !self.head.fields.extend_last(Name::Cookie, b"; ", field.value) {
            self.cookies += 1;
            self.head.fields.push_line(&field.line(Name::Cookie, field.value));
        }
    }

    fn complete(mut self, ended: bool) -> Result<RequestFacts, BlockFault> {
        if self.cookies > 1 {
            self.gather_cookies();
        }
        let head = &*self.head;
        let (connect, extended) = (head.method == Method::Connect, head.protocol.is_some());
        let (scheme, path) = (self.has_scheme, self.has_path);
        let judge = &mut self.judge;
        match (connect, extended) {
            _ if !self.has_method => judge.malformed("no method"),
            (false, true) => judge.malformed("`:protocol` without CONNECT"),
            (true, false) if scheme || path => judge.malformed("CONNECT with a scheme or a path"),
            (true, false) if self.lets_connect => {}
            (true, false) => judge.refuse(Fault::Method("CONNECT")),
            _ if !scheme || !path => judge.malformed("no scheme or no path"),
            _ => {
                let formed =
                    head.path.starts_with('/') || (head.path == "*" && head.query.is_none() && head.method == Method::Options);
                if !formed {
                    judge.refuse(Fault::Malformed("path"));
                }
            }
        }
        if ended && judge.length.is_some_and(|bytes| bytes > 0) {
            judge.malformed("content was announced and none follows");
        }
        if !self.has_authority && !self.has_host {
            judge.refuse(Fault::Malformed("no authority"));
        }
        judge.verdict()?;
        Ok(RequestFacts { length: judge.length, expects_continue: self.expects_continue })
    }

    /// Crumbs that did not come in a row.
    fn gather_cookies(&mut self) {
        let all: Vec<&[u8]> = self.head.fields.get_all_known(Name::Cookie).collect();
        let joined = all.join(&b"; "[..]);
        self.head.fields.set_known(Name::Cookie, &joined);
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(value: &[u8]) -> bool {
    let byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    value.first().is_some_and(u8::is_ascii_alphabetic) && value.iter().all(byte)
}
