//! Path patterns: exact (`/a`), prefix (`/a/*`), with parameters (`/a/:id/b`) and with `*` in the middle. It knows no routes.

use std::sync::Arc;

use heddle_xds::model::canonical_path;
use smallvec::SmallVec;

/// What the named parts of a pattern captured.
pub type Params = SmallVec<[(Arc<str>, String); 2]>;

/// A compiled path pattern.
///
/// `:name` at the start of a segment takes that whole segment, not empty. `*` takes any text, slashes and nothing included; the name that may
/// follow it at the end of a pattern captures it. Literal text is brought to the form of normalised paths, so `/é` is `/%C3%A9`.
#[derive(Debug, Clone)]
pub struct PathPattern {
    length: u32,
    prefix: Box<str>,
    tail: Tail,
}

#[derive(Debug, Clone)]
enum Tail {
    /// Nothing may follow the prefix.
    Nothing,
    /// Anything may follow.
    Anything,
    Tokens(Box<[Token]>),
}

#[derive(Debug, Clone)]
enum Token {
    Literal(Box<str>),
    Param(Arc<str>),
    Star(Option<Arc<str>>),
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(source: &str) -> Result<PathPattern, String> {
        if !source.starts_with('/') && source != "*" {
            return Err(format!("expected a path that starts with `/`, found `{source}`"));
        }
        let mut tokens = tokens(source);
        let prefix = match tokens.first() {
            Some(Token::Literal(_)) => match tokens.remove(0) {
                Token::Literal(text) => text,
                _ => Box::default(),
            },
            _ => Box::default(),
        };
        let tail = match tokens.as_slice() {
            [] => Tail::Nothing,
            [Token::Star(None)] => Tail::Anything,
            _ => Tail::Tokens(tokens.into()),
        };
        Ok(PathPattern { length: source.len() as u32, prefix, tail })
    }

    /// Length in bytes, as the user wrote it.
    pub fn length(&self) -> usize {
        self.length as usize
    }

    /// The literal text that a path must start with; all of it for an exact pattern.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether nothing but the literal text fits.
    pub fn is_exact(&self) -> bool {
        matches!(self.tail, Tail::Nothing)
    }

    /// How many segments of a path are said, wholly or in part, before the first `*`; `None` where there is none.
    pub(super) fn said(&self) -> Option<usize> {
        let (mut slashes, mut open) = (0, false);
        let mut say = |text: &str| {
            slashes += text.matches('/').count();
            open = !text.ends_with('/');
        };
        say(&self.prefix);
        match &self.tail {
            Tail::Nothing => return None,
            Tail::Anything => {}
            Tail::Tokens(tokens) => {
                let star = tokens.iter().position(|token| matches!(token, Token::Star(_)))?;
                for token in &tokens[..star] {
                    say(if let Token::Literal(text) = token { text } else { ":" });
                }
            }
        }
        Some(if open { slashes } else { slashes.saturating_sub(1) })
    }

    /// Whether something has to fit behind the literal text.
    pub(super) fn has_tokens(&self) -> bool {
        matches!(self.tail, Tail::Tokens(_))
    }

    /// Whether the whole path fits.
    pub fn matches(&self, path: &str) -> bool {
        path.strip_prefix(&*self.prefix).is_some_and(|rest| match &self.tail {
            Tail::Nothing => rest.is_empty(),
            Tail::Anything => true,
            Tail::Tokens(tokens) => spans(tokens, rest.as_bytes()).is_some(),
        })
    }

    /// The captures of a path that starts with the prefix, `None` when the rest does not fit.
    pub(super) fn captures(&self, path: &str) -> Option<Params> {
        let mut params = Params::new();
        let Tail::Tokens(tokens) = &self.tail else { return Some(params) };
        let rest = path.as_bytes().get(self.prefix.len()..)?;
        let spans = spans(tokens, rest)?;
        for (token, (start, end)) in tokens.iter().zip(spans) {
            if let Token::Param(name) | Token::Star(Some(name)) = token {
                params.push((name.clone(), String::from_utf8_lossy(&rest[start..end]).into_owned()));
            }
        }
        Some(params)
    }
}

/// Splits at `*` and at `:` where a segment starts.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut literal = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let segment = rest.find('/').unwrap_or(rest.len());
        let after_slash = literal.ends_with('/');
        if first == ':' && after_slash && segment > 1 {
            flush(&mut literal, &mut tokens);
            tokens.push(Token::Param(rest[1..segment].into()));
            rest = &rest[segment..];
        } else if first == '*' {
            flush(&mut literal, &mut tokens);
            // `*name` names the tail only at the end of the pattern and of a segment of its own.
            let named = after_slash && segment == rest.len() && segment > 1;
            tokens.push(Token::Star(named.then(|| rest[1..].into())));
            rest = if named { "" } else { &rest[1..] };
        } else {
            literal.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    flush(&mut literal, &mut tokens);
    tokens
}

fn flush(literal: &mut String, tokens: &mut Vec<Token>) {
    if !literal.is_empty() {
        tokens.push(Token::Literal(canonical_path(literal).into()));
        literal.clear();
    }
}

type Spans = SmallVec<[(usize, usize); 4]>;

/// Where each token lies in `text`, all of which must be used.
///
/// Only the last `*` is ever widened: all other tokens have one possible end for each start, and a later start never gives an earlier end, so
/// the earliest place for what stands between two `*` is as good as any. Time is at most the product of the two lengths.
fn spans(tokens: &[Token], text: &[u8]) -> Option<Spans> {
    let mut spans = Spans::new();
    // The token that is the last `*` so far, and where it ends for now.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let at = spans.last().map_or(0, |(_, end)| *end);
        let fits = match tokens.get(spans.len()) {
            None if at == text.len() => return Some(spans),
            None => None,
            Some(Token::Literal(literal)) => text[at..].starts_with(literal.as_bytes()).then(|| at + literal.len()),
            Some(Token::Param(_)) => {
                let end = memchr::memchr(b'/', &text[at..]).map_or(text.len(), |length| at + length);
                (end > at).then_some(end)
            }
            Some(Token::Star(_)) => {
                let last = spans.len() + 1 == tokens.len();
                let end = if last { text.len() } else { at };
                star = Some((spans.len(), end));
                Some(end)
            }
        };
        if let Some(end) = fits {
            spans.push((at, end));
            continue;
        }
        let (index, end) = star.as_mut()?;
        if *end == text.len() {
            return None;
        }
        *end += 1;
        spans.truncate(*index + 1);
        spans[*index].1 = *end;
    }
}
