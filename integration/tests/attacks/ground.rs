//! The ground on which attacks are made: a gateway with a listener of each kind before a strict origin, and tables of cases.

use std::sync::atomic::{AtomicU32, Ordering};

use heddle_integration::attack::origin::Origin;
use heddle_integration::attack::raw::{Door, Raw};
use heddle_integration::certificates::Authority;
use heddle_integration::client;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::process::until;
use serde_json::json;

pub const HOST: &str = "test.example";

pub struct Ground {
    pub heddle: Heddle,
    pub origin: Origin,
    pub authority: Authority,
    pub plain: Door,
}

/// One conversation on a connection of its own.
pub struct Case {
    pub name: &'static str,
    /// `{p}` is a prefix of the case's own, so that what reaches the origin can be told apart.
    pub send: String,
    /// Final answers, in order.
    pub statuses: &'static [u16],
    /// Whether the connection is closed behind them. One that is not must serve another request.
    pub closed: bool,
    /// What reaches the origin, as `METHOD target body`.
    pub origin: &'static [&'static str],
}

/// Refused, closed, and nothing of it reaches the origin.
pub fn refused(name: &'static str, status: &'static [u16], send: impl Into<String>) -> Case {
    Case { name, send: send.into(), statuses: status, closed: true, origin: &[] }
}

/// Served as just this, and the connection goes on.
pub fn served(name: &'static str, origin: &'static [&'static str], send: impl Into<String>) -> Case {
    const OK: &[u16] = &[200, 200, 200];
    Case { name, send: send.into(), statuses: &OK[..origin.len()], closed: false, origin }
}

impl Ground {
    pub fn new() -> Ground {
        Ground::with(Origin::start(), Setup::default())
    }

    pub fn with(origin: Origin, setup: Setup) -> Ground {
        let heddle = Heddle::run_with(setup);
        heddle
            .put("/routes/all", json!({ "uri": "/*", "upstream": { "retries": 0, "nodes": { origin.address.to_string(): 1 } } }));
        heddle.until_status("/ready-to-be-attacked", 200);
        let plain = Door::plain(heddle.http);
        Ground { heddle, origin, authority: Authority::new(), plain }
    }

    /// Doors of each kind that speak HTTP/1.1.
    pub fn doors(&self) -> Vec<Door> {
        let pair = self.authority.issue(&[HOST]);
        self.heddle.put("/ssls/main", json!({ "snis": [HOST], "cert": pair.certificate, "key": pair.key }));
        let proxied = self.heddle.place.address();
        self.heddle
            .put("/listeners/proxied", json!({ "address": proxied.to_string(), "protocol": "http", "proxy_protocol": "on" }));
        until("the listener to open", || std::net::TcpStream::connect(proxied).ok());
        let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        second.extend([192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x34, 0, 80]);
        vec![
            self.plain.clone(),
            Door::tls(self.heddle.https, self.authority.client(), HOST),
            Door::saying("proxy v1", proxied, "PROXY TCP4 192.0.2.7 192.0.2.1 4660 80\r\n"),
            Door::saying("proxy v2", proxied, second),
        ]
    }

    /// Waits until TLS is served; a certificate takes a moment to arrive.
    pub fn until_tls(&self) {
        let config = self.authority.client();
        until("TLS to be served", || {
            let mut raw = Door::tls(self.heddle.https, config.clone(), HOST).open();
            raw.send(format!("GET /up HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
            raw.answer(false)
        });
    }

    /// Runs all cases through a door and collects what is wrong.
    pub fn run(&self, door: &Door, cases: &[Case]) -> Vec<String> {
        cases
            .iter()
            .filter_map(|case| self.one(door, case).err().map(|why| format!("{} over {}: {why}", case.name, door.name)))
            .collect()
    }

    fn one(&self, door: &Door, case: &Case) -> Result<(), String> {
        static NUMBER: AtomicU32 = AtomicU32::new(1000);
        let prefix = format!("/case-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut raw = door.open();
        let sent = case.send.replace("{p}", &prefix);
        raw.send(&sent);
        for (place, &status) in case.statuses.iter().enumerate() {
            let got = raw.answer(sent.starts_with("HEAD")).map(|answer| answer.status);
            if got != Some(status) {
                return Err(format!("answer {place}: expected {status}, got {got:?}"));
            }
        }
        if case.closed {
            if !raw.is_closed() {
                return Err("the connection is still open, or more was said".to_owned());
            }
        } else {
            follow(&mut raw, &prefix)?;
        }
        let seen: Vec<String> = self
            .origin
            .seen(&prefix)
            .iter()
            .filter(|seen| !seen.aborted)
            .map(|seen| seen.summary().replace(&prefix, ""))
            .collect();
        let expected: Vec<&str> = case.origin.iter().copied().chain((!case.closed).then_some("GET /after")).collect();
        if seen != expected {
            return Err(format!("the origin saw {seen:?}, expected {expected:?}"));
        }
        Ok(())
    }

    /// Nothing that reached the origin was wrong in itself, and others are served.
    pub fn check(&self, mut wrong: Vec<String>) {
        wrong.extend(self.origin.faults());
        let answer = client::get(self.heddle.http, "/others").unwrap();
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(answer.status, 200);
    }
}

/// One more request on the connection gets its own answer: nothing is left of those before.
pub fn follow(raw: &mut Raw, prefix: &str) -> Result<(), String> {
    raw.send(format!("GET {prefix}/after HTTP/1.1\r\nHost: {HOST}\r\n\r\n"));
    let got = raw.answer(false).map(|answer| answer.status);
    if got == Some(200) { Ok(()) } else { Err(format!("the request behind it got {got:?}")) }
}

/// A POST with these fields, and what follows them.
pub fn post(fields: &str, rest: &str) -> String {
    format!("POST {{p}}/a HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{rest}")
}

/// A GET with these fields.
pub fn get(fields: &str) -> String {
    format!("GET {{p}}/a HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

/// The value of a line of the metrics page.
pub fn metric(page: &str, line: &str) -> Option<f64> {
    page.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}
