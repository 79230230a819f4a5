//! Tests of signed tokens, against tokens that OpenSSL has signed (`vectors.json`).

#![allow(clippy::unwrap_used)]

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const NOW: u64 = 1_700_000_100;
const SECRET: &[u8] = b"a shared secret";

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors.json")).unwrap()
}

/// Algorithm, name of the key and token of each vector.
fn tokens() -> Vec<(Algorithm, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let listed = vectors()["tokens"].as_array().unwrap().clone();
    listed.iter().map(|one| (Algorithm::of_name(&text(&one["alg"])).unwrap(), text(&one["key"]), text(&one["token"]))).collect()
}

fn token(algorithm: Algorithm) -> String {
    tokens().into_iter().find(|(known, ..)| *known == algorithm).unwrap().2
}

fn pem_of(key: &str) -> String {
    vectors()["keys"][key]["pem"].as_str().unwrap().to_owned()
}

fn key_for(algorithm: Algorithm, name: &str) -> Key {
    if name == "secret" { Key::secret(algorithm, SECRET).unwrap() } else { Key::pem(algorithm, &pem_of(name)).unwrap() }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn set() -> KeySet {
    let keys = vectors()["keys"].as_object().unwrap().values().map(|key| key["jwk"].clone()).collect::<Vec<_>>();
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn claims(value: Value) -> Claims {
    let Value::Object(map) = value else { unreachable!() };
    Claims::new(map)
}

#[test]
fn every_algorithm_verifies_what_another_library_has_signed() {
    for (algorithm, name, token) in tokens() {
        let claims = Unverified::parse(&token).unwrap().verify(&key_for(algorithm, &name), algorithm).unwrap();
        assert_eq!(claims.text("sub"), Some("jack"), "{}", algorithm.name());
        assert!(claims.check(&ClaimRules::default(), NOW).is_ok());
    }
    assert_eq!(tokens().len(), Algorithm::all().count());
}

#[test]
fn keys_come_as_certificates_pkcs1_and_sets_too() {
    let vectors = vectors();
    let verify = |algorithm, key: Key| Unverified::parse(&token(algorithm)).unwrap().verify(&key, algorithm).map(drop);
    assert_eq!(verify(Algorithm::RS256, Key::pem(Algorithm::RS256, vectors["pkcs1"].as_str().unwrap()).unwrap()), Ok(()));
    assert_eq!(verify(Algorithm::ES256, Key::pem(Algorithm::ES256, vectors["certificate"].as_str().unwrap()).unwrap()), Ok(()));
    let any = Key::pem_for_any(&pem_of("rsa")).unwrap();
    assert!(any.fits(Algorithm::PS512) && any.fits(Algorithm::RS256) && !any.fits(Algorithm::ES256));
    assert_eq!(verify(Algorithm::PS384, any), Ok(()));
    let (set, public): (_, Vec<_>) = (set(), Algorithm::all().filter(|algorithm| !algorithm.is_symmetric()).collect());
    for (algorithm, _, token) in tokens().into_iter().filter(|(algorithm, ..)| !algorithm.is_symmetric()) {
        let unverified = Unverified::parse(&token).unwrap();
        assert!(set.has(unverified.kid(), unverified.algorithm()));
        assert!(unverified.verify_with(&set, &public).is_ok(), "{}", algorithm.name());
    }
    assert!(KeySet::of(Key::pem_for_any(&pem_of("P-256")).unwrap()).has(Some("any"), Algorithm::ES256));
}

/// The classic attacks: no signature, the public key taken for a secret, another algorithm of the same key.
#[test]
fn the_algorithm_is_ours_to_choose() {
    let key = key_for(Algorithm::RS256, "rsa");
    for name in ["none", "None", "NONE"] {
        let unsigned = format!("{}.{}.", encoded(&json!({ "alg": name })), encoded(&json!({"sub": "root"})));
        assert_eq!(Unverified::parse(&unsigned).unwrap_err(), JoseError::Unsigned);
    }
    let message = format!("{}.{}", encoded(&json!({"alg": "HS256"})), encoded(&json!({"sub": "root"})));
    let public = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, pem_of("rsa").as_bytes());
    let forged = format!("{message}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&public, message.as_bytes())));
    let parse = |token| Unverified::parse(token).unwrap();
    assert_eq!(parse(&forged).peek("sub"), Some(&json!("root")));
    assert_eq!(parse(&forged).verify(&key, Algorithm::RS256), Err(JoseError::Algorithm(Algorithm::HS256)));
    assert_eq!(parse(&forged).verify(&key, Algorithm::HS256), Err(JoseError::NoKey));
    assert_eq!(parse(&forged).verify_with(&set(), &[Algorithm::RS256]), Err(JoseError::Algorithm(Algorithm::HS256)));
    assert_eq!(parse(&forged).verify_with(&set(), &[Algorithm::HS256]), Err(JoseError::NoKey));
    let other = token(Algorithm::PS256);
    assert_eq!(parse(&other).verify(&key, Algorithm::RS256), Err(JoseError::Algorithm(Algorithm::PS256)));
}

#[test]
fn nothing_of_a_token_can_be_changed() {
    for (algorithm, name, token) in tokens() {
        let key = key_for(algorithm, &name);
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let claims = encoded(&json!({"sub": "root"}));
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let others = [
            format!("{header}.{claims}.{signature}"),
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes)),
            format!("{message}."),
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(&bytes[1..])),
        ];
        for changed in others {
            assert_eq!(Unverified::parse(&changed).unwrap().verify(&key, algorithm), Err(JoseError::Signature), "{changed}");
        }
    }
}

#[test]
fn malformed_tokens_are_told_apart() {
    let header = encoded(&json!({"alg": "HS256"}));
    let wrong = |text: &str| Unverified::parse(text).unwrap_err();
    assert_eq!(wrong(&"a".repeat(MAX_TOKEN + 1)), JoseError::TooLong);
    for text in ["", "a", "a.b", "a.b.c.d"] {
        assert_eq!(wrong(text), JoseError::Parts);
    }
    assert_eq!(wrong("*.e30.e30"), JoseError::Base64("header"));
    assert_eq!(wrong("e30=.e30.e30"), JoseError::Base64("header"));
    assert_eq!(wrong("W10.e30.e30"), JoseError::Json("header"));
    assert_eq!(wrong("e30.e30.e30"), JoseError::Parameter("alg"));
    assert_eq!(wrong(&format!("{header}.W10.")), JoseError::Json("claims"));
    assert_eq!(wrong(&format!("{header}.e30.*")), JoseError::Base64("signature"));
    assert_eq!(wrong(&format!("{}.e30.", encoded(&json!({"alg": "HS1"})))), JoseError::UnknownAlgorithm);
    assert_eq!(wrong(&format!("{}.e30.", encoded(&json!({"alg": "HS256", "kid": 1})))), JoseError::Parameter("kid"));
    assert_eq!(wrong(&format!("{}.e30.", encoded(&json!({"alg": "HS256", "crit": ["b64"], "b64": false})))), JoseError::Critical);
    assert!(JoseError::Algorithm(Algorithm::HS256).to_string().contains("HS256"));
}

#[test]
fn keys_that_cannot_be_used_say_why() {
    let rsa = pem_of("rsa");
    assert_eq!(Key::secret(Algorithm::RS256, SECRET).unwrap_err(), KeyError::NeedsPublicKey(Algorithm::RS256));
    assert_eq!(Key::secret(Algorithm::HS256, b"").unwrap_err(), KeyError::Empty);
    assert_eq!(Key::pem(Algorithm::HS256, &rsa).unwrap_err(), KeyError::NeedsSecret(Algorithm::HS256));
    assert_eq!(Key::pem(Algorithm::ES256, &rsa).unwrap_err(), KeyError::Mismatch(Algorithm::ES256));
    assert_eq!(Key::pem(Algorithm::ES256, &pem_of("P-384")).unwrap_err(), KeyError::Mismatch(Algorithm::ES256));
    assert_eq!(Key::pem(Algorithm::RS256, "nonsense").unwrap_err(), KeyError::Pem);
    let private = "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----";
    assert_eq!(Key::pem(Algorithm::EdDSA, private).unwrap_err(), KeyError::Private);
    let broken = "-----BEGIN CERTIFICATE-----\nMC4C\n-----END CERTIFICATE-----";
    assert_eq!(Key::pem(Algorithm::EdDSA, broken).unwrap_err(), KeyError::Certificate);
    let jwk = |value: Value| Key::jwk(value.as_object().unwrap()).unwrap_err();
    assert_eq!(jwk(json!({"kty": "oct", "k": "AAAA"})), KeyError::Kind);
    assert_eq!(jwk(json!({"kty": "RSA", "use": "enc"})), KeyError::Kind);
    assert_eq!(jwk(json!({"kty": "RSA", "key_ops": ["encrypt"]})), KeyError::Kind);
    assert_eq!(jwk(json!({"kty": "RSA", "n": "AQAB"})), KeyError::Parameter("e"));
    assert_eq!(jwk(json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"})), KeyError::Mismatch(Algorithm::RS256));
    assert_eq!(jwk(json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB"})), KeyError::Mismatch(Algorithm::EdDSA));
    let long = "AAAA".repeat(20);
    assert_eq!(jwk(json!({"kty": "EC", "crv": "P-256", "x": long, "y": long})), KeyError::Parameter("x"));
    let mut known = vectors()["keys"]["rsa"]["jwk"].clone();
    known["alg"] = "RSA-OAEP".into();
    assert_eq!(jwk(known.clone()), KeyError::Parameter("alg"));
    known["alg"] = "RS512".into();
    let pinned = Key::jwk(known.as_object().unwrap()).unwrap();
    assert!(pinned.fits(Algorithm::RS512) && !pinned.fits(Algorithm::RS256));
}

#[test]
fn sets_are_bounded_and_pass_over_what_is_of_no_use() {
    let wrong = |value: Value| KeySet::parse(value.to_string().as_bytes()).unwrap_err();
    let key = vectors()["keys"]["Ed25519"]["jwk"].clone();
    assert_eq!((wrong(json!([])), wrong(json!({"keys": {}}))), (KeyError::Set, KeyError::Set));
    assert_eq!(wrong(json!({ "keys": vec![key.clone(); 65] })), KeyError::TooMany(64));
    assert_eq!(wrong(json!({"keys": [{"kty": "oct", "k": "AAAA"}, 5]})), KeyError::NoneUsable);
    let set = KeySet::parse(json!({"keys": [{"kty": "new"}, key]}).to_string().as_bytes()).unwrap();
    assert!(set.has(Some("Ed25519"), Algorithm::EdDSA) && set.has(None, Algorithm::EdDSA));
    assert!(!set.has(Some("another"), Algorithm::EdDSA) && !set.has(None, Algorithm::RS256));
}

#[test]
fn times_count_to_the_second_and_skew_gives_way() {
    let rules = |skew| ClaimRules { skew, check_iat: true, ..ClaimRules::default() };
    let check = |value: Value, skew| claims(value).check(&rules(skew), 1_000);
    assert_eq!(check(json!({"exp": 1_001, "nbf": 1_000, "iat": 1_000}), 0), Ok(()));
    assert_eq!(check(json!({"exp": 1_000}), 0), Err(ClaimError::Expired(1_000)));
    assert_eq!(check(json!({"exp": 1_000.9}), 0), Err(ClaimError::Expired(1_000)));
    assert_eq!(check(json!({"exp": 996}), 5), Ok(()));
    assert_eq!(check(json!({"exp": 995}), 5), Err(ClaimError::Expired(995)));
    assert_eq!(check(json!({"exp": -1}), 5), Err(ClaimError::Expired(-1)));
    assert_eq!(check(json!({"nbf": 1_001}), 0), Err(ClaimError::NotYetValid(1_001)));
    assert_eq!(check(json!({"nbf": 1_005}), 5), Ok(()));
    assert_eq!(check(json!({"iat": 1_006}), 5), Err(ClaimError::IssuedLater(1_006)));
    assert_eq!(check(json!({"exp": "1001"}), 0), Err(ClaimError::NotATime("exp")));
    assert_eq!(check(json!({"exp": 1e300, "nbf": -1e300}), u64::MAX), Ok(()));
    assert_eq!(check(json!({"nbf": u64::MAX}), 0), Err(ClaimError::NotYetValid(i64::MAX)));
    let loose = ClaimRules { ignore_exp: true, ignore_nbf: true, ..ClaimRules::default() };
    assert_eq!(claims(json!({"exp": 1, "nbf": 2_000, "iat": 2_000})).check(&loose, 1_000), Ok(()));
}

#[test]
fn issuer_audience_and_presence_are_demanded() {
    let demand = |issuers: &[&str], audiences: &[&str], required: &[&str]| {
        let boxed = |all: &[&str]| all.iter().map(|one| (*one).into()).collect::<Vec<Box<str>>>();
        ClaimRules { issuers: boxed(issuers), audiences: boxed(audiences), required: boxed(required), ..ClaimRules::default() }
    };
    let one = claims(json!({"iss": "i", "aud": "shop", "null": null}));
    let many = claims(json!({"iss": ["i"], "aud": ["cafe", "shop"]}));
    assert_eq!(one.check(&demand(&["j", "i"], &["shop"], &["iss"]), NOW), Ok(()));
    assert_eq!(one.check(&demand(&["j"], &[], &[]), NOW), Err(ClaimError::Issuer));
    assert_eq!(many.check(&demand(&["i"], &[], &[]), NOW), Err(ClaimError::Issuer));
    assert_eq!(many.check(&demand(&[], &["x", "shop"], &[]), NOW), Ok(()));
    assert_eq!(one.check(&demand(&[], &["cafe"], &[]), NOW), Err(ClaimError::Audience));
    assert_eq!(claims(json!({})).check(&demand(&[], &["cafe"], &[]), NOW), Err(ClaimError::Audience));
    for name in ["exp", "null"] {
        assert_eq!(one.check(&demand(&[], &[], &[name]), NOW), Err(ClaimError::Missing(name.into())));
    }
    assert_eq!(one.into_map().len(), 3);
}

proptest! {
    #[test]
    fn no_text_makes_the_parsers_fall(text in ".{0,300}", header in "[ -~]{0,60}", claims in "[ -~]{0,60}") {
        let _ = Unverified::parse(&text);
        let token = format!("{}.{}.AA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let _ = Unverified::parse(&token);
        let _ = Key::pem_for_any(&format!("-----BEGIN PUBLIC KEY-----{text}-----END PUBLIC KEY-----"));
        let _ = KeySet::parse(text.as_bytes());
    }

    #[test]
    fn no_bytes_make_keys_fall(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..5) {
        let text = URL_SAFE_NO_PAD.encode(&bytes);
        let (kty, crv) = [("RSA", ""), ("EC", "P-256"), ("EC", "P-384"), ("EC", "P-521"), ("OKP", "Ed25519")][kind];
        let parts = [("kty", kty), ("crv", crv), ("n", &text), ("e", "AQAB"), ("x", &text), ("y", &text)];
        let jwk: Map<String, Value> = parts.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let _ = Key::jwk(&jwk);
        let pem = STANDARD.encode(&bytes);
        for label in ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"] {
            let _ = Key::pem_for_any(&format!("-----BEGIN {label}-----\n{pem}\n-----END {label}-----"));
        }
    }

    #[test]
    fn what_is_signed_verifies_and_nothing_else(sub in ".{0,40}", flip in any::<prop::sample::Index>()) {
        let message = format!("{}.{}", encoded(&json!({"alg": "HS256"})), encoded(&json!({ "sub": sub })));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
        let mut signature = aws_lc_rs::hmac::sign(&key, message.as_bytes()).as_ref().to_vec();
        let ours = Key::secret(Algorithm::HS256, SECRET).unwrap();
        let verify = |signature: &[u8]| {
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
            Unverified::parse(&token).unwrap().verify(&ours, Algorithm::HS256).map(|claims| claims.text("sub").map(str::to_owned))
        };
        prop_assert_eq!(verify(&signature), Ok(Some(sub)));
        let at = flip.index(signature.len() * 8);
        signature[at / 8] ^= 1 << (at % 8);
        prop_assert_eq!(verify(&signature), Err(JoseError::Signature));
    }
}
