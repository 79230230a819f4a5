//! Which route a connection takes, by what it begins with. It reads no socket.

use std::sync::Arc;

use heddle_xds::model::TcpRoute;
use rustls::server::Acceptor;

/// First byte of a TLS handshake record, and the first of its version (RFC 8446 section 5.1).
const RECORD: [u8; 2] = [22, 3];
/// Longest ClientHello that is waited for: those of today have 2 KiB at most, also with post-quantum keys.
const MAX_HELLO: usize = 16 * 1024;

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opening {
    /// More must come.
    More,
    /// No TLS.
    Clear,
    /// TLS, with the lower-case server name that is asked for.
    Tls(Option<String>),
}

impl Opening {
    /// Looks at all bytes that have come.
    pub(super) fn of(input: &[u8]) -> Opening {
        let known = input.len().min(RECORD.len());
        if input[..known] != RECORD[..known] {
            return Opening::Clear;
        }
        let (mut acceptor, mut rest) = (Acceptor::default(), input);
        while !rest.is_empty() {
            match acceptor.read_tls(&mut rest) {
                Ok(read) if read > 0 => {}
                _ => return Opening::Tls(None),
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Opening::Tls(accepted.client_hello().server_name().map(str::to_ascii_lowercase));
                }
                // A handshake that we do not understand is still one, for whoever does.
                Err(_) => return Opening::Tls(None),
            }
        }
        if input.len() < MAX_HELLO { Opening::More } else { Opening::Tls(None) }
    }
}

/// Whether the route depends on what a connection begins with. Where it does not, whoever lets the server speak first is served, too.
pub(super) fn must_look(routes: &[Arc<TcpRoute>]) -> bool {
    routes.len() > 1 || routes.iter().any(|route| !route.server_names.is_empty() || route.for_tls.is_some())
}

/// The route of a connection: by the most telling server name, and of those with the same names one that asks for TLS or for none before one that takes both.
pub(super) fn choose<'r>(routes: &'r [Arc<TcpRoute>], opening: &Opening) -> Option<&'r Arc<TcpRoute>> {
    let (is_tls, name) = match opening {
        Opening::Tls(name) => (true, name.as_deref()),
        Opening::Clear | Opening::More => (false, None),
    };
    let fits = |route: &&Arc<TcpRoute>| route.for_tls.is_none_or(|wanted| wanted == is_tls);
    let named = |wanted: &dyn Fn(&TcpRoute) -> bool| {
        let all = || routes.iter().filter(fits).filter(|route| wanted(route));
        all().find(|route| route.for_tls.is_some()).or_else(|| all().next())
    };
    if let Some(name) = name {
        if let Some(exact) = named(&|route| route.server_names.iter().any(|own| **own == *name)) {
            return Some(exact);
        }
        let mut suffix = name;
        while let Some((_, rest)) = suffix.split_once('.') {
            let is_it = |own: &Arc<str>| own.strip_prefix("*.") == Some(rest);
            if let Some(found) = named(&|route| route.server_names.iter().any(is_it)) {
                return Some(found);
            }
            suffix = rest;
        }
    }
    named(&|route| route.server_names.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use heddle_node::identity::{Expect, Identity};
    use heddle_xds::model::TcpShare;
    use proptest::prelude::*;
    use rustls::ClientConnection;

    use super::*;

    fn route(upstream: &str, names: &[&str], for_tls: Option<bool>) -> Arc<TcpRoute> {
        Arc::new(TcpRoute {
            server_names: names.iter().map(|name| Arc::from(*name)).collect(),
            for_tls,
            terminate: false,
            upstreams: vec![TcpShare { upstream: upstream.into(), weight: 1 }],
            idle_timeout: Duration::ZERO,
            connect_attempts: None,
        })
    }

    fn hello(name: &'static str) -> Vec<u8> {
        let config = Identity::new().client_config(Expect::TrustDomain, &[]);
        let mut out = Vec::new();
        ClientConnection::new(config, name.try_into().unwrap()).unwrap().write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn the_server_name_is_found_once_all_of_the_hello_is_there() {
        let bytes = hello("Db.example.ORG");
        for end in (0..bytes.len()).step_by(41) {
            assert_eq!(Opening::of(&bytes[..end]), Opening::More, "{end}");
        }
        assert_eq!(Opening::of(&[&bytes[..], b"more"].concat()), Opening::Tls(Some("db.example.org".to_owned())));
        assert_eq!(Opening::of(b"PING\r\n"), Opening::Clear);
        assert_eq!(Opening::of(b"\x16\x00"), Opening::Clear);
        assert_eq!(Opening::of(b"\x16\x03\x01\x00\x05hello"), Opening::Tls(None));
        let endless = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0x7f, 0xff], &[0; MAX_HELLO]].concat();
        assert_eq!(Opening::of(&endless), Opening::Tls(None));
    }

    #[test]
    fn the_most_telling_name_wins_and_clear_text_only_fits_what_asks_for_no_name() {
        let routes = [
            route("rest", &[], None),
            route("clear", &[], Some(false)),
            route("wide", &["*.org"], None),
            route("narrow", &["*.a.org"], None),
            route("exact", &["b.a.org"], None),
        ];
        let of = |name: Option<&str>| {
            let opening = Opening::Tls(name.map(str::to_owned));
            choose(&routes, &opening).map(|route| &*route.upstreams[0].upstream)
        };
        for (name, expected) in [
            (Some("b.a.org"), "exact"),
            (Some("c.a.org"), "narrow"),
            (Some("x.c.a.org"), "narrow"),
            (Some("a.org"), "wide"),
            (Some("org"), "rest"),
            (None, "rest"),
        ] {
            assert_eq!(of(name), Some(expected), "{name:?}");
        }
        assert_eq!(choose(&routes, &Opening::Clear).map(|route| &*route.upstreams[0].upstream), Some("clear"));
        assert!(choose(&routes[2..], &Opening::Clear).is_none());
        assert!(!must_look(&routes[..1]) && must_look(&routes[1..2]) && must_look(&routes[2..3]));
    }

    proptest! {
        #[test]
        fn more_bytes_change_no_answer(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), tls in any::<bool>()) {
            if tls && bytes.len() > 1 {
                bytes[..2].copy_from_slice(&RECORD);
            }
            let mut said = Opening::More;
            for end in 0..=bytes.len() {
                let now = Opening::of(&bytes[..end]);
                prop_assert!(said == Opening::More || said == now);
                said = now;
            }
        }
    }
}
