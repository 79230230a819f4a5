//! What the kernel lists of its connections and routes (proc(5)): functions of text, and the reading of it. It decides nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::places::Family;

/// Most that is read of a list: some 400,000 connections.
const MOST: u64 = 64 << 20;
/// Most that is read of routes; who has more of them has a way to anywhere.
const MOST_ROUTES: u64 = 1 << 20;
/// Most doors of one address that are looked at.
const MOST_OWNERS: usize = 1024;
/// The state of a socket that waits for connections.
const LISTENING: &str = "0A";
/// The state of a socket of datagrams that takes them from anybody.
const UNCONNECTED: &str = "07";
/// Flag of routes that are in use (`linux/route.h`).
const UP: u32 = 0x1;
/// Flag of routes to nowhere.
const REJECT: u32 = 0x200;

/// What a door is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn lists(self) -> [&'static str; 2] {
        match self {
            Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
            Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
        }
    }

    /// The state of a socket that is a door.
    fn open(self) -> &'static str {
        match self {
            Transport::Tcp => LISTENING,
            Transport::Udp => UNCONNECTED,
        }
    }
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it leads.
    pub(super) net: IpNet,
    /// By which interface.
    pub(super) interface: String,
}

/// The address at which the connection of this caller has arrived in this host; none where it has not.
pub(super) fn far_end(caller: SocketAddr) -> Result<Option<SocketAddr>, String> {
    look(Transport::Tcp.lists(), |line| far_end_in(line, caller))
}

/// The users who have opened the door at this address; those of all addresses only where nobody has opened this very one. None where there is none.
pub(super) fn owners(door: SocketAddr, transport: Transport) -> Result<Vec<u32>, String> {
    let mut found: Vec<(bool, u32)> = Vec::new();
    look(transport.lists(), |line| {
        found.extend(owner_in(line, door, transport));
        // Handfuls are enough: sockets that share a door belong to one user.
        (found.len() >= MOST_OWNERS).then_some(())
    })?;
    let is_exact = found.iter().any(|(exact, _)| *exact);
    Ok(found.into_iter().filter(|(exact, _)| *exact == is_exact).map(|(_, owner)| owner).collect())
}

/// Whether anybody takes connections at this port, of whatever address.
pub(super) fn listens(port: u16) -> Result<bool, String> {
    Ok(look(Transport::Tcp.lists(), |line| listens_in(line, port).then_some(()))?.is_some())
}

/// The first line of these lists in which something is found.
fn look<T>(paths: [&str; 2], mut found: impl FnMut(&str) -> Option<T>) -> Result<Option<T>, String> {
    for path in paths {
        let file = match File::open(path) {
            Ok(file) => file,
            // A host without this family.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path.ends_with('6') => continue,
            Err(error) => return Err(format!("{path}, which lists sockets, cannot be read: {error}")),
        };
        let mut lines = BufReader::new(file.take(MOST)).lines().map_while(Result::ok);
        if let Some(found) = lines.find_map(|line| found(&line)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Our address of a connection whose other end is this caller, from its line.
pub(super) fn far_end_in(line: &str, caller: SocketAddr) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    (state != LISTENING && socket(remote)? == caller).then(|| socket(local))?
}

/// Who has opened this door, or one of all addresses, and whether it is this very one, from its line: the user is the eighth word.
pub(super) fn owner_in(line: &str, door: SocketAddr, transport: Transport) -> Option<(bool, u32)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, state, _, _, _, user, ..] = words[..] else { return None };
    let (at, user) = (socket(local)?, user.parse().ok()?);
    // One of all addresses of IPv6 may be of both families.
    let of_all = at.ip().is_unspecified() && (at.is_ipv6() || door.is_ipv4());
    (state == transport.open() && at.port() == door.port() && (at == door || of_all)).then_some((at == door, user))
}

/// Whether somebody takes connections at this port, from his line.
pub(super) fn listens_in(line: &str, port: u16) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next().and_then(socket);
    local.is_some_and(|at| at.port() == port) && words.nth(1) == Some(LISTENING)
}

/// `0100007F:3A99`: words of 32 bits as this machine has them, and the port.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<u8>> = address
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<Vec<u32>>>()
        .map(|words| words.into_iter().flat_map(u32::to_ne_bytes).collect());
    let bytes = words?;
    let ip = match (<[u8; 4]>::try_from(&*bytes), <[u8; 16]>::try_from(&*bytes)) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The routes of a family; none where they cannot be read.
pub(super) fn routes(family: Family) -> Vec<Route> {
    let (path, read): (_, fn(&str) -> Option<Route>) = match family {
        Family::V4 => ("/proc/net/route", route_v4),
        Family::V6 => ("/proc/net/ipv6_route", route_v6),
    };
    let mut text = String::new();
    let opened = File::open(path).and_then(|file| file.take(MOST_ROUTES).read_to_string(&mut text));
    if opened.is_err() { Vec::new() } else { text.lines().filter_map(read).collect() }
}

/// `eth0 0000A8C0 00000000 0001 0 0 0 0000FFFF …`
pub(super) fn route_v4(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [interface, destination, _, flags, _, _, _, mask, ..] = words[..] else { return None };
    let address = |text| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
    let net = IpNet::with_netmask(address(destination)?.into(), address(mask)?.into()).ok()?;
    route(net, flags, interface)
}

/// `fd770000000000000000000000000000 40 00…00 00 00…00 00000100 00000001 00000000 00000001 eth0`
pub(super) fn route_v6(line: &str) -> Option<Route> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, _, _, _, _, flags, interface] = words[..] else { return None };
    let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
    route(IpNet::new(address.into(), u8::from_str_radix(length, 16).ok()?).ok()?, flags, interface)
}

fn route(net: IpNet, flags: &str, interface: &str) -> Option<Route> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (flags & UP != 0 && flags & REJECT == 0 && interface != "lo").then(|| Route { net, interface: interface.to_owned() })
}
