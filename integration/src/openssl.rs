//! The real OpenSSL, which makes keys, signs and hashes. It knows nothing of Heddle.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// What a command says to its input.
pub fn run(command: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// In base64.
pub fn base64(bytes: &[u8]) -> String {
    String::from_utf8(run("openssl", &["base64", "-A"], bytes)).unwrap().trim().to_owned()
}

/// In the alphabet of URLs, without padding.
pub fn base64url(bytes: &[u8]) -> String {
    base64(bytes).replace('+', "-").replace('/', "_").trim_end_matches('=').to_owned()
}

/// Keys that OpenSSL has made and signs with.
pub struct Signer {
    pub algorithm: &'static str,
    folder: tempfile::TempDir,
}

impl Signer {
    /// Of `RS256`, `ES256` or `EdDSA`; of `HS256` the secret is `open sesame`.
    pub fn new(algorithm: &'static str) -> Signer {
        let folder = tempfile::tempdir().unwrap();
        let kind: &[&str] = match algorithm {
            "HS256" => return Signer { algorithm, folder },
            "RS256" => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            "ES256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            _ => &["-algorithm", "ED25519"],
        };
        let signer = Signer { algorithm, folder };
        run("openssl", &[&["genpkey", "-out", signer.path("key").to_str().unwrap()], kind].concat(), b"");
        signer
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// The public key as PEM.
    pub fn public_key(&self) -> String {
        let key = self.path("key");
        String::from_utf8(run("openssl", &["pkey", "-in", key.to_str().unwrap(), "-pubout"], b"")).unwrap()
    }

    /// The public key of `EdDSA` as issuers publish it.
    pub fn published(&self) -> Value {
        let der = run("openssl", &["pkey", "-in", self.path("key").to_str().unwrap(), "-pubout", "-outform", "DER"], b"");
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": base64url(&der[der.len() - 32..]) }] })
    }

    /// A token that says this, as the field `Authorization` carries it.
    pub fn token(&self, claims: &Value) -> String {
        let head = json!({ "alg": self.algorithm, "typ": "JWT" });
        let message = format!("{}.{}", base64url(head.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
        let (key, file) = (self.path("key"), self.path("message"));
        std::fs::write(&file, &message).unwrap();
        let (key, file) = (key.to_str().unwrap(), file.to_str().unwrap());
        let signature = match self.algorithm {
            "HS256" => run("openssl", &["dgst", "-sha256", "-hmac", "open sesame", "-binary", file], b""),
            "EdDSA" => run("openssl", &["pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file], b""),
            "ES256" => fixed(&run("openssl", &["dgst", "-sha256", "-sign", key, file], b"")),
            _ => run("openssl", &["dgst", "-sha256", "-sign", key, file], b""),
        };
        format!("Bearer {message}.{}", base64url(&signature))
    }
}

/// The two numbers of an ECDSA signature as tokens write them, out of DER.
fn fixed(der: &[u8]) -> Vec<u8> {
    let (mut at, mut out) = (2, Vec::new());
    for _ in 0..2 {
        let length = usize::from(der[at + 1]);
        let number = &der[at + 2..at + 2 + length];
        let number = &number[number.len().saturating_sub(32)..];
        out.extend(std::iter::repeat_n(0, 32 - number.len()));
        out.extend_from_slice(number);
        at += 2 + length;
    }
    out
}
