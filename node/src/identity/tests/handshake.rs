//! Handshakes between two identities, and what becomes of them when identities change.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, NamedGroup, ProtocolVersion, ServerConfig, ServerConnection};

use super::super::{ClientAuth, Expect, Rejection, nameless, peer_of};
use super::*;
use crate::clock;

const WEB: &str = "/ns/default/svc/web";
const API: &str = "/ns/default/svc/api";

/// Two ends with their handshake behind them.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

/// Carries what both ends write to the other until nobody has more to say.
fn pump(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn connect(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Pair, rustls::Error> {
    let mut client = ClientConnection::new(client, nameless()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    pump(&mut client, &mut server)?;
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Pair { client, server })
}

fn meet(client: &Identity, expect: Expect, server: &Identity, auth: ClientAuth) -> Result<Pair, rustls::Error> {
    connect(client.client_config(expect, &[b"h2"]), server.server_config(auth, &[b"h2"]))
}

/// Why one end has refused the other, in words.
fn refusal(result: Result<Pair, rustls::Error>) -> String {
    let error = std::io::Error::other(result.err().expect("refused"));
    Rejection::of(&error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[test]
fn both_ends_know_each_other_under_post_quantum_encryption() {
    let authority = Authority::new("a.test");
    let (web, api) = (authority.member(WEB), authority.member(API));
    let expect = Expect::AnyOf(vec![id("spiffe://a.test/ns/default/svc/api")]);
    let pair = meet(&web, expect, &api, ClientAuth::Required).unwrap();
    assert_eq!(peer_of(pair.client.peer_certificates().unwrap()), Some(id("spiffe://a.test/ns/default/svc/api")));
    assert_eq!(peer_of(pair.server.peer_certificates().unwrap()), Some(id("spiffe://a.test/ns/default/svc/web")));
    for connection in [rustls::Connection::from(pair.client), pair.server.into()] {
        assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
    }
}

#[test]
fn nothing_is_resumed() {
    let authority = Authority::new("a.test");
    let (web, api) = (authority.member(WEB), authority.member(API));
    let (client, server) = (web.client_config(Expect::TrustDomain, &[]), api.server_config(ClientAuth::Required, &[]));
    for _ in 0..2 {
        let pair = connect(client.clone(), server.clone()).unwrap();
        assert_eq!(pair.client.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(pair.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn who_is_nobody_is_let_in_only_where_that_is_allowed() {
    let authority = Authority::new("a.test");
    let api = authority.member(API);
    let joiner = Identity::new();
    joiner.set_bundles(authority.bundles());
    let pair = meet(&joiner, Expect::TrustDomain, &api, ClientAuth::Optional).unwrap();
    assert_eq!(pair.server.peer_certificates(), None);
    assert!(refusal(meet(&joiner, Expect::TrustDomain, &api, ClientAuth::Required)).contains("has shown no certificate"));
}

#[test]
fn a_bad_certificate_is_no_better_than_none_even_where_none_is_allowed() {
    let (ours, theirs) = (Authority::new("a.test"), Authority::new("b.test"));
    let stranger = theirs.member(WEB);
    stranger.set_bundles(ours.bundles());
    let api = ours.member(API);
    for auth in [ClientAuth::Optional, ClientAuth::Required] {
        assert!(refusal(meet(&stranger, Expect::TrustDomain, &api, auth)).contains("trust domain without a bundle"));
    }
}

#[test]
fn the_expired_and_the_early_are_refused_by_either_end() {
    let authority = Authority::new("a.test");
    let now = clock::wall();
    for (from, to, why) in [(now - 2 * HOUR, now - HOUR, "expired"), (now + HOUR, now + 2 * HOUR, "becomes valid")] {
        let wrong = authority.member(WEB);
        let mut params = leaf_params("spiffe://a.test/ns/default/svc/web");
        valid(&mut params, from, to);
        wrong.set_svid(authority.issue(params));
        let good = authority.member(API);
        assert!(refusal(meet(&wrong, Expect::TrustDomain, &good, ClientAuth::Required)).contains(why));
        assert!(refusal(meet(&good, Expect::TrustDomain, &wrong, ClientAuth::Required)).contains(why));
    }
}

#[test]
fn a_good_identity_that_was_not_expected_is_refused() {
    let authority = Authority::new("a.test");
    let (web, api) = (authority.member(WEB), authority.member(API));
    let expect = Expect::AnyOf(vec![id("spiffe://a.test/ns/default/svc/db"), id("spiffe://a.test/ns/other/svc/api")]);
    let said = refusal(meet(&web, expect, &api, ClientAuth::Required));
    assert!(said.contains("expected spiffe://a.test/ns/default/svc/db or spiffe://a.test/ns/other/svc/api"), "{said}");
    assert!(meet(&web, Expect::AnyOf(Vec::new()), &api, ClientAuth::Required).is_err());
}

#[test]
fn federated_domains_meet_where_they_name_each_other() {
    let (ours, theirs) = (Authority::new("a.test"), Authority::new("b.test"));
    let (web, api) = (ours.member(WEB), theirs.member(API));
    web.set_bundles(ours.bundles().with_federated(theirs.bundle()));
    api.set_bundles(theirs.bundles().with_federated(ours.bundle()));
    let expect = Expect::AnyOf(vec![id("spiffe://b.test/ns/default/svc/api")]);
    assert!(meet(&web, expect, &api, ClientAuth::Required).is_ok());
    // The whole of a foreign domain is not meant by "our trust domain".
    let said = refusal(meet(&web, Expect::TrustDomain, &api, ClientAuth::Required));
    assert!(said.contains("expected an identity of a.test"), "{said}");
}

#[test]
fn who_trusts_nobody_meets_nobody() {
    let authority = Authority::new("a.test");
    let (web, api) = (authority.member(WEB), authority.member(API));
    web.set_bundles(Bundles::default());
    assert!(meet(&web, Expect::TrustDomain, &api, ClientAuth::Required).is_err());
    let nobody = Identity::new();
    assert!(meet(&api, Expect::TrustDomain, &nobody, ClientAuth::Optional).is_err(), "a server without identity");
}

#[test]
fn rotation_is_seen_by_the_next_handshake_and_cuts_no_session() {
    let (old, new) = (Authority::new("a.test"), Authority::new("a.test"));
    let (web, api) = (old.member(WEB), old.member(API));
    let (client, server) = (web.client_config(Expect::TrustDomain, &[]), api.server_config(ClientAuth::Required, &[]));
    let mut open = connect(client.clone(), server.clone()).unwrap();

    // The server moves to the new root before the client knows it.
    api.set_svid(new.svid(API));
    assert!(connect(client.clone(), server.clone()).is_err());
    web.set_bundles(Bundles::new(
        Bundle::from_der(domain("a.test"), vec![old.certificate.clone(), new.certificate.clone()]).unwrap(),
    ));
    let fresh = connect(client.clone(), server.clone()).unwrap();
    let shown = fresh.client.peer_certificates().unwrap();
    assert_eq!(shown, api.svid().unwrap().chain());
    assert_ne!(shown, open.client.peer_certificates().unwrap());

    // The old root is dropped at both ends: what was open still carries bytes.
    web.set_svid(new.svid(WEB));
    web.set_bundles(new.bundles());
    api.set_bundles(new.bundles());
    assert!(connect(client, server).is_ok());
    std::io::Write::write_all(&mut open.client.writer(), b"still here").unwrap();
    pump(&mut open.client, &mut open.server).unwrap();
    let mut got = [0_u8; 10];
    std::io::Read::read_exact(&mut open.server.reader(), &mut got).unwrap();
    assert_eq!(&got, b"still here");
    assert!(matches!(api.recheck(open.server.peer_certificates().unwrap()), Err(Rejection::Untrusted { .. })));
}
