//! The case of HTTP/1 field names on the way over HTTP/2, which has lower case alone (RFC 9113 section 8.2): a private field of ours says how they were
//! spelled. It knows no peers: who calls it makes sure that the field goes between peers of the mesh only.
//!
//! The value is a style, `t` (`Title-Case`) or `l` (lower case), and behind a blank, separated by commas, the names that are spelled otherwise, as they are
//! spelled: `t DNT,x-request-id`. A name that stands in several fields, of which one is spelled otherwise, is listed for each of them, in their order.
//! `Host` and the fields of the framing are not told: each hop writes its own.

use smallvec::SmallVec;

use super::Fields;
use super::chars::{is_same_name, is_token};

/// The field that says how the others were spelled.
pub const CASE_FIELD: &str = "x-heddle-case";
/// Longest value: what does not fit in is spelled in the style of the others.
const MAX_BYTES: usize = 2 * 1024;
/// The most names that are listed.
const MAX_NAMES: usize = 64;

/// How names are usually spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Title,
    Lower,
}

impl Style {
    fn spell(self, name: &mut [u8]) {
        let mut start = true;
        for byte in name {
            let upper = start && self == Style::Title;
            *byte = if upper { byte.to_ascii_uppercase() } else { byte.to_ascii_lowercase() };
            start = *byte == b'-';
        }
    }

    fn is_of(self, name: &[u8]) -> bool {
        let mut start = true;
        name.iter().all(|byte| {
            let upper = start && self == Style::Title;
            start = *byte == b'-';
            if upper { !byte.is_ascii_lowercase() } else { !byte.is_ascii_uppercase() }
        })
    }
}

/// Says in a field of ours how all others are spelled. Whatever stood in that field goes.
pub fn note_case(fields: &mut Fields) {
    fields.remove(CASE_FIELD);
    let value = described(fields);
    fields.append(CASE_FIELD, value);
}

/// Takes our field off and spells all others as it says; says whether it was there.
pub fn restore_case(fields: &mut Fields) -> bool {
    let Some(value) = fields.get(CASE_FIELD).map(SmallVec::<[u8; 128]>::from_slice) else { return false };
    fields.remove(CASE_FIELD);
    let Some((style, listed)) = read(&value) else { return true };
    let mut used: SmallVec<[bool; 16]> = SmallVec::from_elem(false, listed.len());
    fields.respell(|name| {
        let mut same = (0..listed.len()).filter(|at| is_same_name(listed[*at], name));
        let first = same.next();
        let next = first.filter(|at| !used[*at]).or_else(|| same.find(|at| !used[*at])).or(first);
        match next {
            Some(at) => {
                used[at] = true;
                name.copy_from_slice(listed[at]);
            }
            None => style.spell(name),
        }
    });
    true
}

fn described(fields: &Fields) -> SmallVec<[u8; 256]> {
    let titles = fields.iter().filter(|field| Style::Title.is_of(field.name)).count();
    let lowers = fields.iter().filter(|field| Style::Lower.is_of(field.name)).count();
    let style = if titles >= lowers && titles > 0 { Style::Title } else { Style::Lower };
    let mut value = SmallVec::new();
    value.push(if style == Style::Title { b't' } else { b'l' });
    let odd: SmallVec<[&[u8]; 16]> = fields.iter().map(|field| field.name).filter(|name| !style.is_of(name)).collect();
    if odd.is_empty() {
        return value;
    }
    let listed = fields.iter().map(|field| field.name).filter(|name| odd.iter().any(|odd| is_same_name(odd, name)));
    for (nth, name) in listed.take(MAX_NAMES).enumerate() {
        if value.len() + name.len() >= MAX_BYTES {
            break;
        }
        value.push(if nth == 0 { b' ' } else { b',' });
        value.extend_from_slice(name);
    }
    value
}

/// Style and names; `None` for what is no value of ours.
fn read(value: &[u8]) -> Option<(Style, SmallVec<[&[u8]; 16]>)> {
    let (style, rest) = value.split_first().filter(|_| value.len() <= MAX_BYTES)?;
    let style = match style {
        b't' => Style::Title,
        b'l' => Style::Lower,
        _ => return None,
    };
    let Some(list) = rest.strip_prefix(b" ") else { return rest.is_empty().then(|| (style, SmallVec::new())) };
    let names: SmallVec<[&[u8]; 16]> = list.split(|byte| *byte == b',').take(MAX_NAMES + 1).collect();
    (names.len() <= MAX_NAMES && names.iter().all(|name| is_token(name))).then_some((style, names))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn fields(names: &[impl AsRef<[u8]>]) -> Fields {
        let mut fields = Fields::new();
        names.iter().enumerate().for_each(|(nth, name)| fields.append(name, nth.to_string()));
        fields
    }

    fn names(fields: &Fields) -> Vec<String> {
        fields.iter().map(|field| String::from_utf8(field.name.to_vec()).unwrap()).collect()
    }

    /// What HTTP/2 makes of a message.
    fn over_http2(fields: &Fields) -> Fields {
        let mut lower = Fields::new();
        fields.iter().for_each(|field| lower.append(field.name.to_ascii_lowercase(), field.value));
        lower
    }

    fn told(list: &[&str]) -> String {
        let mut fields = fields(list);
        note_case(&mut fields);
        String::from_utf8(fields.get(CASE_FIELD).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn usual_spellings_cost_a_letter_and_odd_ones_their_name() {
        assert_eq!(told(&["Accept", "User-Agent", "X-Id"]), "t");
        assert_eq!(told(&["accept", "user-agent"]), "l");
        assert_eq!(told(&[]), "l");
        assert_eq!(told(&["Accept", "DNT", "User-Agent", "traceparent"]), "t DNT,traceparent");
        assert_eq!(told(&["X-A", "x-a", "X-B"]), "t X-A,x-a");
    }

    #[test]
    fn what_a_caller_says_is_replaced_and_what_makes_no_sense_is_taken_off() {
        let mut own = fields(&["Accept"]);
        own.append(CASE_FIELD, "l EVIL");
        note_case(&mut own);
        assert_eq!(own.get_all(CASE_FIELD).collect::<Vec<_>>(), [b"t"]);
        for nonsense in ["", "x", "t ", "t a b", "tt", "l a,,b", "t \u{e9}", &format!("l {}", "a".repeat(MAX_BYTES))] {
            let mut fields = fields(&["accept"]);
            fields.append("X-Heddle-Case", nonsense);
            assert!(restore_case(&mut fields));
            assert_eq!(names(&fields), ["accept"], "{nonsense}");
        }
        assert!(!restore_case(&mut fields(&["accept"])));
    }

    #[test]
    fn values_stay_and_known_names_are_still_found() {
        let mut message = fields(&["CONTENT-TYPE", "X-a"]);
        note_case(&mut message);
        let mut far = over_http2(&message);
        restore_case(&mut far);
        assert_eq!(names(&far), ["CONTENT-TYPE", "X-a"]);
        assert_eq!((far.get_known(crate::http::Name::ContentType), far.get("x-A")), (Some(&b"0"[..]), Some(&b"1"[..])));
    }

    #[test]
    fn beyond_the_bounds_names_follow_the_style() {
        let mut list: Vec<String> = (0..MAX_NAMES + 6).map(|nth| format!("x-ODD-{nth}")).collect();
        list.extend((0..100).map(|nth| format!("Usual-{nth}")));
        let mut message = fields(&list);
        note_case(&mut message);
        assert!(message.get(CASE_FIELD).unwrap().len() <= MAX_BYTES);
        let mut far = over_http2(&message);
        restore_case(&mut far);
        let spelled = names(&far);
        assert_eq!(spelled[..MAX_NAMES], list[..MAX_NAMES]);
        assert_eq!(spelled[MAX_NAMES], format!("X-Odd-{MAX_NAMES}"));
    }

    proptest! {
        #[test]
        fn names_arrive_as_they_were_sent(list in proptest::collection::vec("[A-Za-z0-9!#_~-]{1,20}", 0..40)) {
            let list: Vec<String> = list.into_iter().filter(|name| !name.eq_ignore_ascii_case(CASE_FIELD)).collect();
            let mut message = fields(&list);
            note_case(&mut message);
            let mut far = over_http2(&message);
            prop_assert!(restore_case(&mut far));
            prop_assert_eq!(names(&far), list);
        }

        #[test]
        fn no_value_breaks_anything(value in "[ -~]{0,200}") {
            let mut message = fields(&["accept", "x-a"]);
            message.append(CASE_FIELD, &value);
            restore_case(&mut message);
            let lower: Vec<String> = names(&message).iter().map(|name| name.to_ascii_lowercase()).collect();
            prop_assert_eq!(lower, ["accept", "x-a"]);
        }
    }
}
