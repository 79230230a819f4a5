//! Which codings a client takes, as `Accept-Encoding` says it (RFC 9110 section 12.5.3). It knows no response.

use super::super::fields::each_accepted;
use super::Coding;
use crate::exchange::Exchange;

/// Most members of the field that are looked at.
const MAX_MEMBERS: usize = 64;
/// The weight of what comes without one, in thousandths.
const FULL: u16 = 1000;

/// What a client says of one coding: the weight in thousandths, and where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    weight: u16,
    place: u8,
}

/// The weights that a client gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Accepted {
    gzip: Option<Said>,
    brotli: Option<Said>,
    zstd: Option<Said>,
    identity: Option<Said>,
    any: Option<Said>,
    given: bool,
    members: u8,
}

/// How much a client wants a coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It has named it, with this weight.
    Named(u16),
    /// It takes any, with this weight.
    Any(u16),
    /// It has said nothing at all.
    Silent,
    /// It does not take it, or likes the response better as it is.
    No,
}

impl Accepted {
    /// What the client of a request has said.
    pub(super) fn of(x: &Exchange) -> Accepted {
        let mut accepted = Accepted::default();
        each_accepted(x, |line| {
            accepted.given = true;
            line.split(|byte| *byte == b',').take(MAX_MEMBERS).for_each(|member| accepted.member(member));
        });
        accepted
    }

    fn member(&mut self, member: &[u8]) {
        let mut parts = member.split(|byte| *byte == b';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        let weight = parts.find_map(|part| weight(part.trim_ascii())).unwrap_or(FULL);
        let is = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        let place = match name {
            b"*" => &mut self.any,
            _ if is("gzip") || is("x-gzip") => &mut self.gzip,
            _ if is("br") => &mut self.brotli,
            _ if is("zstd") => &mut self.zstd,
            _ if is("identity") => &mut self.identity,
            _ => return,
        };
        *place = Some(Said { weight, place: self.members });
        self.members = self.members.saturating_add(1);
    }

    fn said(&self, coding: Coding) -> Option<Said> {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
        }
    }

    /// Where the client first gives a coding this weight, by its name or by `*`; `None` where it would rather, or as soon, have the response as it is.
    pub(super) fn place(&self, coding: Coding, weight: u16) -> Option<u8> {
        let of_weight = |said: Option<Said>| said.filter(|said| said.weight >= weight).map(|said| said.place);
        let place = of_weight(self.said(coding)).into_iter().chain(of_weight(self.any)).min().unwrap_or_default();
        let plain = of_weight(self.identity).is_some_and(|plain| plain < place);
        (!plain).then_some(place)
    }

    /// What the client thinks of a coding.
    pub(super) fn wish(&self, coding: Coding) -> Wish {
        let wish = match (self.said(coding), self.any) {
            (Some(said), _) => Wish::Named(said.weight),
            (None, Some(said)) => Wish::Any(said.weight),
            (None, None) if self.given => Wish::No,
            (None, None) => Wish::Silent,
        };
        match wish {
            Wish::Named(weight) | Wish::Any(weight)
                if weight == 0 || self.identity.is_some_and(|plain| plain.weight > weight) =>
            {
                Wish::No
            }
            wish => wish,
        }
    }
}

/// The thousandths of `q=0.5`; a weight that is none counts as zero, so that nobody is sent what they may not want.
fn weight(part: &[u8]) -> Option<u16> {
    let text = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?;
    let (whole, digits) = match text {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return Some(0),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let mut thousandths = u16::from(whole - b'0') * FULL;
    for (digit, unit) in digits.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit - b'0') * unit;
    }
    Some(if thousandths > FULL { 0 } else { thousandths })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::fields::ask_for_plain;
    use super::*;
    use crate::exchange::testing::request;

    fn wishes(value: Option<&str>) -> [Wish; 3] {
        let fields = value.map(|value| ("Accept-Encoding", value));
        let mut x = request("GET", "h", "/", fields.as_slice());
        let accepted = Accepted::of(&x);
        ask_for_plain(&mut x);
        assert_eq!(Accepted::of(&x), accepted, "what the client takes is not forgotten");
        [Coding::Gzip, Coding::Brotli, Coding::Zstd].map(|coding| accepted.wish(coding))
    }

    #[test]
    fn weights_are_those_of_the_rfc() {
        use Wish::*;
        for (value, expected) in [
            (None, [Silent, Silent, Silent]),
            (Some(""), [No, No, No]),
            (Some("gzip, br"), [Named(1000), Named(1000), No]),
            (Some("gzip;q=0.5, br ; q=0.75,zstd;q=1.000"), [Named(500), Named(750), Named(1000)]),
            (Some("X-GZIP, *;q=0.1"), [Named(1000), Any(100), Any(100)]),
            (Some("*"), [Any(1000), Any(1000), Any(1000)]),
            (Some("gzip;q=0, *"), [No, Any(1000), Any(1000)]),
            (Some("identity, gzip;q=0.5"), [No, No, No]),
            (Some("identity;q=0.4, gzip;q=0.5"), [Named(500), No, No]),
            (Some("gzip;q=2, br;q=0.1234, zstd;q=x"), [No, No, No]),
            (Some("gzip;q=1.5"), [No, No, No]),
            (Some("gzip;level=9;q=0.25"), [Named(250), No, No]),
        ] {
            assert_eq!(wishes(value), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(value in "[gzipbrstd*;q=0.1, ]{0,80}") {
            for wish in wishes(Some(&value)) {
                if let Wish::Named(weight) | Wish::Any(weight) = wish {
                    prop_assert!((1..=1000).contains(&weight));
                }
            }
        }
    }
}
