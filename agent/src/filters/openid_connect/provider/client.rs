//! How this gateway proves itself to a provider (RFC 6749 section 2.3, OpenID Connect Core section 9). It opens no connections and reads no clock.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::super::config::AuthMethod;
use super::super::form::{Form, encoded};
use super::Trouble;

/// What an assertion is (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// This gateway in the eyes of a provider.
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: Option<String>,
    pub(crate) signer: Option<Signer>,
}

/// Signs assertions.
pub(crate) struct Signer {
    key: SigningKey,
    kid: Option<String>,
    lifetime: u32,
}

enum SigningKey {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
}

impl Signer {
    /// A private key as PEM: RSA (RS256) or P-256 (ES256).
    ///
    /// # Errors
    /// In words, what was expected.
    pub(crate) fn new(pem: &str, kid: Option<String>, lifetime: u32) -> Result<Signer, String> {
        let expected = || "expected an RSA or P-256 private key as PEM".to_owned();
        let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| expected())? {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).map(SigningKey::Rsa).ok(),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = RsaKeyPair::from_pkcs8(der).map(SigningKey::Rsa);
                rsa.or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(SigningKey::P256)).ok()
            }
            PrivateKeyDer::Sec1(der) => {
                let der = der.secret_sec1_der();
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(SigningKey::P256).ok()
            }
            _ => None,
        };
        Ok(Signer { key: key.ok_or_else(expected)?, kid, lifetime })
    }

    /// An assertion that we are `client_id`, for `audience`, told apart from others by `id`.
    fn assertion(&self, client_id: &str, audience: &str, id: &str, now: u64) -> Option<String> {
        let algorithm = match self.key {
            SigningKey::Rsa(_) => "RS256",
            SigningKey::P256(_) => "ES256",
        };
        let mut header = json!({ "typ": "JWT", "alg": algorithm });
        if let (Some(kid), Some(header)) = (&self.kid, header.as_object_mut()) {
            header.insert("kid".to_owned(), kid.as_str().into());
        }
        let end = now + u64::from(self.lifetime);
        let claims = json!({ "iss": client_id, "sub": client_id, "aud": audience, "jti": id, "iat": now, "exp": end });
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let random = SystemRandom::new();
        let signature = match &self.key {
            SigningKey::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).ok()?;
                signature
            }
            SigningKey::P256(key) => key.sign(&random, message.as_bytes()).ok()?.as_ref().to_vec(),
        };
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Client {
    /// Adds the proof to a form for `endpoint`; the value of `Authorization`, where it goes there.
    ///
    /// # Errors
    /// There is no randomness or the key does not sign.
    pub(crate) fn prove(&self, method: AuthMethod, form: &mut Form, endpoint: &str, now: u64) -> Result<Option<String>, Trouble> {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Trouble::down("no randomness".to_owned()))?;
        self.prove_with(method, form, endpoint, &URL_SAFE_NO_PAD.encode(id), now)
    }

    fn prove_with(
        &self,
        method: AuthMethod,
        form: &mut Form,
        endpoint: &str,
        id: &str,
        now: u64,
    ) -> Result<Option<String>, Trouble> {
        let secret = self.secret.as_deref().unwrap_or_default();
        match method {
            AuthMethod::ClientSecretBasic => {
                return Ok(Some(format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(&self.id), encoded(secret))))));
            }
            AuthMethod::ClientSecretPost => form.add("client_secret", secret),
            AuthMethod::PrivateKeyJwt => {
                let assertion = self.signer.as_ref().and_then(|signer| signer.assertion(&self.id, endpoint, id, now));
                let assertion = assertion.ok_or_else(|| Trouble::down("client_rsa_private_key does not sign".to_owned()))?;
                form.add("client_assertion_type", ASSERTION_TYPE);
                form.add("client_assertion", &assertion);
            }
            AuthMethod::None => {}
        }
        form.add("client_id", &self.id);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::super::form::argument;
    use super::*;
    use crate::filters::jose::{Algorithm, Key, Unverified};

    fn client(signer: Option<Signer>) -> Client {
        Client { id: "a:b".to_owned(), secret: Some("s&t".to_owned()), signer }
    }

    fn proof(client: &Client, method: AuthMethod) -> (Option<String>, String) {
        let mut form = Form::default();
        let authorization = client.prove_with(method, &mut form, "https://p/token", "j1", 1_000).unwrap();
        (authorization, form.into_text())
    }

    #[test]
    fn secrets_go_where_the_method_says() {
        let client = client(None);
        let basic = format!("Basic {}", STANDARD.encode("a%3Ab:s%26t"));
        assert_eq!(proof(&client, AuthMethod::ClientSecretBasic), (Some(basic), String::new()));
        assert_eq!(proof(&client, AuthMethod::ClientSecretPost), (None, "client_secret=s%26t&client_id=a%3Ab".to_owned()));
        assert_eq!(proof(&client, AuthMethod::None), (None, "client_id=a%3Ab".to_owned()));
    }

    #[test]
    fn assertions_are_signed_and_short_lived() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signer = Signer::new(&pair.serialize_pem(), Some("k1".to_owned()), 60).unwrap();
        let (none, form) = proof(&client(Some(signer)), AuthMethod::PrivateKeyJwt);
        assert_eq!((none, argument(&form, "client_assertion_type").unwrap().as_str()), (None, ASSERTION_TYPE));
        let token = argument(&form, "client_assertion").unwrap();
        let unverified = Unverified::parse(&token).unwrap();
        assert_eq!((unverified.kid(), unverified.algorithm()), (Some("k1"), Algorithm::ES256));
        let key = Key::pem(Algorithm::ES256, &pair.public_key_pem()).unwrap();
        let claims = unverified.verify(&key, Algorithm::ES256).unwrap();
        assert_eq!((claims.text("iss"), claims.text("sub"), claims.text("jti")), (Some("a:b"), Some("a:b"), Some("j1")));
        assert!(claims.is_for("https://p/token"));
        assert_eq!(claims.time("exp").unwrap(), Some(1_060));
    }

    #[test]
    fn what_is_no_private_key_is_refused() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for pem in ["", "x", pair.public_key_pem().as_str(), pair.serialize_pem().as_str()] {
            assert!(Signer::new(pem, None, 60).is_err_and(|error| error.contains("expected an RSA")));
        }
    }
}
