//! Requests for guards and copies: with tokens that are good and bad, and fields by which another service decides.

use heddle_integration::openssl::Signer;
use serde_json::json;

use super::requests::{Request, request};

const METHODS: [&str; 6] = ["GET", "GET", "GET", "POST", "PUT", "HEAD"];
const HOSTS: [&str; 4] = ["asked.example", "other.example", "other.example:8080", "copied.example"];
const PATHS: [&str; 17] = [
    "/",
    "/in?a=b",
    "/told",
    "/told/x?q=1",
    "/free",
    "/copied",
    "/copied/x?y=z",
    "/seldom",
    "/token",
    "/token/a",
    "/token/open",
    "/token/maybe",
    "/token/cafe",
    "/token/else",
    "/token/elsewhere",
    "/named",
    "/tokens?access_token=none",
];
const FIELDS: [(&str, &str); 14] = [
    ("x-canary", "1"),
    ("x-canary", "0"),
    ("x-age", "10"),
    ("x-age", "20"),
    ("x-age", "old"),
    ("x-tenant", "apple"),
    ("x-secret", "s"),
    ("x-internal", "yes"),
    ("x-by", "client"),
    ("x-auth-user", "forged"),
    ("x-payload", "forged"),
    ("x-who", "forged"),
    ("x-forwarded-proto", "https"),
    ("cookie", "jwt=none"),
];

/// Tokens, each as a field: of both audiences, expired, of nobody known, of another issuer, and what is none.
pub fn tokens(signer: &Signer) -> Vec<(&'static str, String)> {
    let claims =
        |aud: &str, exp: u64, iss: &str| json!({ "iss": iss, "aud": [aud], "sub": "ann", "exp": exp, "rank": { "level": 7 } });
    let (always, past) = (4_000_000_000_u64, 1_000_000_000);
    let shop = signer.token(&claims("shop", always, "issuer"));
    let bare = shop.trim_start_matches("Bearer ").to_owned();
    vec![
        ("Authorization", shop),
        ("X-Token", bare),
        ("Authorization", signer.token(&claims("cafe", always, "issuer"))),
        ("Authorization", signer.token(&claims("shop", past, "issuer"))),
        ("Authorization", signer.token(&claims("shop", always, "nobody"))),
        ("Authorization", Signer::new("EdDSA").token(&claims("shop", always, "issuer"))),
        ("Authorization", "Bearer none".to_owned()),
        ("Authorization", "Basic YTpi".to_owned()),
    ]
}

fn with(mut request: Request, token: &(&'static str, String)) -> Request {
    request.fields.push((token.0.to_owned(), token.1.clone()));
    request
}

/// Each path with each token and with none, and bodies at their bounds.
pub fn chosen(tokens: &[(&'static str, String)]) -> Vec<Request> {
    let mut chosen = Vec::new();
    for path in PATHS {
        chosen.push(request("GET", "other.example", path, &[], ""));
        chosen.extend(tokens.iter().map(|token| with(request("GET", "other.example", path, &[], ""), token)));
        for field in FIELDS {
            chosen.push(request("GET", "asked.example", path, &[field], ""));
        }
    }
    let preflight = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")];
    chosen.push(request("OPTIONS", "other.example", "/token", &preflight, ""));
    chosen.push(request("OPTIONS", "other.example", "/token", &[], ""));
    for length in [0, 1, 64, 65, 100, 200, 300, 400, 500] {
        chosen.push(request("POST", "asked.example", "/told", &[], &"x".repeat(length)));
        chosen.push(request("POST", "asked.example", "/other", &[], &"x".repeat(length)));
    }
    chosen
}

/// One request of chance.
pub fn generate(dice: &mut fastrand::Rng, tokens: &[(&'static str, String)]) -> Request {
    let method = METHODS[dice.usize(..METHODS.len())];
    let (host, path) = (HOSTS[dice.usize(..HOSTS.len())], PATHS[dice.usize(..PATHS.len())]);
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for _ in 0..dice.usize(..4) {
        let field = FIELDS[dice.usize(..FIELDS.len())];
        if !fields.iter().any(|(name, _)| *name == field.0) {
            fields.push(field);
        }
    }
    let body = if matches!(method, "POST" | "PUT") { "k=v&".repeat(dice.usize(..40)) } else { String::new() };
    let one = request(method, host, path, &fields, &body);
    if dice.bool() { with(one, &tokens[dice.usize(..tokens.len())]) } else { one }
}
