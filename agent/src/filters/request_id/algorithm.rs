//! Making ids from dice and the time. It knows no requests.

use fastrand::Rng;

use super::config::{Algorithm, Config};

/// A maker of ids.
#[derive(Debug)]
pub(super) enum Maker {
    Uuid,
    Uuidv7,
    Ksuid,
    Chars { set: Box<[u8]>, length: usize },
}

/// The alphabet of nanoid: URL-safe, 64 characters.
const NANOID: &[u8; 64] = b"useandom-26T198340PX75pxJACKVERYMINDBUSHWOLF_GQZbfghjklqvwyzrict";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// KSUID counts seconds from 2014-05-13.
const KSUID_EPOCH: u64 = 1_400_000_000;

impl Maker {
    pub(super) fn new(config: &Config) -> Maker {
        match config.algorithm {
            Algorithm::Uuid => Maker::Uuid,
            Algorithm::Uuidv7 => Maker::Uuidv7,
            Algorithm::Ksuid => Maker::Ksuid,
            Algorithm::Nanoid => Maker::Chars { set: NANOID[..].into(), length: 21 },
            Algorithm::RangeId => {
                Maker::Chars { set: config.range_id.char_set.as_bytes().into(), length: config.range_id.length.into() }
            }
        }
    }

    /// Hands a new id to `take`; `now_ms` is Unix time in milliseconds.
    pub(super) fn make<R>(&self, dice: &mut Rng, now_ms: u64, take: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Maker::Uuid => take(&uuid(dice.u128(..), 4)),
            Maker::Uuidv7 => take(&uuid(u128::from(now_ms) << 80 | dice.u128(..) >> 48, 7)),
            Maker::Ksuid => {
                let seconds = (now_ms / 1000).saturating_sub(KSUID_EPOCH) as u32;
                take(&ksuid(seconds, dice.u128(..)))
            }
            Maker::Chars { set, length } => {
                let mut out = [0; 256];
                let out = &mut out[..*length];
                out.fill_with(|| set[dice.usize(..set.len())]);
                take(out)
            }
        }
    }
}

/// Four bytes as eight digits, all at once: each half byte goes to a byte of its own, and those above 9 on to the letters.
fn hex(bits: u32) -> [u8; 8] {
    let spread = u64::from(bits);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (digits + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// RFC 9562 section 4: the version in bits 48 to 51, the variant `10` in bits 64 and 65.
fn uuid(bits: u128, version: u128) -> [u8; 36] {
    let bits = bits & !(0xf << 76) | version << 76;
    let bits = bits & !(0b11 << 62) | 0b10 << 62;
    let [a, b, c, d] = [bits >> 96, bits >> 64, bits >> 32, bits].map(|quarter| hex(quarter as u32));
    let mut out = [b'-'; 36];
    out[..8].copy_from_slice(&a);
    out[9..13].copy_from_slice(&b[..4]);
    out[14..18].copy_from_slice(&b[4..]);
    out[19..23].copy_from_slice(&c[..4]);
    out[24..28].copy_from_slice(&c[4..]);
    out[28..].copy_from_slice(&d);
    out
}

/// 20 bytes (seconds, then randomness) in base 62, 27 digits with leading zeros.
fn ksuid(seconds: u32, payload: u128) -> [u8; 27] {
    let mut words = [seconds, (payload >> 96) as u32, (payload >> 64) as u32, (payload >> 32) as u32, payload as u32];
    let mut out = [b'0'; 27];
    for place in out.iter_mut().rev() {
        let mut rest = 0u64;
        for word in &mut words {
            let value = rest << 32 | u64::from(*word);
            *word = (value / 62) as u32;
            rest = value % 62;
        }
        *place = BASE62[rest as usize];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_come_out() {
        assert_eq!(&uuid(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 4), b"01234567-89ab-4def-bedc-ba9876543210");
        assert_eq!(&uuid(u128::MAX, 4), b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(&uuid(0, 7), b"00000000-0000-7000-8000-000000000000");
        assert_eq!(&ksuid(0, 0), b"000000000000000000000000000");
        assert_eq!(&ksuid(u32::MAX, u128::MAX), b"aWgEPTl1tmebfsQzFP4bxwgy80V");
    }
}
