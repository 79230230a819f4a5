//! The page of those who come from APISIX and Traefik, held to the plugins that there are and to the ones that they know.

use std::collections::BTreeSet;

use heddle_agent::filters::Registry;
use heddle_integration::pages;
use heddle_xds::catalog::Catalog;

/// Every plugin of APISIX 3.18 for requests.
const APISIX: [&str; 120] = [
    "acl",
    "ai",
    "ai-aliyun-content-moderation",
    "ai-aws-content-moderation",
    "ai-cache",
    "ai-lakera-guard",
    "ai-prompt-decorator",
    "ai-prompt-guard",
    "ai-prompt-template",
    "ai-proxy",
    "ai-proxy-multi",
    "ai-rag",
    "ai-rate-limiting",
    "ai-request-rewrite",
    "api-breaker",
    "attach-consumer-label",
    "authz-casbin",
    "authz-casdoor",
    "authz-keycloak",
    "aws-lambda",
    "azure-functions",
    "basic-auth",
    "batch-requests",
    "body-transformer",
    "brotli",
    "cas-auth",
    "chaitin-waf",
    "clickhouse-logger",
    "client-control",
    "consumer-restriction",
    "cors",
    "csrf",
    "data-mask",
    "datadog",
    "degraphql",
    "dingtalk-auth",
    "dubbo-proxy",
    "echo",
    "elasticsearch-logger",
    "error-log-logger",
    "error-page",
    "example-plugin",
    "exit-transformer",
    "ext-plugin-post-req",
    "ext-plugin-post-resp",
    "ext-plugin-pre-req",
    "fault-injection",
    "feishu-auth",
    "file-logger",
    "forward-auth",
    "gm",
    "google-cloud-logging",
    "graphql-limit-count",
    "graphql-proxy-cache",
    "grpc-transcode",
    "grpc-web",
    "gzip",
    "hmac-auth",
    "http-dubbo",
    "http-logger",
    "inspect",
    "ip-restriction",
    "jwe-decrypt",
    "jwt-auth",
    "kafka-logger",
    "kafka-proxy",
    "key-auth",
    "lago",
    "ldap-auth",
    "ldap-auth-advanced",
    "limit-conn",
    "limit-count",
    "limit-req",
    "log-rotate",
    "loggly",
    "loki-logger",
    "mcp-bridge",
    "mocking",
    "multi-auth",
    "node-status",
    "oas-validator",
    "ocsp-stapling",
    "opa",
    "openfunction",
    "openid-connect",
    "opentelemetry",
    "openwhisk",
    "prometheus",
    "proxy-buffering",
    "proxy-cache",
    "proxy-control",
    "proxy-mirror",
    "proxy-rewrite",
    "public-api",
    "real-ip",
    "redirect",
    "referer-restriction",
    "request-id",
    "request-validation",
    "response-rewrite",
    "rocketmq-logger",
    "saml-auth",
    "server-info",
    "serverless-post-function",
    "serverless-pre-function",
    "skywalking",
    "skywalking-logger",
    "sls-logger",
    "splunk-hec-logging",
    "syslog",
    "tcp-logger",
    "tencent-cloud-cls",
    "traffic-label",
    "traffic-split",
    "ua-restriction",
    "udp-logger",
    "uri-blocker",
    "wolf-rbac",
    "workflow",
    "zipkin",
];

/// Every HTTP middleware of Traefik 3.
const MIDDLEWARES: [&str; 25] = [
    "addPrefix",
    "basicAuth",
    "buffering",
    "chain",
    "circuitBreaker",
    "compress",
    "contentType",
    "digestAuth",
    "encodedCharacters",
    "errors",
    "forwardAuth",
    "grpcWeb",
    "headers",
    "inFlightReq",
    "ipAllowList",
    "passTLSClientCert",
    "plugin",
    "rateLimit",
    "redirectRegex",
    "redirectScheme",
    "replacePath",
    "replacePathRegex",
    "retry",
    "stripPrefix",
    "stripPrefixRegex",
];

/// What takes the place of a middleware and is no plugin.
const NO_PLUGINS: [&str; 2] = ["plugin_config", "paths"];

/// A row of a table: what stands in its first column between backticks, and its second column.
struct Row {
    theirs: Vec<String>,
    ours: String,
}

/// The rows of all tables of a part of the page.
fn rows(part: &str) -> Vec<Row> {
    let cells = |line: &str| line.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned()).collect::<Vec<_>>();
    let row = |cells: Vec<String>| Row { theirs: ticked(&cells[0]), ours: cells[1].clone() };
    part.lines().filter(|line| line.starts_with("| ") && line.contains('`')).map(|line| row(cells(line))).collect()
}

fn ticked(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The plugins that a second column names, by backticks or by links.
fn named(ours: &str) -> Vec<String> {
    let linked = ours.split("](").skip(1).filter_map(|rest| rest.split_once(".md)")).map(|(name, _)| name.to_owned());
    ticked(ours).into_iter().chain(linked).collect()
}

fn is_missing(ours: &str) -> bool {
    ours.starts_with("later") || ours.starts_with("never")
}

fn known() -> BTreeSet<String> {
    Registry::default().descriptors().iter().map(|descriptor| descriptor.name.to_owned()).collect()
}

/// The parts of the page: plugins of APISIX, middlewares of Traefik, services of Traefik.
fn parts(page: &str) -> [&str; 3] {
    let (apisix, traefik) = page.split_once("\n## Traefik\n").unwrap();
    let (middlewares, services) = traefik.split_once("\n### Services\n").unwrap();
    [apisix, middlewares, services]
}

#[test]
fn what_the_page_names_is_there() {
    let (page, known) = (pages::text("migration"), known());
    let [apisix, middlewares, services] = parts(&page);
    for row in rows(apisix).iter().chain(&rows(middlewares)).filter(|row| !is_missing(&row.ours)) {
        let names = named(&row.ours);
        assert!(!names.is_empty(), "{:?}: nothing takes its place", row.theirs);
        for name in names.iter().filter(|name| !NO_PLUGINS.contains(&name.as_str())) {
            assert!(known.contains(name), "{:?}: there is no plugin {name}", row.theirs);
        }
    }
    for link in services.split("](").skip(1).filter_map(|rest| rest.split_once(".md)")) {
        assert!(known.contains(link.0), "there is no plugin {}", link.0);
    }
}

#[test]
fn every_plugin_of_apisix_and_every_middleware_of_traefik_is_named_once() {
    let (page, known) = (pages::text("migration"), known());
    let [apisix, middlewares, _] = parts(&page);
    let (http, stream) = apisix.split_once("| of stream routes").unwrap();
    for name in APISIX {
        let rows: Vec<Row> = rows(http).into_iter().filter(|row| row.theirs.iter().any(|theirs| theirs == name)).collect();
        assert_eq!(rows.len(), 1, "{name}");
        let here = named(&rows[0].ours).iter().any(|ours| ours == name);
        assert_eq!(here, known.contains(name), "{name}: the page says {:?}", rows[0].ours);
    }
    assert!(stream.contains("mqtt-proxy"));
    for name in MIDDLEWARES {
        let count = rows(middlewares).iter().filter(|row| row.theirs.iter().any(|theirs| theirs == name)).count();
        assert_eq!(count, 1, "{name}");
    }
    for row in rows(http) {
        for name in row.theirs.iter().filter(|name| *name != "retries") {
            assert!(APISIX.iter().any(|known| known == name), "{name} is no plugin of APISIX");
        }
    }
}

#[test]
fn every_plugin_of_ours_takes_the_place_of_something() {
    let page = pages::text("migration");
    let named: BTreeSet<String> = parts(&page).into_iter().flat_map(rows).flat_map(|row| named(&row.ours)).collect();
    let silent: Vec<String> = known().into_iter().filter(|name| !named.contains(name)).collect();
    assert!(silent.is_empty(), "the page does not name {silent:?}");
}
