//! Cookies that the deciding service sets for the client along with its consent. It knows no other fields.

use crate::http::Fields;

const SET_COOKIE: &str = "set-cookie";

/// The `Set-Cookie` lines of an answer whose cookies have one of these names.
pub(super) fn wanted(fields: &Fields, names: &[String]) -> Vec<Vec<u8>> {
    let lines =
        fields.get_all(SET_COOKIE).filter(|line| has_name(line, |name| names.iter().any(|wanted| wanted.as_bytes() == name)));
    lines.map(<[u8]>::to_vec).collect()
}

/// Adds lines to a response; what it sets under the same names gives way.
pub(super) fn add(fields: &mut Fields, lines: &[Vec<u8>]) {
    let ours = |name: &[u8]| lines.iter().any(|line| has_name(line, |other| other == name));
    fields.retain(|field| !field.is(SET_COOKIE) || !has_name(field.value, ours));
    for line in lines {
        fields.append(SET_COOKIE, line);
    }
}

fn has_name(line: &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
    is(name.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_the_service_win_over_those_of_the_upstream() {
        let mut answer = Fields::new();
        for line in ["session=1; HttpOnly", "tracking=2", "theme=dark"] {
            answer.append("Set-Cookie", line);
        }
        let lines = wanted(&answer, &["session".to_owned(), "theme".to_owned()]);
        let mut response = Fields::new();
        for line in ["session=old", "cart=3", " theme =light"] {
            response.append("set-cookie", line);
        }
        add(&mut response, &lines);
        let all: Vec<&[u8]> = response.get_all("set-cookie").collect();
        assert_eq!(all, [&b"cart=3"[..], b"session=1; HttpOnly", b"theme=dark"]);
    }
}
