//! A provider for tests: it serves documents, signs tokens, and lies or falls silent on demand.

#![allow(clippy::unwrap_used)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::form::argument;
use super::NOW;

/// What was asked: method, path and form.
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) authorization: Option<String>,
    pub(super) form: String,
}

impl Asked {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        argument(&self.form, name)
    }
}

/// A provider.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    pub(super) asked: RefCell<Vec<Asked>>,
    /// Answers that are given instead of the usual ones, by path.
    pub(super) instead: RefCell<BTreeMap<&'static str, (u16, String)>>,
    /// Changes of the claims of ID tokens.
    pub(super) lies: RefCell<Value>,
    /// `alg` that ID tokens claim.
    pub(super) alg: Cell<&'static str>,
    /// Whether connections are closed at once.
    pub(super) down: Cell<bool>,
    /// Nonce of the login under way.
    pub(super) nonce: RefCell<Option<String>>,
    keys: RefCell<Vec<(String, rcgen::KeyPair)>>,
    serial: Cell<u32>,
}

impl Fake {
    /// One that listens, on the local set of the test.
    pub(super) async fn start() -> Rc<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Rc::new(Fake {
            address: listener.local_addr().unwrap(),
            asked: RefCell::default(),
            instead: RefCell::default(),
            lies: RefCell::new(json!({})),
            alg: Cell::new("ES256"),
            down: Cell::new(false),
            nonce: RefCell::default(),
            keys: RefCell::default(),
            serial: Cell::new(0),
        });
        fake.rotate("k1");
        let served = fake.clone();
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let fake = served.clone();
                if !fake.down.get() {
                    tokio::task::spawn_local(async move { fake.serve(stream).await });
                }
            }
        });
        fake
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Signs with another key from now on; only this one is published.
    pub(super) fn rotate(&self, kid: &str) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        *self.keys.borrow_mut() = vec![(kid.to_owned(), pair)];
    }

    pub(super) fn public_pem(&self) -> String {
        self.keys.borrow()[0].1.public_key_pem()
    }

    /// A token with these claims, signed.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let keys = self.keys.borrow();
        let (kid, pair) = &keys[0];
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&json!({"alg": self.alg.get(), "kid": kid})), part(claims));
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// How often a path was asked for.
    pub(super) fn count(&self, path: &str) -> usize {
        self.asked.borrow().iter().filter(|asked| asked.path == path).count()
    }

    /// A form that was posted to a path, the last one.
    pub(super) fn last<R>(&self, path: &str, look: impl FnOnce(&Asked) -> R) -> R {
        let asked = self.asked.borrow();
        look(asked.iter().rev().find(|asked| asked.path == path).unwrap())
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let Some((length, asked)) = parse(&bytes) else {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
                continue;
            };
            bytes.drain(..length);
            if self.down.get() {
                return;
            }
            let (status, body) = self.answer(&asked);
            self.asked.borrow_mut().push(asked);
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n", body.len());
            if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, asked: &Asked) -> (u16, String) {
        if let Some(answer) = self.instead.borrow().get(asked.path.as_str()) {
            return answer.clone();
        }
        let body = match asked.path.as_str() {
            "/.well-known/openid-configuration" => self.document(),
            "/jwks" => self.jwks(),
            "/token" => self.tokens(asked),
            "/me" => json!({"sub": "u1", "name": "Uma"}),
            "/introspect" => {
                json!({"active": asked.get("token").as_deref() == Some("good"), "sub": "u1", "scope": "a b", "exp": NOW + 60})
            }
            "/par" => json!({"request_uri": "urn:pushed", "expires_in": 60}),
            "/revoke" => json!({}),
            _ => return (404, "{}".to_owned()),
        };
        (200, body.to_string())
    }

    fn document(&self) -> Value {
        json!({
            "issuer": self.url(""), "authorization_endpoint": self.url("/auth"), "token_endpoint": self.url("/token"),
            "jwks_uri": self.url("/jwks"), "userinfo_endpoint": self.url("/me"), "introspection_endpoint": self.url("/introspect"),
            "end_session_endpoint": self.url("/out"), "revocation_endpoint": self.url("/revoke"),
            "pushed_authorization_request_endpoint": self.url("/par"),
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn jwks(&self) -> Value {
        let keys = self.keys.borrow();
        let keys = keys.iter().map(|(kid, pair)| {
            let point = pair.public_key_raw();
            let (x, y) = point[1..].split_at(32);
            json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    fn tokens(&self, asked: &Asked) -> Value {
        self.serial.set(self.serial.get() + 1);
        let serial = self.serial.get();
        let mut claims = json!({"iss": self.url(""), "sub": "u1", "aud": "app", "exp": NOW + 600, "iat": NOW});
        if asked.get("grant_type").as_deref() == Some("authorization_code") {
            claims["nonce"] = json!(*self.nonce.borrow());
        }
        for (name, value) in self.lies.borrow().as_object().unwrap() {
            claims[name] = value.clone();
        }
        json!({
            "access_token": format!("at{serial}"), "refresh_token": format!("rt{serial}"), "token_type": "Bearer", "expires_in": 300,
            "id_token": self.sign(&claims), "scope": "openid a",
        })
    }
}

/// The first whole request, and how many bytes it takes.
fn parse(bytes: &[u8]) -> Option<(usize, Asked)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let length = field("content-length:").map_or(0, |text| text.parse().unwrap());
    let body = bytes.get(end..end + length)?;
    let path = head.split(' ').nth(1)?.to_owned();
    let form = String::from_utf8_lossy(body).into_owned();
    Some((end + length, Asked { path, authorization: field("authorization:"), form }))
}
