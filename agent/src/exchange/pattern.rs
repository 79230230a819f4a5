//! Regular expressions that users write: linear time, bounded memory. It knows not what they are matched against.

use regex::{Captures, Regex};

/// Longest pattern in bytes.
const MAX_PATTERN: usize = 8 * 1024;
/// Most memory of one compiled pattern; a pattern like `\w{1000}` is far above.
const MAX_PROGRAM: usize = 1024 * 1024;
/// Most memory of a list of patterns that are searched for at once.
const MAX_SET: usize = 16 * 1024 * 1024;

/// A pattern with the text that everything begins with in which it is found. Most texts are turned away by that alone, at a hundredth of the cost.
#[derive(Debug)]
pub struct Pattern {
    regex: Regex,
    start: Box<str>,
}

impl Pattern {
    /// Compiles a pattern without options.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn new(pattern: &str) -> Result<Pattern, String> {
        Ok(Pattern { regex: compile(pattern, "")?, start: start(pattern).into() })
    }

    /// The first match and its captures.
    pub fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        if text.starts_with(&*self.start) { self.regex.captures(text) } else { None }
    }
}

/// Patterns of which it is asked whether one of them is found; all are searched for at once.
#[derive(Debug)]
pub struct Patterns(regex::bytes::RegexSet);

impl Patterns {
    /// Compiles a list of patterns with the options of [`compile`].
    ///
    /// # Errors
    /// As [`compile`], with the place of the pattern in the list; none when all of them together need too much memory.
    pub fn new(patterns: &[String], options: &str) -> Result<Patterns, (Option<usize>, String)> {
        let mut flagged = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            compile_bytes(pattern, options).map_err(|error| (Some(index), error))?;
            flagged.push(flags(pattern, options).map_err(|error| (Some(index), error))?);
        }
        let mut builder = regex::bytes::RegexSetBuilder::new(&flagged);
        let set = builder.size_limit(MAX_SET).dfa_size_limit(MAX_PROGRAM).build();
        set.map(Patterns).map_err(|_| (None, "the patterns together need too much memory; use fewer or smaller ones".to_owned()))
    }

    /// Whether one of them is found in the text, which need not be UTF-8.
    pub fn found_in(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }
}

/// The plain text behind the `^` of a pattern; empty where that is not certain.
fn start(pattern: &str) -> &str {
    let Some(rest) = pattern.strip_prefix('^').filter(|rest| !rest.contains('|') && !rest.contains("(?")) else { return "" };
    let end = rest.find(|c| r"\.+*?()[]{}^$".contains(c)).unwrap_or(rest.len());
    let (text, behind) = rest.split_at(end);
    // A `+` alone repeats what is there once; any other sign of repetition, on top of it too, may mean that it is not there.
    let repeated = behind.strip_prefix('+').unwrap_or(behind).starts_with(['*', '?', '{', '+']);
    match text.char_indices().next_back() {
        // The last character may be there any number of times.
        Some((last, _)) if repeated => &text[..last],
        _ => text,
    }
}

/// Compiles a pattern written for PCRE as far as it can be matched in linear time.
///
/// `options` are those of `ngx.re`: `i`, `m`, `s`, `x` and `u` have their meaning; `j`, `o`, `a`, `d` and `D` only tune PCRE and are ignored.
///
/// # Errors
/// Says what is wrong with the pattern or the options.
pub fn compile(pattern: &str, options: &str) -> Result<Regex, String> {
    let flags = flags(pattern, options)?;
    let mut builder = regex::RegexBuilder::new(&flags);
    builder.size_limit(MAX_PROGRAM).dfa_size_limit(MAX_PROGRAM).build().map_err(|error| explain(pattern, &error))
}

/// The same for bytes that need not be UTF-8, such as bodies.
///
/// # Errors
/// Says what is wrong with the pattern or the options.
pub fn compile_bytes(pattern: &str, options: &str) -> Result<regex::bytes::Regex, String> {
    let flags = flags(pattern, options)?;
    let mut builder = regex::bytes::RegexBuilder::new(&flags);
    builder.size_limit(MAX_PROGRAM).dfa_size_limit(MAX_PROGRAM).build().map_err(|error| explain(pattern, &error))
}

/// The pattern with its options in front.
fn flags(pattern: &str, options: &str) -> Result<String, String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("the pattern is longer than {MAX_PATTERN} bytes"));
    }
    let mut flags = String::new();
    for option in options.chars() {
        match option {
            'i' | 'm' | 's' | 'x' => flags.push(option),
            'u' | 'j' | 'o' | 'a' | 'd' | 'D' => {}
            other => return Err(format!("unknown regex option `{other}`; known are i, m, s, x, u, j, o")),
        }
    }
    Ok(if flags.is_empty() { pattern.to_owned() } else { format!("(?{flags}){pattern}") })
}

fn explain(pattern: &str, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => format!("the pattern `{pattern}` needs too much memory; use smaller repetitions"),
        _ if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| pattern.contains(look)) => {
            format!("the pattern `{pattern}` looks ahead or behind, which cannot be matched in linear time")
        }
        // The last line of the message is the reason; those before draw the pattern.
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("bad regex `{pattern}`: {reason}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::{Pattern, Patterns, compile, start};

    #[test]
    fn what_a_pattern_starts_with_is_plain_text() {
        for (pattern, expected) in [
            ("^/old/(.*)", "/old/"),
            ("^/old*", "/ol"),
            ("^/old+", "/old"),
            ("^/old+x", "/old"),
            ("^/old+?x", "/ol"),
            ("^/old+*", "/ol"),
            ("^/old++{0}", "/ol"),
            ("^/é?x", "/"),
            ("^/a{2}", "/"),
            ("^/a|b", ""),
            ("^(?i)/a", ""),
            ("/a", ""),
            ("^", ""),
            (r"^/a\.b", "/a"),
            ("^/a$", "/a"),
        ] {
            assert_eq!(start(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_repeated_twice_may_not_be_there() {
        for (pattern, text) in [("^a+*b", "b"), ("^a+??b", "b"), ("^a++{0}b", "b"), ("^a+{0,1}b", "b")] {
            assert!(compile(pattern, "").unwrap().is_match(text), "{pattern}");
            assert!(Pattern::new(pattern).unwrap().captures(text).is_some(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn the_start_changes_no_match(pattern in r"\^?[ab/é.*+?|()$\\{}1]{0,8}", text in "[ab/é1]{0,6}") {
            if let (Ok(pattern), Ok(regex)) = (Pattern::new(&pattern), compile(&pattern, "")) {
                let spans = |found: Option<regex::Captures<'_>>| found.map(|found| found.iter().map(|part| part.map(|part| part.range())).collect::<Vec<_>>());
                prop_assert_eq!(spans(pattern.captures(&text)), spans(regex.captures(&text)));
            }
        }
    }

    #[test]
    fn options_are_those_of_pcre() {
        assert!(compile("^ab", "jo").unwrap().is_match("abc"));
        assert!(compile("^AB", "i").unwrap().is_match("abc"));
        assert!(compile("a.b", "s").unwrap().is_match("a\nb"));
        assert!(compile("x", "q").unwrap_err().contains("`q`"));
    }

    #[test]
    fn of_many_patterns_one_is_enough() {
        let list = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect::<Vec<_>>();
        let patterns = Patterns::new(&list(&["^a", "B$"]), "i").unwrap();
        assert!(patterns.found_in(b"A\xff") && patterns.found_in(b"xb") && !patterns.found_in(b"ba."));
        assert!(!Patterns::new(&[], "").unwrap().found_in(b""));
        assert_eq!(Patterns::new(&list(&["a", "("]), "").unwrap_err().0, Some(1));
        let (place, message) = Patterns::new(&vec![r"\w{20}".to_owned(); 60], "").unwrap_err();
        assert!(place.is_none() && message.contains("together"), "{message}");
    }

    #[test]
    fn bad_patterns_say_why() {
        assert!(compile("(", "").unwrap_err().contains("unclosed group"));
        assert!(compile("(?=a)", "").unwrap_err().contains("linear time"));
        assert!(compile(r"\w{5000}", "").unwrap_err().contains("memory"));
        assert!(compile(&"a".repeat(9000), "").unwrap_err().contains("longer"));
    }
}
