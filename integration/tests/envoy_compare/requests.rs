//! Requests for two data planes with one configuration: some chosen for what they touch, others made of dice.

use std::fmt;

/// A request as it goes over the wire.
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        write!(f, "{} {} [{}] {} bytes", self.method, self.target, fields.join(", "), self.body.len())
    }
}

const METHODS: [&str; 8] = ["GET", "GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD"];
const HOSTS: [&str; 13] = [
    "shop.example",
    "SHOP.example:8080",
    "a.shop.example",
    "a.b.shop.example",
    "shop.test",
    "shop.",
    "xshop.example",
    "match.example",
    "match.example:80",
    "guarded.example",
    "pages.example",
    "other.example",
    "10.0.0.1",
];
const PATHS: [&str; 34] = [
    "/",
    "/api",
    "/api/",
    "/apix",
    "/api/v1",
    "/api/v1/carts/7",
    "/api/v12",
    "/api//v1/x",
    "/api/./v1/../v2",
    "/API/v1",
    "/healthz",
    "/admin/users",
    "/teapot",
    "/teapot/",
    "/old",
    "/old/x/y",
    "/older",
    "/secure",
    "/moved",
    "/item/12",
    "/item/12/parts",
    "/item/x",
    "/items/12",
    "/Case/one",
    "/cASEs",
    "/search",
    "/search/deep",
    "/split/x",
    "/lost",
    "/closed",
    "/a%20b",
    "/a%2Fb",
    "/sp%C3%A9cial",
    "/..",
];
const QUERIES: [&str; 10] = ["", "", "", "?q=1", "?kind=book&q=x", "?kind=ebook&q=x", "?kind=b", "?q=&kind=b", "?a=1&a=2", "?"];
const FIELDS: [(&str, &str); 20] = [
    ("x-canary", "1"),
    ("x-canary", "0"),
    ("X-Canary", "1"),
    ("x-age", "10"),
    ("x-age", "19"),
    ("x-age", "20"),
    ("x-age", "old"),
    ("x-tenant", "a.Example"),
    ("x-tenant", "apple"),
    ("x-tenant", "b"),
    ("x-secret", "s"),
    ("x-internal", "yes"),
    ("x-by", "client"),
    ("x-edge", "client"),
    ("x-want-status", "201"),
    ("x-want-status", "404"),
    ("x-want-status", "503"),
    ("Origin", "https://app.example"),
    ("Origin", "https://x.app.example"),
    ("Origin", "https://evil.example"),
];

/// A request of these parts.
pub fn request(method: &'static str, host: &str, target: &str, fields: &[(&str, &str)], body: &str) -> Request {
    let host = [("Host", host)];
    let fields = host.iter().chain(fields).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request { method, target: target.to_owned(), fields, body: body.to_owned() }
}

/// Requests that touch what dice seldom do.
pub fn chosen() -> Vec<Request> {
    let preflight_of = |host, origin| {
        let fields =
            [("Origin", origin), ("Access-Control-Request-Method", "POST"), ("Access-Control-Request-Headers", "x-tenant")];
        request("OPTIONS", host, "/api", &fields, "")
    };
    let preflight = |origin| preflight_of("guarded.example", origin);
    let post = |fields: &[(&str, &str)]| request("POST", "pages.example", "/form", fields, "k=v");
    let mut chosen: Vec<Request> =
        PATHS.iter().flat_map(|path| ["shop.example", "other.example"].map(|host| request("GET", host, path, &[], ""))).collect();
    chosen.extend([
        preflight("https://app.example"),
        preflight("https://evil.example"),
        preflight_of("pages.example", "https://app.example"),
        preflight_of("pages.example", "https://x.app.example"),
        preflight_of("pages.example", "https://evil.example"),
        post(&[]),
        post(&[("Origin", "https://pages.example")]),
        post(&[("Origin", "http://pages.example:8080")]),
        post(&[("Origin", "null")]),
        post(&[("Origin", "https://evil.example")]),
        post(&[("Origin", "https://x.app.example")]),
        post(&[("Origin", "https://app.example"), ("Referer", "https://evil.example/")]),
        post(&[("Referer", "https://pages.example/cart?a=b")]),
        post(&[("Referer", "https://evil.example/pages.example")]),
        request("GET", "pages.example", "/", &[("Origin", "https://evil.example")], ""),
        request("POST", "guarded.example", "/", &[], &"x".repeat(1024)),
        request("POST", "guarded.example", "/", &[], &"x".repeat(1025)),
        request("POST", "guarded.example", "/search", &[], &"x".repeat(4000)),
        request("GET", "guarded.example", "/api", &[("x-canary", "1")], ""),
        request("GET", "guarded.example", "/search", &[("x-want-status", "503")], ""),
    ]);
    chosen
}

/// One request of chance.
pub fn generate(dice: &mut fastrand::Rng) -> Request {
    let method = METHODS[dice.usize(..METHODS.len())];
    let host = HOSTS[dice.usize(..HOSTS.len())];
    let target = format!("{}{}", PATHS[dice.usize(..PATHS.len())], QUERIES[dice.usize(..QUERIES.len())]);
    let mut fields: Vec<(&str, &str)> = Vec::new();
    for _ in 0..dice.usize(..4) {
        let field = FIELDS[dice.usize(..FIELDS.len())];
        if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field.0)) {
            fields.push(field);
        }
    }
    let body = if matches!(method, "POST" | "PUT") { "k=v&".repeat(dice.usize(..40)) } else { String::new() };
    request(method, host, &target, &fields, &body)
}
