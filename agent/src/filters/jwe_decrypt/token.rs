//! Compact encrypted tokens with a key that both sides have (RFC 7516 section 7.1, `dir` with `A256GCM`): taken apart, bounded, decrypted. It knows no
//! consumers.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Longest token in bytes.
const MAX_TOKEN: usize = 16 * 1024;

/// A token, taken apart.
pub(super) struct Token<'a> {
    /// Which key; `None` when the token does not say.
    pub kid: Option<String>,
    /// The header as it was written, which the seal covers.
    header: &'a str,
    nonce: [u8; 12],
    /// Content and, behind it, the seal.
    sealed: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart; `None` for what is none, or one that is encrypted in another way.
    pub(super) fn parse(text: &'a str) -> Option<Token<'a>> {
        if text.len() > MAX_TOKEN {
            return None;
        }
        let mut parts = text.split('.');
        let (header, key, nonce, content, seal) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || !key.is_empty() {
            return None;
        }
        let fields: Map<String, Value> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let is = |name: &str, wanted: &str| fields.get(name).and_then(Value::as_str) == Some(wanted);
        // Compressed content may be a thousand times as long as it looks, and what is critical we do not know.
        if !is("alg", "dir") || !is("enc", "A256GCM") || fields.contains_key("zip") || fields.contains_key("crit") {
            return None;
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(content).ok()?;
        sealed.extend(URL_SAFE_NO_PAD.decode(seal).ok().filter(|seal| seal.len() == 16)?);
        let nonce = URL_SAFE_NO_PAD.decode(nonce).ok()?.try_into().ok()?;
        Some(Token { kid: fields.get("kid").and_then(Value::as_str).map(str::to_owned), header, nonce, sealed })
    }

    /// What is in it. The seal covers the header, as the RFC has it, or nothing besides the content, as APISIX makes it.
    pub(super) fn decrypt(&self, key: &LessSafeKey) -> Option<Vec<u8>> {
        [self.header.as_bytes(), b""].into_iter().find_map(|covered| {
            let mut content = self.sealed.clone();
            let nonce = Nonce::assume_unique_for_key(self.nonce);
            let length = key.open_in_place(nonce, Aad::from(covered), &mut content).ok()?.len();
            content.truncate(length);
            Some(content)
        })
    }
}
