//! Unpacking, up to two octets at a look-up: short codes are those of letters and digits. It allocates only for what comes out.
//!
//! The bits are kept inverted, so that the zeros which a shift brings in stand for the ones that padding consists of.

use super::code::{CANONICAL, CODE, LONGEST};

/// Bits of a look-up.
const BITS: usize = 11;

/// What the next bits say, in one number: up to two octets, from bit 16 on the bits that are used up (none where the next code is longer than a
/// look-up), from bit 24 on the number of octets.
type Step = u32;

static STEPS: [Step; 1 << BITS] = steps();

const fn steps() -> [Step; 1 << BITS] {
    let mut steps = [0; 1 << BITS];
    let mut index = 0;
    while index < steps.len() {
        let bits = !index & ((1 << BITS) - 1);
        let (first, used) = short(bits, BITS);
        if used > 0 {
            let (second, more) = short(bits, BITS - used);
            let count = if more > 0 { 2 } else { 1 };
            steps[index] = first as u32 | (second as u32) << 8 | ((used + more) as u32) << 16 | count << 24;
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
        let taken = (63 - self.have) / 8;
        let (eight, taken) = match self.rest.first_chunk() {
            Some(eight) => (*eight, taken),
            None => {
                // What is not there reads as ones.
                let mut eight = [0xff; 8];
                eight[..self.rest.len()].copy_from_slice(self.rest);
                (eight, taken.min(self.rest.len()))
            }
        };
        // What does not fit is brought in again, to the same place.
        self.top |= !u64::from_be_bytes(eight) >> self.have;
        self.have += taken * 8;
        self.rest = &self.rest[taken..];
    }

    /// Up to eight octets by four look-ups, and how many octets they are. Codes that are too long for a look-up stop it, and so does padding.
    fn several(&mut self) -> (u64, usize) {
        let (mut text, mut len) = (0, 0);
        for _ in 0..4 {
            let step = STEPS[(self.top >> (64 - BITS)) as usize];
            self.drop((step >> 16 & 0xff) as usize);
            text |= u64::from(step & 0xffff) << (8 * len);
            len += step >> 24;
        }
        (text, len as usize)
    }

    /// Takes bits off; where more are taken than there are, that shows as far more than there can be.
    fn drop(&mut self, bits: usize) {
        self.top <<= bits;
        self.have = self.have.wrapping_sub(bits);
    }

    /// Whether only padding is left: less than an octet of ones, which begin no shorter code (RFC 7541 section 5.2).
    fn at_end(&self) -> bool {
        self.have < 8 && self.top == 0 && self.rest.is_empty()
    }
}

/// Appends what `packed` says; `false` where it is no code, or its padding is not what it must be.
pub(in super::super) fn decode(packed: &[u8], out: &mut Vec<u8>) -> bool {
    let mut at = out.len();
    // The shortest code has five bits; look-ups write more octets than they have.
    out.resize(at + packed.len() * 8 / 5 + 8, 0);
    let mut bits = Bits { top: 0, have: 0, rest: packed };
    while !bits.at_end() {
        bits.fill();
        let Some(room) = out.get_mut(at..at + 8) else { return false };
        let (text, len) = bits.several();
        room.copy_from_slice(&text.to_le_bytes());
        at += len;
        if bits.have > 64 {
            return false;
        }
        if len == 0 && !bits.at_end() {
            let Some(octet) = long(&mut bits) else { return false };
            room[0] = octet;
            at += 1;
        }
    }
    out.truncate(at);
    true
}

/// A code that is longer than a look-up.
fn long(bits: &mut Bits<'_>) -> Option<u8> {
    let next = (!bits.top >> (64 - LONGEST)) as u32;
    for length in BITS + 1..=LONGEST {
        let offset = (next >> (LONGEST - length)).wrapping_sub(CODE.first[length]);
        if offset < CODE.count[length] {
            bits.drop(length);
            return (bits.have <= 64).then_some(CODE.symbols[CODE.start[length] + offset as usize]);
        }
    }
    None
}
