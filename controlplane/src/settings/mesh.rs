//! `mesh:` in `heddle.yaml`: the addresses that names of services resolve to. It knows no service.

use std::net::Ipv4Addr;

use heddle_node::config::Section;
use ipnet::Ipv4Net;

/// A part of what is reserved for the future (RFC 1112 section 4), so that no host has such an address: 65,534 services.
const DEFAULT_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(240, 240, 0, 0), 16);
/// Smaller ranges hold next to no service.
const SMALLEST: u8 = 29;

/// What a control plane is told of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshSettings {
    /// Addresses of which each service gets one.
    pub vip_range: Ipv4Net,
}

impl MeshSettings {
    /// Reads `mesh:`.
    pub fn read(section: &mut Section<'_>) -> MeshSettings {
        let (address, bits) = DEFAULT_RANGE;
        let default = Ipv4Net::new_assert(address, bits);
        let range = section.parsed::<Ipv4Net>("vip_range", "an IPv4 network such as 240.240.0.0/16").unwrap_or(default);
        if range.prefix_len() > SMALLEST {
            section.mistake("vip_range", format!("expected a network of at least 8 addresses (/{SMALLEST}), found {range}"));
        }
        MeshSettings { vip_range: range.trunc() }
    }
}
