//! Addresses of clients as proxies write them: one hop, and the list in `X-Forwarded-For`. It trusts nobody and decides nothing.

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::http::{Fields, Name};

/// The hops that `X-Forwarded-For` names, the nearest first; many fields count as one (RFC 9110 section 5.3).
pub fn forwarded_for(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let lines: SmallVec<[&[u8]; 2]> = fields.get_all_known(Name::XForwardedFor).collect();
    lines.into_iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','))
}

/// An address with or without port; IPv6 with or without brackets. Port 0 stands for none.
pub fn parse_hop(hop: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse::<SocketAddr>()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hops_are_addresses_with_or_without_ports() {
        let read = |text: &str| parse_hop(text.as_bytes()).map(|address| address.to_string());
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1:0")),
            (" 192.0.2.1:80\t", Some("192.0.2.1:80")),
            ("::1", Some("[::1]:0")),
            ("[::1]", Some("[::1]:0")),
            ("[::1]:7", Some("[::1]:7")),
            ("192.0.2.1:70000", None),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_nearest_hop_comes_first_over_all_fields() {
        let mut fields = Fields::new();
        fields.append("X-Forwarded-For", "a, b");
        fields.append("x-forwarded-for", "c");
        let hops: Vec<_> = forwarded_for(&fields).map(<[u8]>::trim_ascii).collect();
        assert_eq!(hops, [b"c", b"b", b"a"]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ip: IpAddr, port in 1u16..) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_hop(address.to_string().as_bytes()), Some(address));
            prop_assert_eq!(parse_hop(ip.to_string().as_bytes()), Some(SocketAddr::new(ip, 0)));
        }

        #[test]
        fn nothing_is_too_odd_to_be_looked_at(bytes: Vec<u8>) {
            let _ = parse_hop(&bytes);
        }
    }
}
