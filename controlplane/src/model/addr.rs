//! Addresses and networks as users write them.

use std::net::IpAddr;

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

#[cfg(test)]
mod tests {
    use super::network;

    #[test]
    fn addresses_and_networks() {
        assert_eq!(network("10.1.2.3/8").map(|n| n.to_string()), Ok("10.0.0.0/8".to_owned()));
        assert_eq!(network("::1").map(|n| n.to_string()), Ok("::1/128".to_owned()));
        for bad in ["", "10.0.0", "10.0.0.0/33", "::1/129", "example.com", " 10.0.0.1"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
