//! The text of a NACK: one line per bad resource, written by us, read from anybody. It knows no message.

use super::Types;
use crate::codec::InvalidResource;
use crate::model::Kind;

/// Lines of a NACK: `KIND NAME: FIELD: REASON` for each bad resource.
const MAX_NACK_LINES: usize = 100;
/// Characters of one line.
const MAX_NACK_LINE: usize = 1000;
/// Characters of a text that is not in our form.
const MAX_NACK_TEXT: usize = 20 * MAX_NACK_LINE;

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
/// like: such a text is one reason, whose lines belong together. Envoy shows what it has read, and says why before that, or behind it.
pub fn parse_nack(kind: Kind, text: &str) -> Vec<NackLine> {
    let theirs = Types::Envoy.url(kind).rsplit('.').next().unwrap_or_default();
    let parse = |line: &str| -> NackLine {
        let line = within(&line.chars().filter(|c| !c.is_control()).collect::<String>(), MAX_NACK_LINE);
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
    if lines.len() > 1 && lines.iter().all(|line| line.name.is_empty()) {
        return vec![NackLine { name: String::new(), field: String::new(), reason: in_one_line(text) }];
    }
    lines
}

/// Several lines as one, without those that say nothing, such as a brace.
fn in_one_line(text: &str) -> String {
    let says = |line: &&str| line.contains(char::is_alphanumeric);
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = text.lines().map(str::trim).filter(says).map(plain).collect();
    if lines.is_empty() { within(&plain(text), MAX_NACK_LINE) } else { within(&lines.join(" "), MAX_NACK_TEXT) }
}

/// A reason as it is kept and shown: beginning and end, since others show what they have read before they say why, or behind it.
pub fn shortened(reason: &str) -> String {
    within(reason, MAX_NACK_LINE)
}

/// A text of `most` characters at most, the middle of which is left out where it is longer.
fn within(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let half = most / 2;
    let (head, tail) = (text.chars().take(half), text.chars().skip(count - (most - half - 1)));
    head.chain(['…']).chain(tail).collect()
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
    fn a_foreign_nack_of_several_lines_is_one_reason_that_begins_with_why() {
        let text = "Proto constraint validation failed (VirtualHosts[0]: embedded message failed validation): \
                    virtual_hosts {\n  name: \"*\"\n  routes {\n    route {\n      timeout {\n      }\n    }\n  }\n}\n";
        let lines = parse_nack(Kind::Route, text);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].reason.starts_with("Proto constraint validation failed (VirtualHosts[0]"), "{}", lines[0].reason);
        assert!(lines[0].reason.ends_with("name: \"*\" routes { route { timeout {"), "{}", lines[0].reason);
        assert_eq!(parse_nack(Kind::Route, "{\n}")[0].reason, "{}");
        let long = "why\n".to_owned() + &"x".repeat(90_000);
        assert!(parse_nack(Kind::Route, &long)[0].reason.chars().count() <= MAX_NACK_TEXT);
        assert_eq!(shortened(&long).chars().count(), MAX_NACK_LINE);
    }

    #[test]
    fn what_an_envoy_says_behind_all_that_it_has_read_is_shown() {
        let dump = "  health_checks {\n    timeout {\n      seconds: 1\n    }\n  }\n".repeat(2_000);
        let why = "Proto constraint validation failed (HttpHealthCheckValidationError.Method: value must not be in list)";
        let text = format!("goo.gle/debugonly name: \"upstreams/fz16\"\ntype: EDS\n{dump}{why}");
        let reason = shortened(&parse_nack(Kind::Upstream, &text)[0].reason);
        assert!(reason.starts_with("goo.gle/debugonly name: \"upstreams/fz16\" type: EDS"), "{reason}");
        assert!(reason.ends_with(why) && reason.contains('…') && reason.chars().count() == MAX_NACK_LINE, "{reason}");
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
