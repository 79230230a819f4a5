//! The head of a GraphQL document (GraphQL specification of October 2021, section 2): the kind, the name and the root fields of its first operation.
//! It knows no requests, and reads no further than that.

/// Most root fields of an operation.
const MAX_FIELDS: usize = 1_000;

/// An operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// `query`, `mutation` or `subscription`.
    pub kind: &'static str,
    /// Its name, empty when it has none.
    pub name: String,
    /// The fields at its root, without aliases.
    pub root_fields: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Token<'a> {
    Name(&'a str),
    Sign(u8),
    Spread,
    /// A number or a text.
    Other,
}

impl Operation {
    /// Whether a variable of this name is about operations.
    pub fn is_named(name: &str) -> bool {
        ["graphql_name", "graphql_operation", "graphql_root_fields"].iter().any(|known| {
            name.strip_prefix(known)
                .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_'))
        })
    }

    /// The first operation of a document.
    pub fn parse(document: &str) -> Option<Operation> {
        let mut tokens = Tokens { rest: document };
        loop {
            match tokens.next()? {
                Token::Sign(b'{') => {
                    return Some(Operation { kind: "query", name: String::new(), root_fields: tokens.root_fields()? });
                }
                Token::Name("fragment") => tokens.skip_definition()?,
                Token::Name(word) => {
                    let kind = ["query", "mutation", "subscription"].into_iter().find(|kind| *kind == word)?;
                    let name = tokens.operation_name()?;
                    return Some(Operation { kind, name, root_fields: tokens.root_fields()? });
                }
                _ => return None,
            }
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n', ',', '\u{feff}']);
            match self.rest.strip_prefix('#') {
                Some(comment) => self.rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]),
                None => break,
            }
        }
        let first = *self.rest.as_bytes().first()?;
        match first {
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                let part = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                Some(Token::Name(self.take(self.rest.find(part).unwrap_or(self.rest.len()))))
            }
            b'-' | b'0'..=b'9' => {
                let part = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
                self.take(self.rest.find(part).unwrap_or(self.rest.len()));
                Some(Token::Other)
            }
            b'"' => self.text(),
            b'.' => {
                self.rest = self.rest.strip_prefix("...")?;
                Some(Token::Spread)
            }
            b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                self.take(1);
                Some(Token::Sign(first))
            }
            _ => None,
        }
    }

    fn take(&mut self, end: usize) -> &'a str {
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text
    }

    fn text(&mut self) -> Option<Token<'a>> {
        let (body, end) = match self.rest.strip_prefix("\"\"\"") {
            Some(body) => (body, "\"\"\""),
            None => (&self.rest[1..], "\""),
        };
        let mut at = 0;
        loop {
            let next = at + body[at..].find(end)?;
            let escapes = body[..next].bytes().rev().take_while(|byte| *byte == b'\\').count();
            // In a block text only `\"""` is an escape, and a backslash does not escape itself.
            let escaped = if end.len() == 3 { escapes > 0 } else { escapes % 2 == 1 };
            if !escaped {
                self.rest = &body[next + end.len()..];
                return Some(Token::Other);
            }
            at = next + end.len();
        }
    }

    /// The name of an operation, up to and with the brace that opens its fields.
    fn operation_name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut first = true;
        loop {
            match self.next()? {
                Token::Name(found) if first => name = found.to_owned(),
                Token::Sign(b'{') => return Some(name),
                Token::Sign(b'(') => self.skip_to_close()?,
                _ => {}
            }
            first = false;
        }
    }

    /// The names of the fields behind an open brace.
    fn root_fields(&mut self) -> Option<Vec<String>> {
        let mut fields: Vec<String> = Vec::new();
        // Whether the next name is a word behind a spread or a directive instead of a field.
        let mut aside = 0;
        loop {
            match self.next()? {
                Token::Sign(b'}') => return Some(fields),
                Token::Sign(b'(' | b'{') => {
                    self.skip_to_close()?;
                    aside = 0;
                }
                Token::Sign(b'@') => aside = 1,
                Token::Spread => aside = 1,
                // What stood before was an alias.
                Token::Sign(b':') => _ = fields.pop(),
                Token::Name("on") if aside == 1 => {}
                Token::Name(_) if aside > 0 => aside -= 1,
                Token::Name(name) if fields.len() < MAX_FIELDS => fields.push(name.to_owned()),
                _ => return None,
            }
        }
    }

    /// Goes on behind the sign that closes the one just read; all kinds of brackets are counted together.
    fn skip_to_close(&mut self) -> Option<()> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next()? {
                Token::Sign(b'(' | b'{' | b'[') => depth += 1,
                Token::Sign(b')' | b'}' | b']') => depth -= 1,
                _ => {}
            }
        }
        Some(())
    }

    fn skip_definition(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                Token::Sign(b'{') => return self.skip_to_close(),
                Token::Sign(b'(') => self.skip_to_close()?,
                _ => {}
            }
        }
    }
}
