//! Packing, as long as that is shorter. It knows no strings but their octets.

use super::code::{CANONICAL, LENGTHS};

/// Code and length of each octet.
static CODES: [(u32, u8); 256] = codes();

const fn codes() -> [(u32, u8); 256] {
    let mut codes = [(0, 0); 256];
    let mut symbol = 0;
    while symbol < 256 {
        codes[symbol] = (CANONICAL.codes[symbol], LENGTHS[symbol]);
        symbol += 1;
    }
    codes
}

/// Appends `text` packed; `false` where that is not shorter, what was appended is then of no use.
pub(in super::super) fn encode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let most = text.len();
    out.resize(start + most, 0);
    let (mut at, mut waiting, mut bits) = (start, 0u64, 0u32);
    for &octet in text {
        let (code, length) = CODES[octet as usize];
        waiting = waiting << length | u64::from(code);
        bits += u32::from(length);
        if bits >= 32 {
            bits -= 32;
            let Some(room) = out.get_mut(at..at + 4) else { return false };
            room.copy_from_slice(&((waiting >> bits) as u32).to_be_bytes());
            at += 4;
        }
    }
    // Padding is ones.
    let last = ((waiting << (32 - bits)) as u32) | (u32::MAX >> bits);
    let octets = bits.div_ceil(8) as usize;
    if at + octets >= start + most {
        return false;
    }
    out[at..at + octets].copy_from_slice(&last.to_be_bytes()[..octets]);
    out.truncate(at + octets);
    true
}
