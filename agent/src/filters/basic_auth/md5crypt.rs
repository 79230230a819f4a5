//! Apache's variant of MD5-crypt (`$apr1$`), as `htpasswd` and `openssl passwd -apr1` make it. It knows no users.

use md5::{Digest, Md5};

const MAGIC: &[u8] = b"$apr1$";
/// Longest salt.
const MAX_SALT: usize = 8;
/// Letters of the hash; 16 bytes in groups of six bits.
const HASH_LEN: usize = 22;
const ROUNDS: usize = 1_000;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Salt and hash of `$apr1$salt$hash`.
pub(super) fn parts(text: &str) -> Option<(&str, &str)> {
    let (salt, hash) = text.strip_prefix("$apr1$")?.split_once('$')?;
    let fits = salt.len() <= MAX_SALT && hash.len() == HASH_LEN && hash.bytes().all(|byte| ALPHABET.contains(&byte));
    fits.then_some((salt, hash))
}

/// The hash of a password, without magic and salt.
pub(super) fn apr1(password: &[u8], salt: &[u8]) -> String {
    let inner: [u8; 16] = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut start = Md5::new().chain_update(password).chain_update(MAGIC).chain_update(salt);
    let mut left = password.len();
    while left > 0 {
        let some = left.min(inner.len());
        start.update(&inner[..some]);
        left -= some;
    }
    let mut length = password.len();
    while length > 0 {
        // A nought for each bit that is set, the first letter for each that is not: so it was written once, and so it stays.
        if length & 1 == 1 {
            start.update([0])
        } else {
            start.update(&password[..1])
        }
        length >>= 1;
    }
    let mut state: [u8; 16] = start.finalize().into();
    for round in 0..ROUNDS {
        state = stretched(round, &state, password, salt);
    }
    encoded(&state)
}

fn stretched(round: usize, state: &[u8; 16], password: &[u8], salt: &[u8]) -> [u8; 16] {
    let (first, last): (&[u8], &[u8]) = if round & 1 == 1 { (password, state) } else { (state, password) };
    let mut hash = Md5::new().chain_update(first);
    if !round.is_multiple_of(3) {
        hash.update(salt);
    }
    if !round.is_multiple_of(7) {
        hash.update(password);
    }
    hash.chain_update(last).finalize().into()
}

fn encoded(state: &[u8; 16]) -> String {
    let mut out = String::with_capacity(HASH_LEN);
    let mut push = |mut bits: u32, letters: usize| {
        for _ in 0..letters {
            out.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        push(u32::from(state[a]) << 16 | u32::from(state[b]) << 8 | u32::from(state[c]), 4);
    }
    push(u32::from(state[11]), 2);
    out
}
