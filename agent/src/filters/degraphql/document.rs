//! As much of the grammar of GraphQL documents as tells whether one holds together and which operations it has (GraphQL, October 2021, section 2).

/// Deepest nesting of braces, brackets and parentheses.
const MAX_DEPTH: usize = 64;

/// Names of the operations, empty for one without a name.
///
/// # Errors
/// Says what is wrong with the document.
pub(super) fn operations(source: &str) -> Result<Vec<String>, String> {
    let mut words = Words { rest: source };
    let mut operations = Vec::new();
    while let Some(word) = words.next()? {
        match word {
            "{" => {
                words.group("{")?;
                operations.push(String::new());
            }
            "query" | "mutation" | "subscription" => operations.push(words.definition()?),
            "fragment" => _ = words.definition()?,
            other => return Err(format!("failed to parse query: expected an operation or a fragment, got `{other}`")),
        }
    }
    if operations.is_empty() { Err("failed to parse query: it has no operation".to_owned()) } else { Ok(operations) }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// The next word: a name or number, a whole text, or a sign.
    fn next(&mut self) -> Result<Option<&'a str>, String> {
        self.skip();
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let length = match first {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => {
                let inside = |c: char| c.is_ascii_alphanumeric() || "_-+.".contains(c);
                self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len())
            }
            '"' => text_length(self.rest)?,
            '.' if self.rest.starts_with("...") => 3,
            '{' | '}' | '(' | ')' | '[' | ']' | '!' | '$' | '&' | ':' | '=' | '@' | '|' => 1,
            other => return Err(format!("failed to parse query: unexpected `{other}`")),
        };
        let (word, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(Some(word))
    }

    /// Blanks, commas and comments mean nothing.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == ',' || c == '\u{feff}');
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.split_once(['\n', '\r']).map_or("", |(_, rest)| rest),
                None => return,
            }
        }
    }

    /// What follows the keyword of an operation or a fragment, to the end of its selection; gives its name.
    fn definition(&mut self) -> Result<String, String> {
        let mut name = None;
        let mut first = true;
        while let Some(word) = self.next()? {
            match word {
                "{" => {
                    self.group("{")?;
                    return Ok(name.unwrap_or_default());
                }
                "(" => self.group("(")?,
                "}" | ")" | "]" | "[" => return Err(format!("failed to parse query: unexpected `{word}`")),
                word if first && word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => name = Some(word.to_owned()),
                _ => {}
            }
            first = false;
        }
        Err("failed to parse query: an operation has no selection".to_owned())
    }

    /// What stands between an opening sign, which has been read, and its closing one.
    fn group(&mut self, open: &'a str) -> Result<(), String> {
        let mut stack = vec![open];
        let mut empty = true;
        while let Some(word) = self.next()? {
            match word {
                "{" | "(" | "[" if stack.len() == MAX_DEPTH => {
                    return Err(format!("failed to parse query: it is nested deeper than {MAX_DEPTH}"));
                }
                "{" | "(" | "[" => stack.push(word),
                "}" | ")" | "]" => {
                    let opened = stack.pop().unwrap_or_default();
                    if !matches!((opened, word), ("{", "}") | ("(", ")") | ("[", "]")) {
                        return Err(format!("failed to parse query: `{word}` does not close `{opened}`"));
                    }
                    if stack.is_empty() {
                        return if empty { Err("failed to parse query: a selection is empty".to_owned()) } else { Ok(()) };
                    }
                }
                _ => {}
            }
            empty = false;
        }
        Err(format!("failed to parse query: `{open}` is not closed"))
    }
}

/// Length of the text or block text at the start.
fn text_length(text: &str) -> Result<usize, String> {
    let unclosed = || "failed to parse query: a text has no closing quote".to_owned();
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let mut at = 0;
        loop {
            let found = at + block[at..].find("\"\"\"").ok_or_else(unclosed)?;
            if !block[..found].ends_with('\\') {
                return Ok(found + 6);
            }
            at = found + 3;
        }
    }
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '\n' | '\r' => return Err(unclosed()),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(at + 1),
            _ => {}
        }
    }
    Err(unclosed())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::operations;

    #[test]
    fn operations_are_found() {
        for (source, expected) in [
            ("{ persons { id } }", &[""][..]),
            ("query { a }", &[""]),
            ("query Q($n: [Int!] = [1, 2] @d) @x(a: \"}\") { a(n: $n) { ...F } } # {\nfragment F on T { b }", &["Q"]),
            ("query A { a } mutation B { b(s: \"\"\"x\"\\\"\"\"y}\"\"\") }", &["A", "B"]),
            ("subscription S { a(x: -1.5e+3) }", &["S"]),
        ] {
            assert_eq!(operations(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn what_holds_not_together_is_refused() {
        for source in [
            "",
            "# a",
            "fragment F on T { b }",
            "AA",
            "{",
            "{}",
            "{ a ]",
            "query Q",
            "query { a(b: \"x) }",
            "{ a } }",
            "{ a ? }",
            "query ) { a }",
        ] {
            assert!(operations(source).unwrap_err().starts_with("failed to parse query"), "{source}");
        }
        assert!(operations(&"{a".repeat(100)).unwrap_err().contains("deeper"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(source in "(query|fragment|\"\"\"|[{}()\\[\\]\"\\\\a:$# \n,é]){0,40}") {
            let _ = operations(&source);
        }
    }
}
