//! From the text of a template to its pieces, and from the inside of a tag to its words. It knows no grammar.

/// A piece of a template with the line in which it begins.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub line: usize,
    pub kind: Kind<'a>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Kind<'a> {
    Text(&'a str),
    Escaped(&'a str),
    Raw(&'a str),
    Statement(&'a str),
}

/// A word of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Word {
    Name(String),
    Number(f64),
    Text(String),
    Sign(&'static str),
}

const SIGNS: [&str; 22] =
    ["...", "..", "==", "~=", "<=", ">=", "<", ">", "(", ")", "[", "]", ".", ",", ":", "+", "-", "*", "/", "%", "#", "="];

/// Cuts a template into pieces.
///
/// # Errors
/// Says in which line a tag has no end or is one of those that are refused.
pub(super) fn pieces(source: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let (mut start, mut at, mut line) = (0, 0, 1);
    while let Some(found) = source[at..].find('{') {
        let open = at + found;
        let Some(tag) = Tag::at(&source[open..]) else {
            at = open + 1;
            continue;
        };
        if source[start..open].ends_with('\\') {
            // The backslash goes, the brace stays and opens nothing.
            push_text(&mut pieces, &source[start..open - 1], &mut line);
            start = open;
            at = open + 2;
            continue;
        }
        let inside = open + 2;
        let Some(length) = end(&source[inside..], tag) else {
            if tag == Tag::Include || tag == Tag::Lines || tag == Tag::Block {
                at = open + 1;
                continue;
            }
            return Err(format!("line {}: the tag {} has no end {}", line_at(source, open), tag.open(), tag.close()));
        };
        push_text(&mut pieces, &source[start..open], &mut line);
        let text = &source[inside..inside + length];
        let kind = match tag {
            Tag::Escaped => Some(Kind::Escaped(text)),
            Tag::Raw => Some(Kind::Raw(text)),
            Tag::Statement => Some(Kind::Statement(text)),
            Tag::Comment => None,
            Tag::Include | Tag::Lines => {
                return Err(format!("line {line}: {}…{} would include a file, which is refused", tag.open(), tag.close()));
            }
            Tag::Block => return Err(format!("line {line}: blocks ({{-{text}-}}) are refused")),
        };
        pieces.extend(kind.map(|kind| Piece { line, kind }));
        line += newlines(text);
        at = inside + length + 2;
        // A line that ends with a statement or a comment leaves no empty line.
        if matches!(tag, Tag::Statement | Tag::Comment) && source[at..].starts_with('\n') {
            at += 1;
            line += 1;
        }
        start = at;
    }
    push_text(&mut pieces, &source[start..], &mut line);
    Ok(pieces)
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, text: &'a str, line: &mut usize) {
    if !text.is_empty() {
        pieces.push(Piece { line: *line, kind: Kind::Text(text) });
        *line += newlines(text);
    }
}

fn newlines(text: &str) -> usize {
    memchr::memchr_iter(b'\n', text.as_bytes()).count()
}

fn line_at(source: &str, at: usize) -> usize {
    1 + newlines(&source[..at])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Escaped,
    Raw,
    Statement,
    Comment,
    Include,
    Lines,
    Block,
}

impl Tag {
    fn at(text: &str) -> Option<Tag> {
        Some(match text.as_bytes().get(1)? {
            b'{' => Tag::Escaped,
            b'*' => Tag::Raw,
            b'%' => Tag::Statement,
            b'#' => Tag::Comment,
            b'(' => Tag::Include,
            b'[' => Tag::Lines,
            b'-' => Tag::Block,
            _ => return None,
        })
    }

    fn open(self) -> &'static str {
        ["{{", "{*", "{%", "{#", "{(", "{[", "{-"][self as usize]
    }

    fn close(self) -> &'static str {
        ["}}", "*}", "%}", "#}", ")}", "]}", "-}"][self as usize]
    }
}

/// Length of what stands before the end of a tag; ends within quotes do not count.
fn end(text: &str, tag: Tag) -> Option<usize> {
    let close = tag.close();
    if tag == Tag::Comment {
        return text.find(close);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), character) if open == character => quote = None,
            (Some(_), _) => {}
            (None, _) if text[at..].starts_with(close) => return Some(at),
            (None, '"' | '\'') => quote = Some(character),
            (None, _) => {}
        }
    }
    None
}

/// The words of an expression or a statement.
///
/// # Errors
/// Says what is no word.
pub(super) fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                words.push(Word::Name(rest[..length].to_owned()));
                length
            }
            '0'..='9' => {
                let length = number_length(rest);
                let number = rest[..length].parse().map_err(|_| format!("`{}` is no number", &rest[..length]))?;
                words.push(Word::Number(number));
                length
            }
            '"' | '\'' => {
                let (text, length) = quoted(rest, first)?;
                words.push(Word::Text(text));
                length
            }
            _ => {
                let sign =
                    SIGNS.into_iter().find(|sign| rest.starts_with(sign)).ok_or_else(|| format!("unexpected `{first}`"))?;
                words.push(Word::Sign(sign));
                sign.len()
            }
        };
        rest = rest[length..].trim_start();
    }
    Ok(words)
}

/// Digits with at most one point, which is not the first of two.
fn number_length(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(text);
    match text[whole..].strip_prefix('.') {
        Some(rest) if digits(rest) > 0 => whole + 1 + digits(rest),
        _ => whole,
    }
}

fn quoted(text: &str, quote: char) -> Result<(String, usize), String> {
    let mut out = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                Some((_, 'r')) => out.push('\r'),
                Some((_, other @ ('\\' | '"' | '\''))) => out.push(other),
                Some((_, other)) => return Err(format!("unknown escape `\\{other}` in a text")),
                None => break,
            },
            _ if character == quote => return Ok((out, at + 1)),
            _ => out.push(character),
        }
    }
    Err("a text has no closing quote".to_owned())
}
