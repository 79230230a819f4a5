//! What chains of HTTPS serve and demand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use heddle_proto::envoy::config::rbac::v3 as rbac;
use heddle_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use heddle_proto::envoy::extensions::filters::http::rbac::v3::Rbac;
use heddle_proto::envoy::r#type::matcher::v3::StringMatcher;
use heddle_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Message;
use rbac::Permission;
use rbac::permission::Rule;

use super::*;
use crate::dialect::envoy::decode::{Piece, Unread};
use crate::dialect::envoy::kind::EnvoyKind;

fn certificate(id: &str, names: &[&str], demands: bool) -> Certificate {
    let client = ClientValidation { ca: "ca".into(), depth: 1, skip_uri_regex: Vec::new() };
    Certificate {
        id: id.into(),
        snis: names.iter().map(|name| Arc::from(*name)).collect(),
        listeners: Vec::new(),
        secrets: vec![id.into()],
        client: demands.then_some(client),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }
}

fn encoded(reader: Reader, certificates: &[Certificate]) -> Vec<wire::FilterChain> {
    wire::Listener::decode(body(reader, certificates)).unwrap().filter_chains
}

fn body(reader: Reader, certificates: &[Certificate]) -> Bytes {
    let listener = Listener { protocol: ListenerProtocol::Https, ..Listener::new("edge", "0.0.0.0:1".parse().unwrap()) };
    let certificates: Vec<&Certificate> = certificates.iter().collect();
    super::encode((reader, &listener), &certificates, &Filters::new(), &|_| Ok(None)).unwrap()
}

fn managed(chain: &wire::FilterChain) -> HttpConnectionManager {
    let Some(wire::filter::ConfigType::TypedConfig(config)) = &chain.filters[0].config_type else { panic!("{chain:?}") };
    HttpConnectionManager::decode(&*config.value).unwrap()
}

/// What keeps hosts out of a chain.
fn guard(chain: &wire::FilterChain) -> Option<rbac::Rbac> {
    let first = managed(chain).http_filters.remove(0);
    let Some(manager::http_filter::ConfigType::TypedConfig(config)) = first.config_type else { panic!("no configuration") };
    (first.name == "heddle.misdirected").then(|| Rbac::decode(&*config.value).unwrap().rules.unwrap())
}

/// What Envoy makes of it for a request of this host.
fn passes(rules: &rbac::Rbac, host: &str) -> bool {
    let holds = rules.policies.values().any(|policy| policy.permissions.iter().any(|permission| fits(permission, host)));
    holds == (rules.action == rbac::rbac::Action::Allow as i32)
}

fn fits(permission: &Permission, host: &str) -> bool {
    match permission.rule.as_ref().unwrap() {
        Rule::AndRules(set) => set.rules.iter().all(|rule| fits(rule, host)),
        Rule::OrRules(set) => set.rules.iter().any(|rule| fits(rule, host)),
        Rule::NotRule(rule) => !fits(rule, host),
        Rule::Header(header) => {
            let Some(HeaderMatchSpecifier::StringMatch(matcher)) = &header.header_match_specifier else { panic!("{header:?}") };
            assert_eq!(header.name, ":authority");
            says(matcher, host)
        }
        other => panic!("{other:?}"),
    }
}

fn says(matcher: &StringMatcher, host: &str) -> bool {
    let lower = if matcher.ignore_case { host.to_ascii_lowercase() } else { host.to_owned() };
    match matcher.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => lower == *text,
        MatchPattern::Prefix(text) => lower.starts_with(text),
        MatchPattern::Suffix(text) => lower.ends_with(text),
        MatchPattern::Contains(text) => lower.contains(text),
        MatchPattern::SafeRegex(pattern) if pattern.regex == misdirected::SHAPE => {
            let (name, port) = host.split_once(':').unwrap_or((host, ""));
            name.bytes().all(|byte| byte.is_ascii_graphic()) && port.bytes().all(|byte| byte.is_ascii_digit())
        }
        MatchPattern::SafeRegex(pattern) => {
            let dots = pattern.regex.strip_prefix(r"(?:\C*\.){").and_then(|rest| rest.strip_suffix(r"}\C*")).unwrap();
            host.matches('.').count() >= dots.parse().unwrap()
        }
    }
}

/// The certificate of a host as our agents look for it.
fn found<'c>(certificates: &'c [Certificate], host: &str) -> Option<&'c Certificate> {
    let has = |name: &str| certificates.iter().find(|certificate| certificate.snis.iter().any(|sni| **sni == *name));
    let wild = || has(&format!("*{}", &host[host.find('.')?..]));
    has(host).or_else(wild).or_else(|| has("*"))
}

/// Whether our agents serve it where this certificate was shown.
fn is_served(own: &Certificate, certificates: &[Certificate], host: &str) -> bool {
    match found(certificates, host) {
        Some(other) if other.id == own.id => true,
        Some(other) => other.client.is_none() && own.client.is_none(),
        None => own.client.is_none(),
    }
}

#[test]
fn no_chain_serves_hosts_whose_certificate_demands_more_of_clients() {
    let worlds = [
        vec![certificate("open", &["open.a.org"], false), certificate("mt", &["mt.a.org"], true)],
        vec![certificate("open", &["open.a.org", "*.open.a.org"], false), certificate("mt", &["*.a.org"], true)],
        vec![certificate("mt", &["mt.a.org", "*.mt.a.org"], true), certificate("rest", &["*"], false)],
        vec![certificate("open", &["open.a.org", "*.open.a.org"], false), certificate("rest", &["*"], true)],
        vec![certificate("mt", &["*.a.org"], true), certificate("other", &["mt.a.org", "*.b.org"], true)],
        vec![
            certificate("open", &["*.a.org"], false),
            certificate("mt", &["mt.a.org"], true),
            certificate("x", &["mt.a.org"], false),
        ],
    ];
    let hosts = [
        "open.a.org",
        "mt.a.org",
        "x.a.org",
        "x.open.a.org",
        "x.mt.a.org",
        "x.b.org",
        "b.org",
        "a.org",
        "xmt.a.org",
        "mt.a.org.b.org",
    ];
    for certificates in &worlds {
        for chain in encoded(Reader::Envoy, certificates) {
            let own = certificates.iter().find(|one| chain.name.trim_end_matches("/*") == &*one.id).unwrap();
            let guard = guard(&chain);
            for host in hosts {
                let expected = is_served(own, certificates, host);
                // What is deeper than a wildcard of theirs has a story of its own.
                let may_differ = expected && is_deeper(own, certificates, host);
                let upper = host.to_ascii_uppercase();
                let ports = [":443", ".", ".:8443", ":"].map(|behind| format!("{host}{behind}"));
                for said in [host.to_owned(), upper].into_iter().chain(ports) {
                    let told = guard.as_ref().is_none_or(|guard| passes(guard, &said));
                    assert!(told == expected || may_differ, "{said} in the chain {} of {certificates:?}: {told}", chain.name);
                }
            }
        }
    }
}

/// Whether it falls under a wildcard of somebody else who demands a certificate, more than one label before it.
fn is_deeper(own: &Certificate, certificates: &[Certificate], host: &str) -> bool {
    let demanded = certificates.iter().filter(|other| other.client.is_some() && other.id != own.id);
    let mut endings = demanded.flat_map(|other| &other.snis).filter_map(|name| name.strip_prefix('*'));
    endings.any(|ending| !ending.is_empty() && host.strip_suffix(ending).is_some_and(|before| before.contains('.')))
}

#[test]
fn what_is_deeper_than_a_wildcard_is_kept_out_as_envoy_and_as_our_agents_look_for_its_certificate() {
    let of = |certificates: &[Certificate], chain: &str, host: &str| {
        let chains = encoded(Reader::Envoy, certificates);
        let chain = chains.iter().find(|one| one.name == chain).unwrap();
        guard(chain).is_none_or(|guard| passes(&guard, host))
    };
    let demanded = [certificate("open", &["open.org"], false), certificate("mt", &["*.a.org"], true)];
    assert!(!of(&demanded, "open", "y.x.a.org"), "by its server name it is a host of mt at Envoy");
    let rest = [certificate("open", &["*.a.org"], false), certificate("mt", &["*"], true)];
    assert!(of(&rest, "open", "x.a.org"));
    assert!(!of(&rest, "open", "y.x.a.org"), "at our agents it is one of mt");
}

#[test]
fn nothing_that_envoy_takes_for_the_port_of_a_host_gets_around_a_certificate() {
    let certificates = [certificate("open", &["open.a.org"], false), certificate("mt", &["*.a.org", "mt.org"], true)];
    let chains = encoded(Reader::Envoy, &certificates);
    let open = guard(chains.iter().find(|chain| chain.name == "open").unwrap()).unwrap();
    let mt = guard(chains.iter().find(|chain| chain.name == "mt").unwrap()).unwrap();
    for host in
        ["mt.org:x", "mt.org:", "mt.org.:x", "x.a.org:y", "open.a.org:80.x.a.org", "x.a.org:1.open.a.org", "open.a.org:x.a.org:1"]
    {
        assert!(!passes(&open, host), "{host}");
    }
    for host in ["mt.org:80.open.a.org", "open.a.org:1.x.a.org", "open.org:x.a.org", ""] {
        assert!(!passes(&mt, host), "{host}");
    }
}

#[test]
fn chains_are_guarded_where_somebody_demands_a_certificate_and_agents_of_ours_guard_themselves() {
    let open = [certificate("a", &["a.org"], false), certificate("b", &["*"], false)];
    assert!(encoded(Reader::Envoy, &open).iter().all(|chain| guard(chain).is_none()));
    let demanded = [certificate("a", &["a.org"], false), certificate("b", &["b.org"], true)];
    assert!(encoded(Reader::Envoy, &demanded).iter().all(|chain| guard(chain).is_some()));
    assert!(encoded(Reader::Agent, &demanded).iter().all(|chain| guard(chain).is_none()));
}

#[test]
fn with_very_many_names_a_chain_serves_those_of_its_own_certificate() {
    let demanding = (0..1_001).map(|number| certificate(&format!("mt-{number}"), &[&format!("mt-{number}.org")], true));
    let certificates: Vec<Certificate> =
        demanding.chain([certificate("open", &["open.org"], false), certificate("also", &["also.org"], false)]).collect();
    let chains = encoded(Reader::Envoy, &certificates);
    let open = guard(chains.iter().find(|chain| chain.name == "open").unwrap()).unwrap();
    assert!(passes(&open, "open.org") && !passes(&open, "mt-7.org") && !passes(&open, "also.org"));
    assert!(open.encoded_len() < 1_000);
    let fewer = &certificates[500..];
    let open = guard(encoded(Reader::Envoy, fewer).iter().find(|chain| chain.name == "open").unwrap()).unwrap();
    assert!(passes(&open, "open.org") && !passes(&open, "mt-700.org") && passes(&open, "also.org"));
}

#[test]
fn a_listener_of_very_many_certificates_is_no_larger_than_a_message_may_be() {
    let open = (0..1_900).map(|number| certificate(&format!("open-{number}"), &[&format!("open-{number}.example")], false));
    let strict = (0..190).map(|number| certificate(&format!("strict-{number}"), &[&format!("strict-{number}.example")], true));
    let certificates: Vec<Certificate> = open.chain(strict).collect();
    let size = body(Reader::Envoy, &certificates).len();
    assert!(size < 16 << 20, "{size} bytes");
    let chains = encoded(Reader::Envoy, &certificates);
    let open = guard(chains.iter().find(|chain| chain.name == "open-0").unwrap()).unwrap();
    assert!(passes(&open, "open-0.example") && !passes(&open, "strict-0.example"));
}

#[test]
fn chains_of_clients_are_as_long_as_our_agents_take_them_and_envoy_counts_the_root() {
    let chain = encoded(Reader::Envoy, &[certificate("mt", &["mt.org"], true)]).remove(0);
    let Some(base::transport_socket::ConfigType::TypedConfig(config)) = chain.transport_socket.unwrap().config_type else {
        panic!("no configuration")
    };
    let context = tls::DownstreamTlsContext::decode(&*config.value).unwrap();
    let Some(ValidationContextType::CombinedValidationContext(both)) =
        context.common_tls_context.unwrap().validation_context_type
    else {
        panic!("no roots")
    };
    assert_eq!(both.default_validation_context.unwrap().max_verify_depth, Some(2));
    assert_eq!(both.validation_context_sds_secret_config.unwrap().name, "ca");
}

#[test]
fn agents_on_envoys_types_take_chains_of_clients_as_long_as_those_on_our_own() {
    for depth in [0, 1, 255] {
        let mut demanding = certificate("mt", &["mt.org"], true);
        demanding.client.as_mut().unwrap().depth = depth;
        let body = body(Reader::Agent, &[demanding]);
        let Piece::Listener(door) = Unread::new(EnvoyKind::Listener, &body).unwrap().read().unwrap() else {
            panic!("another kind")
        };
        let client = door.chains[0].certificate.as_ref().unwrap().client.as_ref().unwrap();
        assert_eq!(client.depth, depth);
    }
}

#[test]
fn requests_of_http_1_0_are_taken() {
    let chain = encoded(Reader::Envoy, &[certificate("a", &["a.org"], false)]).remove(0);
    assert!(managed(&chain).http_protocol_options.unwrap().accept_http_10);
}

#[test]
fn a_name_with_a_star_inside_is_left_out_by_itself_and_named() {
    let deep = format!("*.{}org", "a.".repeat(30));
    let mixed = certificate("mixed", &["*x.org", "a.org", "*.b.org", "*", "*.*.org", "c*.org", &deep], false);
    let (left, reason) = usable(&mixed);
    assert_eq!(left.snis.iter().map(|name| &**name).collect::<Vec<_>>(), ["a.org", "*.b.org", "*"]);
    assert!(reason.unwrap().starts_with("snis: `*x.org`, `*.*.org`, `c*.org`, `*.a.a."));
    let good = certificate("good", &["a.org"], false);
    assert_eq!(usable(&good), (Cow::Borrowed(&good), None));
}
