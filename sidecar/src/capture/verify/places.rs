//! Where to, when capture is tried: an address that these settings capture and this host has a way to. It sends nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

use super::super::settings::{CaptureSettings, Ports};
use super::kernel::Route;

/// Where names are asked for.
const DNS: u16 = 53;
/// Addresses of documentation (RFC 5737, RFC 3849, RFC 9637): nobody has them, so that what is not captured disturbs nobody.
const UNUSED_V4: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 72)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 72)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 72)),
];
const UNUSED_V6: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x72)), IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0x72))];

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn loopback(self) -> IpAddr {
        match self {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

/// Whether somebody can listen at the loopback of this family. IPv6 may be switched off while the kernel has it; without that of IPv4 nothing of capture works,
/// and that is told by what fails.
pub(super) fn has_loopback(family: Family) -> bool {
    let is_off = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrNotAvailable;
    family == Family::V4 || !UdpSocket::bind((family.loopback(), 0)).is_err_and(|error| is_off(&error))
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    At(SocketAddr),
    /// Nowhere; why.
    Nowhere(&'static str),
}

/// What an address is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// It is elsewhere, and there is a way to it.
    Beyond,
    /// It is its own.
    Own,
    /// There is no way to it.
    None,
}

/// Where a connection of the application goes.
pub(super) fn outward(settings: &CaptureSettings, family: Family, routes: &[Route]) -> Place {
    outward_by(settings, family, routes, reach)
}

pub(super) fn outward_by(
    settings: &CaptureSettings,
    family: Family,
    routes: &[Route],
    reach: impl Fn(SocketAddr) -> Reach,
) -> Place {
    let Some(port) = port(settings) else { return Place::Nowhere("no port of others is captured") };
    let mut found: Vec<IpAddr> = candidates(settings, family, routes);
    found.retain(|ip| is_listed(settings, *ip));
    if found.is_empty() {
        return Place::Nowhere("no address of it is captured");
    }
    found.retain(|ip| !is_spared(settings, routes, *ip));
    if found.is_empty() {
        return Place::Nowhere("no way out of this host is captured");
    }
    let Some(ip) = found.into_iter().find(|ip| reach(SocketAddr::new(*ip, port)) == Reach::Beyond) else {
        return Place::Nowhere("this host has no way to an address of it that is captured");
    };
    Place::At(SocketAddr::new(ip, port))
}

/// Where a question for a name goes: anywhere, and to this host itself where there is no way out.
pub(super) fn names(settings: &CaptureSettings, family: Family, routes: &[Route]) -> Place {
    names_by(settings, family, routes, reach)
}

/// Where else, in another network: hosts may filter addresses of documentation, which no application calls.
pub(super) fn instead(
    settings: &CaptureSettings,
    family: Family,
    routes: &[Route],
    of: SocketAddr,
    is_name: bool,
) -> Option<SocketAddr> {
    instead_by(settings, family, routes, of, is_name, reach)
}

pub(super) fn instead_by(
    settings: &CaptureSettings,
    family: Family,
    routes: &[Route],
    of: SocketAddr,
    is_name: bool,
    reach: impl Fn(SocketAddr) -> Reach,
) -> Option<SocketAddr> {
    // What a host sends to itself tells nothing of what it sends to others.
    let others = |at: SocketAddr| if at != of && reach(at) == Reach::Beyond { Reach::Beyond } else { Reach::None };
    let place = if is_name { names_by(settings, family, routes, others) } else { outward_by(settings, family, routes, others) };
    match place {
        Place::At(to) => Some(to),
        Place::Nowhere(_) => None,
    }
}

fn names_by(settings: &CaptureSettings, family: Family, routes: &[Route], reach: impl Fn(SocketAddr) -> Reach) -> Place {
    let outside = candidates(settings, family, routes).into_iter().filter(|ip| !is_spared(settings, routes, *ip));
    let mut outside = outside.map(|ip| SocketAddr::new(ip, DNS)).filter(|to| reach(*to) == Reach::Beyond);
    let inside = || {
        let own = SocketAddr::new(family.loopback(), DNS);
        Some(own).filter(|own| !spares(settings, "lo") && reach(*own) == Reach::Own)
    };
    outside.next().or_else(inside).map_or(Place::Nowhere("this host has no way to any address of it"), Place::At)
}

/// A port that is captured: best that of the agent itself, since it hangs up at once on whoever wants to go there.
pub(super) fn port(settings: &CaptureSettings) -> Option<u16> {
    let within = |list: &[Ports], port: u16| list.iter().any(|ports| (ports.first..=ports.last).contains(&port));
    let (include, exclude) = (&settings.include_outbound_ports, &settings.exclude_outbound_ports);
    let is_captured = |port: &u16| {
        (include.is_empty() || within(include, *port))
            && !within(exclude, *port)
            && !(*port == DNS && settings.dns_port.is_some())
    };
    settings.outbound_port.into_iter().chain((1..=u16::MAX).rev()).find(is_captured)
}

/// Addresses of nobody first, then such as the settings and the routes of this host name.
fn candidates(settings: &CaptureSettings, family: Family, routes: &[Route]) -> Vec<IpAddr> {
    let unused: &[IpAddr] = match family {
        Family::V4 => &UNUSED_V4,
        Family::V6 => &UNUSED_V6,
    };
    let is_default = |net: &IpNet| net.prefix_len() == 0;
    let named = settings.include_outbound_cidrs.iter().chain(routes.iter().map(|route| &route.net));
    let named = named.filter(|net| !is_default(net) && matches!(net, IpNet::V4(_)) == (family == Family::V4)).map(last);
    unused.iter().copied().chain(named).filter(|ip| !ip.is_multicast() && !is_link_local(*ip)).collect()
}

/// The last address of a network that a host may have.
fn last(net: &IpNet) -> IpAddr {
    match net {
        IpNet::V4(net) if net.prefix_len() < 31 => Ipv4Addr::from(u32::from(net.broadcast()) - 1).into(),
        IpNet::V6(net) if net.prefix_len() < 127 => Ipv6Addr::from(u128::from(net.broadcast()) - 1).into(),
        net => net.network(),
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_listed(settings: &CaptureSettings, ip: IpAddr) -> bool {
    let within = |list: &[IpNet]| list.iter().any(|net| net.contains(&ip));
    let include = &settings.include_outbound_cidrs;
    (include.is_empty() || within(include)) && !within(&settings.exclude_outbound_cidrs)
}

/// Whether an address is reached by an interface that is not captured, as the main table of routes has it.
fn is_spared(settings: &CaptureSettings, routes: &[Route], ip: IpAddr) -> bool {
    let best = routes.iter().filter(|route| route.net.contains(&ip)).max_by_key(|route| route.net.prefix_len());
    best.is_some_and(|route| spares(settings, &route.interface))
}

fn spares(settings: &CaptureSettings, interface: &str) -> bool {
    settings.exclude_interfaces.iter().any(|name| match name.strip_suffix('*') {
        Some(stem) => interface.starts_with(stem),
        None => interface == name,
    })
}

/// Asks the kernel which way it would take; nothing is sent. From its own address it goes to nobody else.
fn reach(to: SocketAddr) -> Reach {
    let any: SocketAddr = if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let from = UdpSocket::bind(any).and_then(|socket| socket.connect(to).and_then(|()| socket.local_addr()));
    match from {
        Ok(from) if from.ip() == to.ip() => Reach::Own,
        Ok(_) => Reach::Beyond,
        Err(_) => Reach::None,
    }
}
