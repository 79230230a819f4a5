//! Fields that proxies must take off, put on or correct. Pure functions over heads; RFC 9110 section 7.6 and the X-Forwarded-* customs.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::exchange::client::{forwarded_for, parse_hop};
use crate::http::digits::{AddressText, Digits};
use crate::http::{Fields, Method, Name, RequestHead, Version};

/// Takes off what speaks to the next hop only: the known hop-by-hop fields and whatever `Connection` names (RFC 9110 section 7.6.1).
///
/// `Content-Length` stays: the codecs own the framing and read it where a body's length is not known otherwise.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if fields.contains_known(Name::Connection) {
        for name in connection_options(fields) {
            fields.remove(&name);
        }
    }
    fields.remove_set(Name::HOP_BY_HOP);
}

/// The field names that `Connection` lists, except options that are no fields, fields that go in any case, and those that end-to-end semantics or our own routing rest on: naming them must not take them off.
fn connection_options(fields: &Fields) -> Vec<Vec<u8>> {
    let stays = |name: &[u8]| {
        let id = Name::find(name);
        if id == Name::Other {
            return name.is_empty() || name.eq_ignore_ascii_case(b"close");
        }
        id.is_hop_by_hop()
            || matches!(
                id,
                Name::Host
                    | Name::ContentType
                    | Name::Authorization
                    | Name::Cookie
                    | Name::XForwardedFor
                    | Name::XForwardedHost
                    | Name::XForwardedPort
                    | Name::XForwardedProto
                    | Name::XRealIp
                    | Name::XForwardedClientCert
                    | Name::Forwarded
                    | Name::Via
                    | Name::XRequestId
            )
    };
    let lines = fields.get_all_known(Name::Connection).flat_map(|value| value.split(|byte| *byte == b','));
    lines.map(<[u8]>::trim_ascii).filter(|name| !stays(name)).map(<[u8]>::to_vec).collect()
}

/// Whether a comma-separated list holds a token, in any case.
pub fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Whether the client asks to switch to WebSocket over HTTP/1.1 (RFC 6455 section 4.1: by a GET, which has no content) or by extended CONNECT (RFC 8441). Anything
/// else that says so is a request like others, which is judged and sent as what it is.
pub fn asks_for_websocket(head: &RequestHead) -> bool {
    match head.version {
        Version::Http2 => head.protocol.as_deref().is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")),
        Version::Http11 => {
            let fields = &head.fields;
            let has_content = fields.contains_known(Name::TransferEncoding)
                || fields.get_known(Name::ContentLength).is_some_and(|length| length.trim_ascii() != b"0");
            head.method == Method::Get
                && !has_content
                && fields.get_all_known(Name::Connection).any(|value| has_token(value, b"upgrade"))
                && fields.get_known(Name::Upgrade).is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(b"websocket"))
        }
        Version::Http10 => false,
    }
}

/// The client address: the peer, or, when the peer is trusted, the last address in `X-Forwarded-For` that is not itself trusted.
pub fn client_address(fields: &Fields, peer: SocketAddr, trusted: &[IpNet]) -> SocketAddr {
    if !is_trusted(peer.ip(), trusted) {
        return peer;
    }
    let mut client = peer;
    for hop in forwarded_for(fields) {
        let Some(address) = parse_hop(hop) else { break };
        client = address;
        if !is_trusted(address.ip(), trusted) {
            break;
        }
    }
    client
}

/// The client address as an Envoy that is not at the edge has it: the nearest hop of `X-Forwarded-For`, where that is an address and nothing else. What stands
/// before it anybody may have said. Lines that say nothing are none.
pub fn nearest_address(fields: &Fields, peer: SocketAddr) -> SocketAddr {
    let said = fields.get_all_known(Name::XForwardedFor).filter(|line| !line.is_empty()).last();
    let nearest = said
        .and_then(|line| line.rsplit(|byte| *byte == b',').next())
        .and_then(|hop| std::str::from_utf8(hop.trim_ascii()).ok()?.parse().ok());
    // An IPv4 address inside an IPv6 one is none of IPv4's there.
    let nearest = nearest.filter(|ip: &IpAddr| ip.to_canonical() == *ip);
    nearest.map_or(peer, |ip| SocketAddr::new(ip, 0))
}

/// Whether an address lies in one of the networks; IPv4-mapped IPv6 counts as IPv4.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|network| network.contains(&address))
}

/// What proxies tell the next hop about the client.
pub struct Forwarded<'a> {
    /// `http` or `https`, as the client spoke to us.
    pub scheme: &'a str,
    /// The peer of the connection.
    pub peer: &'a AddressText,
    /// The client as policies see it, when it is not the peer.
    pub client: Option<SocketAddr>,
    /// Port that the client connected to.
    pub local_port: u16,
    /// Whether the peer is a proxy of ours.
    pub trusted: bool,
    /// Whether `X-Forwarded-For` is what an Envoy makes of it: appended to whoever comes at the edge, and left as it is behind it.
    pub as_envoy: bool,
}

/// Sets `X-Forwarded-For/Proto/Host/Port` and `X-Real-IP`. From an untrusted peer what came is replaced, and `Forwarded` goes; from a trusted one
/// `X-Forwarded-For` is appended to and the others are kept where present. `X-Forwarded-Client-Cert` was taken off an untrusted one before any filter: what
/// stands there now was set by one, as it is configured.
pub fn set_forwarded(head: &mut RequestHead, hop: &Forwarded<'_>) {
    let fields = &mut head.fields;
    let stays = hop.as_envoy && hop.trusted;
    let is_kept = hop.as_envoy || hop.trusted;
    if !stays && is_kept && fields.contains_known(Name::XForwardedFor) {
        let mut chain: Vec<u8> = Vec::with_capacity(64);
        for line in fields.get_all_known(Name::XForwardedFor) {
            if !chain.is_empty() {
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(line);
        }
        chain.extend_from_slice(b", ");
        chain.extend_from_slice(hop.peer.ip());
        fields.set_own(Name::XForwardedFor, &chain);
    } else if !stays {
        fields.set_own(Name::XForwardedFor, hop.peer.ip());
    }
    if !hop.trusted {
        fields.remove_known(Name::Forwarded);
    }
    match hop.client {
        None => fields.set_own(Name::XRealIp, hop.peer.ip()),
        Some(client) => fields.set_own(Name::XRealIp, AddressText::of(client).ip()),
    }
    let keeps = |fields: &Fields, name| hop.trusted && fields.contains_known(name);
    if !keeps(fields, Name::XForwardedProto) {
        fields.set_own(Name::XForwardedProto, hop.scheme.as_bytes());
    }
    if !keeps(fields, Name::XForwardedHost) {
        fields.set_own(Name::XForwardedHost, head.authority.as_bytes());
    }
    if !keeps(fields, Name::XForwardedPort) {
        let mut port = Digits::default();
        fields.set_own(Name::XForwardedPort, port.of(u64::from(hop.local_port)));
    }
}

/// Takes off what tells of the caller's certificate, however it is spelled: CGI and its like do not tell `_` from `-`. Whether there was anything.
pub fn remove_client_cert(fields: &mut Fields) -> bool {
    let told = fields.remove_known(Name::XForwardedClientCert) > 0;
    remove_underscored_as(fields, Name::XForwardedClientCert.as_str().as_bytes()) || told
}

/// Before the names of fields that Envoy sets, or is told by.
const OF_ENVOY: &[u8] = b"x-envoy-";
/// Those that Envoy takes off whoever sends them, as far as they come from outside: measured with 1.40.
const OF_NOBODY: [&[u8]; 16] = [
    b"expected-rq-timeout-ms",
    b"force-trace",
    b"hedge-on-per-try-timeout",
    b"internal",
    b"ip-tags",
    b"max-retries",
    b"original-url",
    b"retriable-header-names",
    b"retriable-status-codes",
    b"retry-grpc-on",
    b"retry-on",
    b"upstream-alt-stat-name",
    b"upstream-rq-per-try-timeout-ms",
    b"upstream-rq-timeout-alt-response",
    b"upstream-rq-timeout-ms",
    b"upstream-stream-duration-ms",
];
/// Those that the first Envoy behind a client says, which later ones pass on.
const OF_THE_EDGE: [&[u8]; 6] = [
    b"decorator-operation",
    b"downstream-service-cluster",
    b"downstream-service-node",
    b"external-address",
    b"original-host",
    b"original-path",
];

/// Takes off what only an Envoy may say, however it is spelled; of the edge, where the client is not `trusted`.
pub fn remove_of_envoy(fields: &mut Fields, trusted: bool) {
    fields.retain(|field| {
        let rest = field.name.split_at_checked(OF_ENVOY.len()).filter(|(prefix, _)| is_spelled(prefix, OF_ENVOY));
        let Some((_, rest)) = rest else { return true };
        let is_one = |names: &[&[u8]]| names.iter().any(|name| is_spelled(rest, name));
        !(is_one(&OF_NOBODY) || !trusted && is_one(&OF_THE_EDGE))
    });
}

/// Whether it is this name in small letters, with underscores and hyphens taken for the same.
fn is_spelled(said: &[u8], name: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    said.len() == name.len() && said.iter().map(plain).eq(name.iter().copied())
}

/// Takes off fields without a known name that spell this one, with underscores and hyphens taken for the same. Whether there was any with an underscore.
pub fn remove_underscored_as(fields: &mut Fields, name: &[u8]) -> bool {
    if !fields.underscored && !name.contains(&b'_') {
        return false;
    }
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let mut found = false;
    fields.retain(|field| {
        let is_it =
            field.id == Name::Other && field.name.len() == name.len() && field.name.iter().map(plain).eq(name.iter().map(plain));
        found |= is_it;
        !is_it
    });
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        list.iter().for_each(|(name, value)| fields.append(name, value));
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| String::from_utf8_lossy(field.name).into_owned()).collect()
    }

    #[test]
    fn an_envoy_believes_the_nearest_hop_alone_and_tells_on_what_it_was_told() {
        let peer: SocketAddr = "10.0.0.2:1000".parse().unwrap();
        let nearest = |said: &str| nearest_address(&fields(&[("X-Forwarded-For", said)]), peer).ip().to_string();
        assert_eq!(nearest("9.9.9.9, 1.1.1.1"), "1.1.1.1", "the first is whatever the client has said");
        for odd in ["9.9.9.9:80", "9.9.9.9, x", "::ffff:9.9.9.9"] {
            assert_eq!(nearest(odd), "10.0.0.2", "{odd}");
        }
        let lines = fields(&[("X-Forwarded-For", "9.9.9.9"), ("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "")]);
        assert_eq!(nearest_address(&lines, peer).ip().to_string(), "1.1.1.1", "a line that says nothing is none");
        assert_eq!(nearest_address(&fields(&[]), peer), peer);
        let told = |said: &[(&str, &str)], trusted: bool| {
            let mut head = RequestHead { fields: fields(said), ..RequestHead::default() };
            let hop =
                Forwarded { scheme: "http", peer: &AddressText::of(peer), client: None, local_port: 80, trusted, as_envoy: true };
            set_forwarded(&mut head, &hop);
            head.fields.get_str("x-forwarded-for").map(str::to_owned)
        };
        let said = [("X-Forwarded-For", "9.9.9.9, 1.1.1.1")];
        assert_eq!(told(&said, true).as_deref(), Some("9.9.9.9, 1.1.1.1"));
        assert_eq!(told(&[], true), None);
        assert_eq!(told(&said, false).as_deref(), Some("9.9.9.9, 1.1.1.1, 10.0.0.2"));
        assert_eq!(told(&[], false).as_deref(), Some("10.0.0.2"));
    }

    #[test]
    fn what_connection_names_goes_but_it_cannot_take_off_what_others_rely_on() {
        let mut f = fields(&[
            ("Connection", "close, X-Hop, Authorization"),
            ("X-Hop", "1"),
            ("Authorization", "x"),
            ("Keep-Alive", "5"),
            ("A", "b"),
        ]);
        strip_hop_by_hop(&mut f);
        assert_eq!(names(&f), ["Authorization", "A"]);
    }

    #[test]
    fn only_a_get_without_content_asks_for_a_websocket() {
        let asks = |method: Method, more: &[(&str, &str)]| {
            let fields = fields(&[&[("Connection", "Upgrade"), ("Upgrade", "websocket")], more].concat());
            asks_for_websocket(&RequestHead { method, version: Version::Http11, fields, ..RequestHead::default() })
        };
        assert!(asks(Method::Get, &[]) && asks(Method::Get, &[("Content-Length", "0")]));
        assert!(!asks(Method::Post, &[]), "it would be judged as a GET, and be none");
        assert!(!asks(Method::Get, &[("Content-Length", "3")]), "its content would be the first bytes of what follows");
        assert!(!asks(Method::Get, &[("Transfer-Encoding", "chunked")]));
    }

    #[test]
    fn what_only_envoys_say_is_taken_off_and_that_of_the_edge_of_clients_alone() {
        let said = |trusted| {
            let mut f = fields(&[
                ("X-Envoy-Internal", "true"),
                ("x_envoy_retry_on", "5xx"),
                ("x-envoy-upstream-rq-timeout-ms", "1"),
                ("x-envoy-external-address", "192.0.2.1"),
                ("x-envoy-original-path", "/a"),
                ("x-envoy-attempt-count", "1"),
                ("x-envoy-", "a"),
                ("x-env", "b"),
            ]);
            remove_of_envoy(&mut f, trusted);
            names(&f).join(" ")
        };
        assert_eq!(said(false), "x-envoy-attempt-count x-envoy- x-env");
        assert_eq!(said(true), "x-envoy-external-address x-envoy-original-path x-envoy-attempt-count x-envoy- x-env");
    }

    #[test]
    fn nobody_names_a_certificate_by_another_spelling() {
        let mut f = fields(&[
            ("X-Forwarded-Client-Cert", "a"),
            ("x_forwarded-client_cert", "b"),
            ("X_Forwarded_Client_Cert", "c"),
            ("x_forwarded_client_carp", "d"),
        ]);
        assert!(remove_client_cert(&mut f) && !remove_client_cert(&mut f));
        assert_eq!(names(&f), ["x_forwarded_client_carp"]);
    }

    #[test]
    fn an_untrusted_peer_cannot_say_who_the_client_is() {
        let peer: SocketAddr = "198.51.100.7:1000".parse().unwrap();
        let f = fields(&[("X-Forwarded-For", "10.0.0.1")]);
        assert_eq!(client_address(&f, peer, &[]), peer);
        let mut head = RequestHead { fields: f, authority: "a.example".into(), ..RequestHead::default() };
        head.fields.append("Forwarded", "for=10.0.0.1");
        let hop = Forwarded {
            scheme: "https",
            peer: &AddressText::of(peer),
            client: None,
            local_port: 443,
            trusted: false,
            as_envoy: false,
        };
        set_forwarded(&mut head, &hop);
        assert_eq!(head.fields.get_str("x-forwarded-for"), Some("198.51.100.7"));
        assert_eq!(head.fields.get_str("x-forwarded-host"), Some("a.example"));
        assert_eq!(head.fields.get_str("x-forwarded-port"), Some("443"));
        assert_eq!(head.fields.get("forwarded"), None);
    }

    #[test]
    fn behind_trusted_proxies_the_client_is_the_last_untrusted_hop() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let peer: SocketAddr = "10.0.0.2:5".parse().unwrap();
        let f = fields(&[("X-Forwarded-For", "6.6.6.6, 203.0.113.9"), ("X-Forwarded-For", "10.0.0.9")]);
        assert_eq!(client_address(&f, peer, &trusted).ip().to_string(), "203.0.113.9");
        let mut head = RequestHead { fields: f, ..RequestHead::default() };
        let client = Some("203.0.113.9:0".parse().unwrap());
        set_forwarded(
            &mut head,
            &Forwarded { scheme: "http", peer: &AddressText::of(peer), client, local_port: 80, trusted: true, as_envoy: false },
        );
        assert_eq!(head.fields.get_str("x-forwarded-for"), Some("6.6.6.6, 203.0.113.9, 10.0.0.9, 10.0.0.2"));
        assert_eq!(head.fields.get_str("x-real-ip"), Some("203.0.113.9"));
    }
}
