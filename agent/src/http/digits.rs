//! Numbers and addresses as text, appended to bytes; the formatting machinery of the standard library costs several times as much.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends an address; an IPv4 address in IPv6 clothes is written as IPv4.
pub fn push_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => push_v4(out, ip),
        // Writing to a vector cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

/// Appends `address:port`, `[address]:port` for IPv6.
pub fn push_address(out: &mut Vec<u8>, address: SocketAddr) {
    let bracketed = address.ip().to_canonical().is_ipv6();
    if bracketed {
        out.push(b'[');
    }
    push_ip(out, address.ip());
    if bracketed {
        out.push(b']');
    }
    out.push(b':');
    push_number(out, u64::from(address.port()));
}

fn push_v4(out: &mut Vec<u8>, ip: Ipv4Addr) {
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_number(out, u64::from(octet));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_is_that_of_the_standard_library(number: u64, v4: u32, v6: u128, port: u16) {
            let text = |write: &dyn Fn(&mut Vec<u8>)| { let mut out = Vec::new(); write(&mut out); String::from_utf8(out).unwrap() };
            prop_assert_eq!(text(&|out| push_number(out, number)), number.to_string());
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let ip = ip.to_canonical();
                prop_assert_eq!(text(&|out| push_address(out, SocketAddr::new(ip, port))), SocketAddr::new(ip, port).to_string());
            }
        }
    }
}
