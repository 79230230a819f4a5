//! Unpacking, up to two octets at a look-up: short codes are those of letters and digits. It allocates only for what comes out.
//!
//! The bits are kept inverted, so that the zeros which a shift brings in stand for the ones that padding consists of.

use super::code::{CANONICAL, CODE, LONGEST};

/// Bits of a look-up.
const BITS: usize = 11;

/// What the next bits say: one or two octets.
#[derive(Clone, Copy)]
struct Step {
    symbols: [u8; 2],
    /// Bits that are used up, 0 where the next code is longer than a look-up.
    bits: u8,
    count: u8,
}

static STEPS: [Step; 1 << BITS] = steps();

const fn steps() -> [Step; 1 << BITS] {
    let mut steps = [Step { symbols: [0; 2], bits: 0, count: 0 }; 1 << BITS];
    let mut index = 0;
    while index < steps.len() {
        let bits = !index & ((1 << BITS) - 1);
        let (first, used) = short(bits, BITS);
        if used > 0 {
            let (second, more) = short(bits, BITS - used);
            steps[index] = Step { symbols: [first, second], bits: (used + more) as u8, count: if more > 0 { 2 } else { 1 } };
        }
        index += 1;
    }
    steps
}

/// The octet whose code begins the lowest `left` of `bits`, and the length of the code; 0 where the code is longer.
const fn short(bits: usize, left: usize) -> (u8, usize) {
    let bits = bits & ((1 << left) - 1);
    let mut length = 1;
    while length <= left {
        let offset = (bits >> (left - length)) as u32;
        if offset >= CANONICAL.first[length] && offset - CANONICAL.first[length] < CANONICAL.count[length] {
            return (CANONICAL.symbols[CANONICAL.start[length] + (offset - CANONICAL.first[length]) as usize], length);
        }
        length += 1;
    }
    (0, 0)
}

/// Inverted bits that wait, the next one on top.
struct Bits<'a> {
    top: u64,
    have: usize,
    rest: &'a [u8],
}

impl Bits<'_> {
    /// Brings in as many octets as fit.
    fn fill(&mut self) {
        if let Some(eight) = self.rest.first_chunk() {
            let taken = (63 - self.have) / 8;
            // What does not fit is brought in again, to the same place.
            self.top |= !u64::from_be_bytes(*eight) >> self.have;
            self.have += taken * 8;
            self.rest = &self.rest[taken..];
            return;
        }
        while self.have <= 56
            && let Some((&octet, rest)) = self.rest.split_first()
        {
            self.top |= u64::from(!octet) << (56 - self.have);
            self.have += 8;
            self.rest = rest;
        }
    }

    fn drop(&mut self, bits: usize) {
        self.top <<= bits;
        self.have -= bits;
    }
}

/// Appends what `packed` says; `false` where it is no code, or its padding is not what it must be.
pub(in super::super) fn decode(packed: &[u8], out: &mut Vec<u8>) -> bool {
    let mut at = out.len();
    // The shortest code has five bits; a step writes two octets, even where it has only one.
    out.resize(at + packed.len() * 8 / 5 + 2, 0);
    let mut bits = Bits { top: 0, have: 0, rest: packed };
    loop {
        if bits.have < LONGEST {
            bits.fill();
        }
        let step = STEPS[(bits.top >> (64 - BITS)) as usize];
        if step.bits == 0 {
            match long(&mut bits) {
                Some(Long::Octet(octet)) => {
                    out[at] = octet;
                    at += 1;
                    continue;
                }
                Some(Long::End) => {
                    out.truncate(at);
                    return true;
                }
                None => return false,
            }
        }
        if usize::from(step.bits) > bits.have {
            return false;
        }
        out[at..at + 2].copy_from_slice(&step.symbols);
        at += usize::from(step.count);
        bits.drop(usize::from(step.bits));
    }
}

enum Long {
    Octet(u8),
    /// Only padding is left.
    End,
}

/// A code that is longer than a look-up, or the padding: less than an octet of ones, which begin no shorter code (RFC 7541 section 5.2).
fn long(bits: &mut Bits<'_>) -> Option<Long> {
    if bits.have < 8 && bits.top == 0 {
        return Some(Long::End);
    }
    let next = (!bits.top >> (64 - LONGEST)) as u32;
    for length in BITS + 1..=LONGEST {
        let offset = (next >> (LONGEST - length)).wrapping_sub(CODE.first[length]);
        if offset < CODE.count[length] {
            if length > bits.have {
                return None;
            }
            let octet = CODE.symbols[CODE.start[length] + offset as usize];
            bits.drop(length);
            return Some(Long::Octet(octet));
        }
    }
    None
}
