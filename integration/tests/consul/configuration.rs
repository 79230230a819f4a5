//! Configuration that lies in Consul: resources behind keys, routes by tags of services.

use heddle_integration::churn::everywhere;
use heddle_integration::client;
use heddle_integration::consul::Consul;
use heddle_integration::heddle::{Heddle, Setup};
use heddle_integration::process::until;
use serde_json::{Value, json};

fn with(consul: &Consul, more: &str) -> Heddle {
    let more = format!("providers: {{ consul: {{ address: \"{}\", {more} }} }}\n", consul.uri());
    Heddle::run_with(Setup { more, ..Setup::default() })
}

fn status(heddle: &Heddle) -> String {
    heddle.admin("GET", "/status", Value::Null).text()
}

#[test]
fn keys_are_resources_each_judged_by_itself() {
    let (mut consul, port) = (Consul::start(), everywhere());
    let route = |uri: &str| json!({ "uri": uri, "upstream_id": "all" }).to_string();
    consul.key("mine/upstreams/all", &format!("nodes:\n  \"127.140.0.1:{port}\": 1\n"));
    consul.key("mine/routes/a", &route("/a"));
    let mut heddle = with(&consul, "kv: { prefix: mine }");
    assert_eq!(heddle.until_status("/a", 200).text(), "127.140.0.1");
    consul.key("mine/routes/b", &route("/b"));
    heddle.until_status("/b", 200);
    consul.key("mine/routes/a", "{\"uri\": ");
    consul.key("mine/routes/c", &route("/c"));
    heddle.until_status("/c", 200);
    until("the fault to be told", || status(&heddle).contains("mine/routes/a").then_some(()));
    assert_eq!(heddle.get("/a").status, 200, "the last good content stays");
    assert_eq!(consul.ask("DELETE", "/v1/kv/mine/routes/b", &Value::Null).unwrap().status, 200);
    heddle.until_status("/b", 404);
    consul.key("mine/routes/a", &route("/d"));
    heddle.until_status("/d", 200);
    heddle.until_status("/a", 404);
    consul.process.kill();
    until("that Consul is away to be told", || status(&heddle).contains("is the agent running").then_some(()));
    heddle.restart();
    assert_eq!(heddle.until_status("/d", 200).text(), "127.140.0.1", "a start without Consul has it too");
    heddle.until_status("/c", 200);
}

#[test]
fn services_ask_for_routes_by_their_tags() {
    let (consul, port) = (Consul::start(), everywhere());
    let at = |ip: &str| std::net::SocketAddr::new(ip.parse().unwrap(), port);
    let tags = |rule: &str| {
        json!({ "Tags": [
            "traefik.enable=true",
            format!("traefik.http.routers.web.rule={rule}"),
            "traefik.http.routers.web.middlewares=mark",
            "traefik.http.middlewares.mark.headers.customresponseheaders.X-Mark=yes",
        ] })
    };
    consul.register("shop", "s1", at("127.141.0.1"), &tags("Host(`shop.example`) && PathPrefix(`/api`)"));
    consul.register("hidden", "h1", at("127.141.0.9"), &json!({ "Tags": ["v1"] }));
    let heddle = with(&consul, "catalog: { allow_local: true }");
    let ask = |host: &str, path: &str| client::send(heddle.http, "GET", path, &[("Host", host)], b"").ok();
    let answer = until("the shop", || ask("shop.example", "/api/x").filter(|answer| answer.status == 200));
    assert_eq!((answer.text().as_str(), answer.field("x-mark")), ("127.141.0.1", Some("yes")));
    assert_eq!(ask("shop.example", "/other").unwrap().status, 404);
    assert_eq!(ask("hidden", "/").unwrap().status, 404);
    consul.register("shop", "s1", at("127.141.0.1"), &tags("Host(`shop.example`) && Method(`GET`) && !Path(`/no`)"));
    until("the changed rule", || ask("shop.example", "/other").filter(|answer| answer.status == 200));
    assert_eq!(ask("shop.example", "/no").unwrap().status, 404);
    let guarded = with(&consul, "catalog: {}");
    let asked = until("the route of the guarded one", || {
        let answer = client::send(guarded.http, "GET", "/other", &[("Host", "shop.example")], b"").ok()?;
        (answer.status != 404).then_some(answer)
    });
    assert_eq!(asked.status, 503, "who registers a service does not choose the host's own addresses: {}", asked.text());
    until("what is left out to be told", || {
        let shown = guarded.admin("GET", "/discovery/services", Value::Null).json();
        shown[0]["left_out"].as_str()?.contains("allow_local").then_some(())
    });
    consul.register("shop", "s1", at("127.141.0.1"), &tags("Hots(`shop.example`)"));
    until("the fault to be told", || status(&heddle).contains("unknown matcher Hots").then_some(()));
    assert_eq!(ask("shop.example", "/other").unwrap().status, 200, "the last good routes stay");
    consul.deregister("s1");
    until("the route to go", || ask("shop.example", "/other").filter(|answer| answer.status == 404));
}
