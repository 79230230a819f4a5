//! Addresses that no service may name for others: of a host itself, of its link, of clouds' metadata services. It looks nothing up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where clouds tell their machines secrets, beside 169.254.169.254: Oracle, Alibaba, Azure.
const METADATA: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
/// The same on Amazon and Google, IPv6.
const METADATA_6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];
/// IPv4 addresses behind a translator (RFC 6052 section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Whether an address is one that only its own host, its own link or its cloud may give a meaning to. A name is one too, as it may lead anywhere.
pub(super) fn is_local(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => is_local_4(ip),
        Ok(IpAddr::V6(ip)) => is_local_6(ip),
        Err(_) => true,
    }
}

fn is_local_4(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 0
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || METADATA.contains(&ip)
}

fn is_local_6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    // Mapped, compatible (RFC 4291 section 2.5.5) and translated ones mean the IPv4 address within; `::` and `::1` are among the compatible.
    let holds_4 = parts[..5] == [0; 5] && matches!(parts[5], 0 | 0xffff) || parts[..6] == NAT64;
    if holds_4 {
        let within = (u32::from(parts[6]) << 16) | u32::from(parts[7]);
        return parts[..6] == [0; 6] && within == 1 || is_local_4(Ipv4Addr::from(within));
    }
    // fe80::/10, fec0::/10 and multicast.
    parts[0] & 0xff80 == 0xfe80 || ip.is_multicast() || METADATA_6.contains(&ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_host_or_its_link_knows_is_local() {
        for local in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "localhost",
            "evil.example",
            "0x7f.1",
            "",
        ] {
            assert!(is_local(local), "{local}");
        }
        for other in
            ["10.0.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::808:808"]
        {
            assert!(!is_local(other), "{other}");
        }
    }
}
