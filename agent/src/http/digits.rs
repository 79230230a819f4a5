//! Numbers and addresses as text, appended to bytes; the formatting machinery of the standard library costs several times as much.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// All numbers below 100 in two digits.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Room for the digits of one number.
#[derive(Debug, Default)]
pub struct Digits([u8; 20]);

impl Digits {
    /// A number in decimal.
    pub fn of(&mut self, mut number: u64) -> &[u8] {
        let digits = &mut self.0;
        let mut at = digits.len();
        while number >= 10 {
            at -= 2;
            [digits[at], digits[at + 1]] = PAIRS[(number % 100) as usize];
            number /= 100;
        }
        if number > 0 || at == digits.len() {
            at -= 1;
            digits[at] = b'0' + number as u8;
        }
        &digits[at..]
    }
}

/// Appends a number in decimal.
pub fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Digits::default().of(number));
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

/// A socket address as text, written down once where it is needed for every request.
#[derive(Clone, Copy)]
pub struct AddressText {
    text: [u8; Self::MOST],
    ip: (u8, u8),
    len: u8,
}

impl AddressText {
    /// `[`, 8 groups of 4, 7 colons, `]:` and 5 digits.
    const MOST: usize = 47;

    /// The text of an address; an IPv4 address in IPv6 clothes is written as IPv4.
    pub fn of(address: SocketAddr) -> AddressText {
        let mut whole = Vec::with_capacity(Self::MOST);
        push_address(&mut whole, address);
        let mut ip = Vec::with_capacity(Self::MOST);
        push_ip(&mut ip, address.ip());
        let start = u8::from(whole.first() == Some(&b'['));
        let mut text = [0; Self::MOST];
        text[..whole.len()].copy_from_slice(&whole);
        AddressText { text, ip: (start, start + ip.len() as u8), len: whole.len() as u8 }
    }

    /// `address:port`, `[address]:port` for IPv6.
    pub fn whole(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The address alone, without brackets.
    pub fn ip(&self) -> &[u8] {
        &self.text[usize::from(self.ip.0)..usize::from(self.ip.1)]
    }
}

impl std::fmt::Debug for AddressText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.whole()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_is_that_of_the_standard_library(number: u64, small in 0..2_000u64, v4: u32, v6: u128, port: u16) {
            let text = |write: &dyn Fn(&mut Vec<u8>)| { let mut out = Vec::new(); write(&mut out); String::from_utf8(out).unwrap() };
            for number in [number, small] {
                prop_assert_eq!(text(&|out| push_number(out, number)), number.to_string());
            }
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                let ip = ip.to_canonical();
                let address = SocketAddr::new(ip, port);
                prop_assert_eq!(text(&|out| push_address(out, address)), address.to_string());
                let kept = AddressText::of(address);
                prop_assert_eq!(kept.whole().to_vec(), address.to_string().into_bytes());
                prop_assert_eq!(kept.ip().to_vec(), ip.to_string().into_bytes());
            }
        }
    }
}
