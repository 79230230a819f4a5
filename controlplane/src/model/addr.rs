//! Addresses and networks as users write them.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;

/// Reads an IPv4 or IPv6 address (a network of one) or CIDR block; host bits of a block are cleared.
pub fn network(text: &str) -> Result<IpNet, String> {
    let parsed = match text.contains('/') {
        true => text.parse::<IpNet>().ok().map(|net| net.trunc()),
        false => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    parsed
        .ok_or_else(|| format!("invalid ip address: {text} (expected an IPv4 or IPv6 address, or a network such as 10.0.0.0/8)"))
}

/// One address for all ways to write it: an IPv4 address inside an IPv6 one is itself, as the kernel has it.
pub fn canonical(text: &str) -> Option<IpAddr> {
    Some(text.parse::<IpAddr>().ok()?.to_canonical())
}

/// The same for an address with a port. Zones are told apart where they mean something: for addresses of one link.
pub fn socket(text: &str) -> Option<SocketAddr> {
    Some(match text.parse::<SocketAddr>().ok()? {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddr::V6(SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()))
        }
        other => SocketAddr::new(other.ip().to_canonical(), other.port()),
    })
}

#[cfg(test)]
mod tests {
    use super::{canonical, network, socket};

    #[test]
    fn one_address_is_one_however_it_is_written() {
        let same = [("10.0.0.1", "::ffff:10.0.0.1"), ("::ffff:a00:1", "10.0.0.1"), ("FD00:0::1", "fd00::1")];
        for (one, other) in same {
            assert_eq!(canonical(one), canonical(other), "{one} {other}");
            assert!(canonical(one).is_some());
        }
        assert_eq!(canonical("fe80::1%eth0"), None);
        let same = [("10.0.0.1:80", "[::ffff:10.0.0.1]:80"), ("[::1]:80", "[0:0::1]:80"), ("[fd00::1%2]:80", "[fd00::1]:80")];
        for (one, other) in same {
            assert_eq!(socket(one), socket(other), "{one} {other}");
            assert!(socket(one).is_some());
        }
        assert_ne!(socket("[fe80::1%2]:80"), socket("[fe80::1%3]:80"), "each link has its own");
        assert_ne!(socket("10.0.0.1:80"), socket("10.0.0.1:81"));
    }

    #[test]
    fn addresses_and_networks() {
        assert_eq!(network("10.1.2.3/8").map(|n| n.to_string()), Ok("10.0.0.0/8".to_owned()));
        assert_eq!(network("::1").map(|n| n.to_string()), Ok("::1/128".to_owned()));
        for bad in ["", "10.0.0", "10.0.0.0/33", "::1/129", "example.com", " 10.0.0.1"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
