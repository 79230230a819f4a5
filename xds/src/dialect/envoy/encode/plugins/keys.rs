//! Keys of consumers as a set that Envoy reads (JWKS, RFC 7517). It knows no filter.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value, json};

/// Padding may lack: keys are copied by hand.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));
/// Longest PEM text in bytes, as in our agents.
const MAX_PEM: usize = 32 * 1024;
/// Kinds of keys by their object identifiers (RFC 3279, RFC 5480, RFC 8410).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// Curves likewise, with their names in sets.
const CURVES: [(&[u8], &str); 3] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "P-256"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
];

/// A set with the one key of a consumer, for its one algorithm.
pub(super) fn set(config: &Map<String, Value>) -> Result<String, String> {
    let text = |field: &str| config.get(field).and_then(Value::as_str);
    let algorithm = text("algorithm").unwrap_or("HS256");
    let mut key = if algorithm.starts_with("HS") {
        let secret = text("secret").ok_or("has no secret")?;
        let bytes = match config.get("base64_secret").and_then(Value::as_bool) {
            Some(true) => LENIENT.decode(secret).map_err(|_| "has a secret that is no base64")?,
            _ => secret.as_bytes().to_vec(),
        };
        json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode(bytes) })
    } else {
        let pem = text("public_key").ok_or("publishes its keys at a URL, which Envoy is told of for issuers only")?;
        public(pem).ok_or("has a public key in a form that Envoy is not told (PEM of a PUBLIC KEY is)")?
    };
    key["alg"] = json!(algorithm);
    Ok(json!({ "keys": [key] }).to_string())
}

/// A public key out of PEM (RFC 7468), as a member of a set.
fn public(pem: &str) -> Option<Value> {
    let (_, rest) = pem.split_once("-----BEGIN ").filter(|_| pem.len() <= MAX_PEM)?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let packed: String = body.split_whitespace().collect();
    let der = LENIENT.decode(packed).ok()?;
    match label {
        "PUBLIC KEY" => subject(&der),
        "RSA PUBLIC KEY" => rsa(&der),
        _ => None,
    }
}

/// A `SubjectPublicKeyInfo` (RFC 5280 section 4.1).
fn subject(der: &[u8]) -> Option<Value> {
    let (content, _) = item(der, 0x30)?;
    let (algorithm, rest) = item(content, 0x30)?;
    let (kind, parameters) = item(algorithm, 0x06)?;
    // The first byte says how many bits of the last one are none of the key: nought in all of these.
    let (_, key) = item(rest, 0x03)?.0.split_first().filter(|(unused, _)| **unused == 0)?;
    match kind {
        RSA => rsa(key),
        ED25519 => Some(json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key) })),
        EC => {
            let (curve, _) = item(parameters, 0x06)?;
            let (_, name) = CURVES.iter().find(|(known, _)| *known == curve)?;
            // 4 begins a point of which both halves are written.
            let (_, point) = key.split_first().filter(|(form, _)| **form == 4)?;
            let (x, y) = point.split_at_checked(point.len() / 2)?;
            Some(json!({ "kty": "EC", "crv": name, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) }))
        }
        _ => None,
    }
}

/// An `RSAPublicKey` (RFC 8017 appendix A.1.1).
fn rsa(der: &[u8]) -> Option<Value> {
    let (content, _) = item(der, 0x30)?;
    let (modulus, rest) = item(content, 0x02)?;
    let (exponent, _) = item(rest, 0x02)?;
    let number = |bytes: &[u8]| {
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        URL_SAFE_NO_PAD.encode(&bytes[first..])
    };
    Some(json!({ "kty": "RSA", "n": number(modulus), "e": number(exponent) }))
}

/// The content of an item with this tag at the beginning of DER, and what is behind it.
fn item(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    if length < 0x80 {
        return rest.split_at_checked(length.into());
    }
    let (long, rest) = rest.split_at_checked(usize::from(length & 0x7f)).filter(|(long, _)| long.len() <= 3)?;
    let length = long.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(config: &Value) -> Result<Value, String> {
        let set = set(config.as_object().unwrap())?;
        Ok(serde_json::from_str::<Value>(&set).unwrap()["keys"][0].clone())
    }

    #[test]
    fn secrets_and_public_keys_become_members_of_a_set() {
        assert_eq!(read(&json!({ "secret": "abc" })).unwrap(), json!({ "kty": "oct", "k": "YWJj", "alg": "HS256" }));
        let packed = json!({ "secret": "//8=", "base64_secret": true, "algorithm": "HS512" });
        assert_eq!(read(&packed).unwrap(), json!({ "kty": "oct", "k": "__8", "alg": "HS512" }));
        // RFC 8410 section 10.1, and RFC 8037 appendix A.
        let pem =
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        let key = read(&json!({ "public_key": pem, "algorithm": "EdDSA" })).unwrap();
        assert_eq!(
            key,
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE", "alg": "EdDSA" })
        );
        for (config, reason) in [
            (json!({}), "has no secret"),
            (json!({ "secret": "?", "base64_secret": true }), "has a secret that is no base64"),
            (
                json!({ "algorithm": "RS256", "public_key": "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----" }),
                "has a public key",
            ),
            (json!({ "algorithm": "RS256", "jwks_url": "http://a" }), "publishes"),
        ] {
            assert!(read(&config).unwrap_err().starts_with(reason), "{config}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_key() {
        let key = rcgen::KeyPair::generate().unwrap();
        let der = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(subject(&der).unwrap()["crv"], "P-256");
        assert_eq!(subject(&der).unwrap()["x"].as_str().unwrap().len(), 43);
        for length in 0..der.len() {
            assert_eq!(subject(&der[..length]), None);
        }
    }
}
