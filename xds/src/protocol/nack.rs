//! The text of a NACK: one line per bad resource, written by us, read from anybody. It knows no message.

use super::Types;
use crate::codec::InvalidResource;
use crate::model::Kind;

/// Lines of a NACK: `KIND NAME: FIELD: REASON` for each bad resource.
const MAX_NACK_LINES: usize = 100;
/// Characters of one line.
const MAX_NACK_LINE: usize = 1000;

/// The text of a NACK: one line for each bad resource, bounded.
pub fn nack_text(rejected: &[InvalidResource]) -> String {
    let line = |fault: &InvalidResource| -> String {
        let line = fault.to_string();
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_NACK_LINE).collect()
    };
    let mut lines: Vec<String> = rejected.iter().take(MAX_NACK_LINES).map(line).collect();
    if rejected.len() > MAX_NACK_LINES {
        lines.push(format!("and {} more", rejected.len() - MAX_NACK_LINES));
    }
    lines.join("\n")
}

/// One line of a NACK, as far as it could be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NackLine {
    /// Name of the resource, empty when the line does not say it in our form.
    pub name: String,
    /// Field, empty when not said.
    pub field: String,
    /// Why; the whole line when it is not in our form.
    pub reason: String,
}

/// Reads the text of a NACK about resources of `kind`, which an agent names as its dialect does: `Upstream` is Envoy's `Cluster`. Other clients write what they
/// like: such a line is all reason.
pub fn parse_nack(kind: Kind, text: &str) -> Vec<NackLine> {
    let theirs = Types::Envoy.url(kind).rsplit('.').next().unwrap_or_default();
    let parse = |line: &str| -> NackLine {
        let line: String = line.chars().filter(|c| !c.is_control()).take(MAX_NACK_LINE).collect();
        let ours = [kind.as_str(), theirs].iter().find_map(|named| line.strip_prefix(named)?.strip_prefix(' '));
        let parts = ours.and_then(|rest| rest.split_once(": ")).and_then(|(name, rest)| Some((name, rest.split_once(": ")?)));
        match parts {
            Some((name, (field, reason))) => {
                NackLine { name: name.to_string(), field: field.to_string(), reason: reason.to_string() }
            }
            None => NackLine { name: String::new(), field: String::new(), reason: line },
        }
    };
    let lines: Vec<NackLine> = text.lines().filter(|line| !line.trim().is_empty()).take(MAX_NACK_LINES + 1).map(parse).collect();
    if lines.is_empty() {
        return vec![NackLine { name: String::new(), field: String::new(), reason: "no reason given".to_string() }];
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    fn fault(name: &str, field: &str, reason: &str) -> InvalidResource {
        InvalidResource { kind: Kind::Route, name: name.into(), field: field.to_string(), reason: reason.to_string() }
    }

    #[test]
    fn a_nack_is_read_as_it_was_written() {
        let text = nack_text(&[fault("r1", "matches.uris", "must not be empty"), fault("r2", "", "two\nlines: with: colons")]);
        let lines = parse_nack(Kind::Route, &text);
        let line = |name: &str, field: &str, reason: &str| NackLine {
            name: name.to_string(),
            field: field.to_string(),
            reason: reason.to_string(),
        };
        assert_eq!(lines, [line("r1", "matches.uris", "must not be empty"), line("r2", "", "two lines: with: colons")]);
    }

    #[test]
    fn an_agent_that_speaks_envoys_types_names_them() {
        for (kind, named, name, field) in [
            (Kind::Upstream, "Cluster", "u1", "lb_policy"),
            (Kind::Endpoints, "ClusterLoadAssignment", "routes/r1", "endpoints[0].lb_endpoints[2].endpoint"),
            (Kind::Route, "RouteConfiguration", "heddle", "virtual_hosts[0].routes[0].typed_per_filter_config[a.b]"),
            (Kind::Listener, "Listener", "edge", "api_listener"),
            (Kind::Secret, "Secret", "roots", "generic_secret"),
        ] {
            let found = parse_nack(kind, &format!("{named} {name}: {field}: is not supported: use a: b"));
            let expected =
                NackLine { name: name.to_owned(), field: field.to_owned(), reason: "is not supported: use a: b".to_owned() };
            assert_eq!(found, [expected], "{named}");
        }
        let other = "ClusterLoadAssignment u1: endpoints: is missing";
        assert_eq!(parse_nack(Kind::Upstream, other)[0].reason, other, "of another kind");
    }

    #[test]
    fn foreign_nacks_are_all_reason() {
        let text = "Error adding/updating cluster(s) bad-cluster: no such thing";
        assert_eq!(parse_nack(Kind::Upstream, text)[0].reason, text);
        assert_eq!(parse_nack(Kind::Upstream, "")[0].reason, "no reason given");
    }

    #[test]
    fn a_nack_is_bounded() {
        let faults: Vec<_> = (0..5000).map(|n| fault(&n.to_string(), "f", &"x".repeat(5000))).collect();
        let text = nack_text(&faults);
        assert!(text.len() < 110_000 && text.ends_with("and 4900 more"), "{}", text.len());
        assert_eq!(parse_nack(Kind::Route, &text).len(), 101);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
            prop_assert!(!parse_nack(Kind::Route, &text).is_empty());
        }
    }
}
