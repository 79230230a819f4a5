//! What a connection begins with, where members of the mesh and callers in clear are let in by one port. It changes no byte.

use rustls::server::Acceptor;

use crate::net::MESH_ALPN;

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// Longest ClientHello that is waited for: those of today have 2 KiB at most, also with post-quantum keys.
const MAX_HELLO: usize = 16 * 1024;

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hello {
    /// More must come.
    More,
    /// A handshake that is meant for us: its ALPN offers [`MESH_ALPN`].
    Mesh,
    /// TLS, or what looks like it, that is meant for the application.
    Foreign,
    /// No TLS.
    Clear,
}

impl Hello {
    /// Looks at all bytes that have come.
    ///
    /// What is no TLS cannot become some, and an application's own TLS never offers our protocol: so neither can be taken for the other, and nobody gets
    /// rights by it, since only a handshake with a certificate proves an identity.
    pub(super) fn of(input: &[u8]) -> Hello {
        match input.first() {
            None => return Hello::More,
            Some(&HANDSHAKE) => {}
            Some(_) => return Hello::Clear,
        }
        let (mut acceptor, mut rest) = (Acceptor::default(), input);
        while !rest.is_empty() {
            match acceptor.read_tls(&mut rest) {
                Ok(read) if read > 0 => {}
                _ => return Hello::Foreign,
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let offered = accepted.client_hello().alpn().into_iter().flatten();
                    return if offered.into_iter().any(|name| name == MESH_ALPN) { Hello::Mesh } else { Hello::Foreign };
                }
                Err(_) => return Hello::Foreign,
            }
        }
        if input.len() < MAX_HELLO { Hello::More } else { Hello::Foreign }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use heddle_node::identity::{Expect, Identity, nameless};
    use proptest::prelude::*;
    use rustls::ClientConnection;

    use super::*;
    use crate::net::CALLER_ALPN;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let config = Identity::new().client_config(Expect::TrustDomain, alpn);
        let mut out = Vec::new();
        ClientConnection::new(config, nameless()).unwrap().write_tls(&mut out).unwrap();
        out
    }

    #[test]
    fn only_a_handshake_that_offers_the_mesh_is_one_of_the_mesh() {
        assert_eq!(Hello::of(&hello(CALLER_ALPN)), Hello::Mesh);
        assert_eq!(Hello::of(&hello(&[b"h2", b"http/1.1"])), Hello::Foreign);
        assert_eq!(Hello::of(&hello(&[])), Hello::Foreign);
        assert_eq!(Hello::of(b""), Hello::More);
        for clear in [&b"GET / HTTP/1.1\r\n"[..], b"\x15\x03\x01", b"\0", b"\xff\xff"] {
            assert_eq!(Hello::of(clear), Hello::Clear);
        }
        assert_eq!(Hello::of(b"\x16\x03\x01\x00\x05hello"), Hello::Foreign, "no ClientHello");
        let endless = [&[HANDSHAKE, 3, 1, 0x40, 0][..], &[1, 0, 0x7f, 0xff], &[0; MAX_HELLO]].concat();
        assert_eq!(Hello::of(&endless), Hello::Foreign);
    }

    #[test]
    fn every_beginning_of_a_hello_waits_for_its_rest() {
        for (bytes, what) in [(hello(CALLER_ALPN), Hello::Mesh), (hello(&[b"h2"]), Hello::Foreign)] {
            for end in (0..bytes.len()).step_by(37) {
                assert_eq!(Hello::of(&bytes[..end]), Hello::More);
            }
            assert_eq!(Hello::of(&bytes), what);
            assert_eq!(Hello::of(&[&bytes[..], b"more"].concat()), what);
        }
    }

    proptest! {
        #[test]
        fn once_said_it_stays_said(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), tls in any::<bool>()) {
            if tls && !bytes.is_empty() {
                bytes[0] = HANDSHAKE;
            }
            let mut said = Hello::More;
            for end in 0..=bytes.len() {
                let now = Hello::of(&bytes[..end]);
                prop_assert!(said == Hello::More || now == said);
                said = now;
            }
        }
    }
}
