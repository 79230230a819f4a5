//! The syntax of Traefik's rules (v3): matchers with quoted arguments, `&&`, `||`, `!` and parentheses. What matchers mean others know.

/// Bytes of a rule.
const LONGEST: usize = 8_192;
/// Matchers of a rule.
const MOST_MATCHERS: usize = 256;
/// Parentheses and negations within each other.
const DEEPEST: usize = 24;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// ``Host(`a`)``
    Matcher(String, Vec<String>),
    /// All hold; at least two.
    And(Vec<Rule>),
    /// One holds; at least two.
    Or(Vec<Rule>),
    /// It does not hold.
    Not(Box<Rule>),
}

/// Reads a rule.
///
/// # Errors
/// In words: what was expected where, in bytes from zero.
pub(super) fn parse(text: &str) -> Result<Rule, String> {
    if text.len() > LONGEST {
        return Err(format!("a rule has at most {LONGEST} bytes, this one {}", text.len()));
    }
    let mut parser = Parser { text, at: 0, matchers: 0 };
    let rule = parser.any(0)?;
    parser.blanks();
    if parser.at < text.len() { Err(parser.expected("&&, || or the end")) } else { Ok(rule) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    matchers: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expected(&self, what: &str) -> String {
        let found: String = self.rest().chars().take(16).collect();
        let found = if found.is_empty() { "the end".to_owned() } else { format!("`{found}`") };
        format!("at {}: expected {what}, found {found}", self.at)
    }

    fn any(&mut self, depth: usize) -> Result<Rule, String> {
        let mut rules = vec![self.all(depth)?];
        while self.take("||") {
            rules.push(self.all(depth)?);
        }
        Ok(joined(rules, Rule::Or))
    }

    fn all(&mut self, depth: usize) -> Result<Rule, String> {
        let mut rules = vec![self.one(depth)?];
        while self.take("&&") {
            rules.push(self.one(depth)?);
        }
        Ok(joined(rules, Rule::And))
    }

    fn one(&mut self, depth: usize) -> Result<Rule, String> {
        if depth > DEEPEST {
            return Err(format!("at {}: parentheses and negations nest deeper than {DEEPEST}", self.at));
        }
        if self.take("!") {
            return Ok(match self.one(depth + 1)? {
                Rule::Not(inner) => *inner,
                rule => Rule::Not(Box::new(rule)),
            });
        }
        if self.take("(") {
            let rule = self.any(depth + 1)?;
            return if self.take(")") { Ok(rule) } else { Err(self.expected("&&, || or )")) };
        }
        self.matcher()
    }

    fn matcher(&mut self) -> Result<Rule, String> {
        self.blanks();
        let length = self.rest().bytes().take_while(u8::is_ascii_alphanumeric).count();
        if length == 0 {
            return Err(self.expected("a matcher such as Host(`example.org`)"));
        }
        let name = self.rest()[..length].to_owned();
        self.at += length;
        self.matchers += 1;
        if self.matchers > MOST_MATCHERS {
            return Err(format!("a rule has at most {MOST_MATCHERS} matchers"));
        }
        if !self.take("(") {
            return Err(self.expected("( with the arguments of the matcher"));
        }
        let mut arguments = Vec::new();
        while !self.take(")") {
            if !arguments.is_empty() && !self.take(",") {
                return Err(self.expected(", or )"));
            }
            arguments.push(self.argument()?);
        }
        Ok(Rule::Matcher(name, arguments))
    }

    /// Text between backticks, as it is, or between double quotes, where `\` takes the next character as it is.
    fn argument(&mut self) -> Result<String, String> {
        self.blanks();
        let quote = self.rest().chars().next().filter(|first| matches!(first, '`' | '"'));
        let Some(quote) = quote else { return Err(self.expected("an argument between backticks or double quotes")) };
        let (mut text, mut escaped) = (String::new(), false);
        for (offset, c) in self.rest().char_indices().skip(1) {
            if escaped || (c != quote && (c != '\\' || quote == '`')) {
                text.push(c);
                escaped = false;
            } else if c == quote {
                self.at += offset + c.len_utf8();
                return Ok(text);
            } else {
                escaped = true;
            }
        }
        Err(format!("at {}: the argument does not end", self.at))
    }
}

fn joined(mut rules: Vec<Rule>, many: fn(Vec<Rule>) -> Rule) -> Rule {
    match rules.len() {
        1 => rules.remove(0),
        _ => many(rules),
    }
}
