//! The code itself. It is canonical (codes of one length count up with their symbols, longer ones go on behind), so the lengths say all.

/// Longest code.
pub(super) const LONGEST: usize = 30;

/// Length of the code of each octet in bits (RFC 7541 appendix B). The end-of-string symbol is the last code of [`LONGEST`] bits, all ones.
pub(super) const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28,
    28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7,
    6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24,
    23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22,
    23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27,
    26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25,
    24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

/// Everything that follows from the lengths.
pub(super) struct Code {
    /// Code of each octet, right-aligned.
    pub(super) codes: [u32; 256],
    /// First code of each length.
    pub(super) first: [u32; LONGEST + 1],
    /// Number of codes of each length.
    pub(super) count: [u32; LONGEST + 1],
    /// Where the symbols of each length begin in `symbols`.
    pub(super) start: [usize; LONGEST + 1],
    /// All octets by length and value.
    pub(super) symbols: [u8; 256],
}

pub(super) static CODE: Code = CANONICAL;
pub(super) const CANONICAL: Code = canonical();

const fn canonical() -> Code {
    let mut code =
        Code { codes: [0; 256], first: [0; LONGEST + 1], count: [0; LONGEST + 1], start: [0; LONGEST + 1], symbols: [0; 256] };
    let (mut next, mut filled, mut length) = (0u32, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        code.first[length] = next;
        code.start[length] = filled;
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                code.codes[symbol] = next;
                code.symbols[filled] = symbol as u8;
                code.count[length] += 1;
                next += 1;
                filled += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}
