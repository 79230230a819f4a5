//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`), as a function of bytes. It knows no sockets and whom to trust.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Start of a version 2 header.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Longest version 1 header, CRLF included.
const MAX_V1: usize = 107;
/// Longest version 2 header that is taken: addresses and a fair amount of extensions.
const MAX_V2: usize = 4096;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its bytes.
    pub consumed: usize,
    /// Source and destination of the original connection; `None` for LOCAL, UNKNOWN and unspecified ones, which keep the socket's addresses.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
}

/// Why a header is refused; the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PROXY header: {0}")]
pub struct ProxyFault(pub &'static str);

/// Reads a header at the start of `input`; `None` while it is not complete.
pub fn parse(input: &[u8]) -> Result<Option<Header>, ProxyFault> {
    if starts_alike(input, SIGNATURE) {
        parse_v2(input)
    } else if starts_alike(input, b"PROXY ") {
        parse_v1(input)
    } else {
        Err(ProxyFault("neither version 1 nor 2"))
    }
}

/// Whether one is the start of the other.
fn starts_alike(input: &[u8], start: &[u8]) -> bool {
    let len = input.len().min(start.len());
    input[..len] == start[..len]
}

fn parse_v1(input: &[u8]) -> Result<Option<Header>, ProxyFault> {
    let window = &input[..input.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if input.len() < MAX_V1 { Ok(None) } else { Err(ProxyFault("line too long")) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(ProxyFault("line feed without carriage return"))?;
    let line = std::str::from_utf8(line).ok().filter(|line| line.is_ascii()).ok_or(ProxyFault("not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let consumed = end + 1;
    let four = match words.next() {
        Some("UNKNOWN") => return Ok(Some(Header { consumed, addresses: None })),
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return Err(ProxyFault("unknown protocol")),
    };
    let [source, destination] = [words.next(), words.next()].map(|word| word.and_then(|word| parse_address(word, four)));
    let ports = [words.next(), words.next()].map(|word| word.and_then(parse_port));
    match (source, destination, ports, words.next()) {
        (Some(source), Some(destination), [Some(from), Some(to)], None) => {
            Ok(Some(Header { consumed, addresses: Some((SocketAddr::new(source, from), SocketAddr::new(destination, to))) }))
        }
        _ => Err(ProxyFault("bad addresses")),
    }
}

fn parse_address(word: &str, four: bool) -> Option<IpAddr> {
    if four { word.parse::<Ipv4Addr>().ok().map(IpAddr::V4) } else { word.parse::<Ipv6Addr>().ok().map(IpAddr::V6) }
}

fn parse_port(word: &str) -> Option<u16> {
    let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

fn parse_v2(input: &[u8]) -> Result<Option<Header>, ProxyFault> {
    let Some((fixed, rest)) = input.split_first_chunk::<16>() else { return Ok(None) };
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if len + 16 > MAX_V2 {
        return Err(ProxyFault("header too long"));
    }
    let local = match fixed[12] {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyFault("unknown version or command")),
    };
    let Some(body) = rest.get(..len) else { return Ok(None) };
    let header = |addresses| Ok(Some(Header { consumed: len + 16, addresses }));
    if local {
        return header(None);
    }
    let (addresses, extensions) = match fixed[13] {
        0x00 => return header(None),
        0x11 => split_v4(body).ok_or(ProxyFault("addresses cut short"))?,
        0x21 => split_v6(body).ok_or(ProxyFault("addresses cut short"))?,
        _ => return Err(ProxyFault("not TCP over IPv4 or IPv6")),
    };
    check_extensions(extensions)?;
    header(Some(addresses))
}

type Pair = (SocketAddr, SocketAddr);

fn split_v4(body: &[u8]) -> Option<(Pair, &[u8])> {
    let (source, body) = body.split_first_chunk::<4>()?;
    let (destination, body) = body.split_first_chunk::<4>()?;
    let (ports, rest) = body.split_first_chunk::<4>()?;
    Some((pair(IpAddr::from(*source), IpAddr::from(*destination), *ports), rest))
}

fn split_v6(body: &[u8]) -> Option<(Pair, &[u8])> {
    let (source, body) = body.split_first_chunk::<16>()?;
    let (destination, body) = body.split_first_chunk::<16>()?;
    let (ports, rest) = body.split_first_chunk::<4>()?;
    Some((pair(IpAddr::from(*source), IpAddr::from(*destination), *ports), rest))
}

fn pair(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Pair {
    let [a, b, c, d] = ports;
    (SocketAddr::new(source, u16::from_be_bytes([a, b])), SocketAddr::new(destination, u16::from_be_bytes([c, d])))
}

/// Every type-length-value fits, and nothing is left over.
fn check_extensions(mut rest: &[u8]) -> Result<(), ProxyFault> {
    while !rest.is_empty() {
        let [_, high, low, value @ ..] = rest else { return Err(ProxyFault("extension cut short")) };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        rest = value.get(len..).ok_or(ProxyFault("extension longer than the header"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, body].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 0, 80];

    #[test]
    fn both_versions_tell_the_addresses() {
        let expected = Some(("192.0.2.1:8080".parse().unwrap(), "198.51.100.2:80".parse().unwrap()));
        let one = b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 80\r\nGET";
        assert_eq!(parse(one), Ok(Some(Header { consumed: one.len() - 3, addresses: expected })));
        let two = v2(0x21, 0x11, &V4);
        assert_eq!(parse(&two), Ok(Some(Header { consumed: 28, addresses: expected })));
        let six = parse(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n").unwrap().unwrap();
        assert_eq!(six.addresses, Some(("[2001:db8::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap())));
        let extended = v2(0x21, 0x11, &[&V4[..], &[4, 0, 2, 9, 9]].concat());
        assert_eq!(parse(&extended).unwrap().unwrap().addresses, expected);
    }

    #[test]
    fn local_and_unknown_keep_the_sockets_addresses() {
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n", &v2(0x20, 0x11, &V4), &v2(0x21, 0, &[1])]
        {
            assert_eq!(parse(header), Ok(Some(Header { consumed: header.len(), addresses: None })));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat();
        for header in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            b"PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
            &long,
            &v2(0x31, 0x11, &V4),
            &v2(0x22, 0x11, &V4),
            &v2(0x21, 0x12, &V4),
            &v2(0x21, 0x31, &V4),
            &v2(0x21, 0x11, &V4[..11]),
            &v2(0x21, 0x21, &V4),
            &v2(0x21, 0x11, &[&V4[..], &[4, 0]].concat()),
            &v2(0x21, 0x11, &[&V4[..], &[4, 0, 2, 9]].concat()),
            &v2(0x21, 0x11, &[0; 5000]),
        ] {
            assert!(parse(header).is_err(), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_header_in_pieces_is_not_complete_before_its_end(cut in 0usize..28) {
            prop_assert_eq!(parse(&v2(0x21, 0x11, &V4)[..cut]), Ok(None));
        }

        #[test]
        fn random_bytes_never_panic(start in 0..3, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let start = [&b""[..], b"PROXY ", SIGNATURE][start as usize];
            let _ = parse(&[start, &bytes].concat());
        }
    }
}
