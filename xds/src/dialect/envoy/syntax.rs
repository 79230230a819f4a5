//! What RE2, by which Envoy matches, and our regular expressions read each in its own way, or one of them alone. It knows neither who writes a pattern nor who
//! matches by it.

use regex_syntax::ast::{
    AssertionKind, Ast, ClassBracketed, ClassSetBinaryOp, ClassSetItem, Flag, Flags, FlagsItemKind, Group, GroupKind,
    HexLiteralKind, Literal, LiteralKind, Repetition, RepetitionKind, Span, Visitor, visit,
};

/// What of a pattern is not read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    /// What stands there, as ours read it.
    pub(super) what: &'static str,
    /// What both read alike.
    pub(super) instead: &'static str,
}

/// Says what of a pattern RE2 and ours do not read alike; `ast` is what ours read.
pub(super) fn alike(pattern: &str, ast: &Ast) -> Result<(), Difference> {
    visit(ast, Alike { pattern })
}

/// Whether a pattern of ours is found in no empty text.
pub(super) fn says_something(pattern: &str) -> bool {
    let parsed = regex_syntax::Parser::new().parse(pattern);
    parsed.is_ok_and(|parsed| parsed.properties().minimum_len().is_some_and(|least| least > 0))
}

/// RE2 takes for characters what begins an operation or a class within one of ours.
const OPERATION: Difference = within("operations on classes (&&, --, ~~)");
const NESTED: Difference = within("classes within classes");
/// Ours take for itself what begins a range of RE2.
const FIRST: Difference = within("`-` or `]` at the beginning of a class and `-` right behind it");
/// RE2 takes for text whatever is not numbers as it writes them.
const COUNT: Difference = Difference {
    what: "repetitions with blanks or leading zeros",
    instead: r"`{2}`, `{2,}` or `{2,3}`, and `\{` where a brace is meant",
};
const STACKED: Difference = Difference { what: "repetitions of repetitions", instead: "`(?:…)` around the first one" };
const NAME: Difference = Difference { what: "names of groups but of `A-Z`, `a-z`, `0-9` and `_`", instead: "such a name" };
/// RE2 takes `\<` for `<`, and `{start}` behind `\b` for text.
const HALF: Difference =
    Difference { what: r"half boundaries of words", instead: r"`\b` alone, or `<`, `>` and `\{` where they are meant" };
const FLAGS: Difference = Difference { what: "flags but i, m, s and U", instead: "a pattern without them" };
const CODE: Difference = Difference { what: r"\u and \U in the place of \x", instead: r"`\x{…}`" };

const fn within(what: &'static str) -> Difference {
    Difference { what, instead: r"`\` before each `[`, `]`, `-`, `&` and `~` of a class that means itself" }
}

struct Alike<'a> {
    pattern: &'a str,
}

impl Visitor for Alike<'_> {
    type Output = ();
    type Err = Difference;

    fn finish(self) -> Result<(), Difference> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Difference> {
        match ast {
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => named(group),
            Ast::Literal(one) => literal(one),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => Err(HALF),
            },
            Ast::Repetition(one) => self.repeated(one),
            Ast::ClassBracketed(class) => self.begins(class),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Difference> {
        match item {
            ClassSetItem::Bracketed(_) => Err(NESTED),
            ClassSetItem::Literal(one) => literal(one),
            ClassSetItem::Range(range) => literal(&range.start).and_then(|()| literal(&range.end)),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), Difference> {
        Err(OPERATION)
    }
}

impl Alike<'_> {
    fn text(&self, span: &Span) -> &str {
        &self.pattern[span.start.offset..span.end.offset]
    }

    fn repeated(&self, repetition: &Repetition) -> Result<(), Difference> {
        if let Ast::Repetition(_) = *repetition.ast {
            return Err(STACKED);
        }
        if let RepetitionKind::Range(_) = repetition.op.kind {
            let counted = self.text(&repetition.op.span).trim_start_matches('{').trim_end_matches(['?', '}']);
            let is_plain = |number: &str| {
                number.bytes().all(|digit| digit.is_ascii_digit()) && (number.len() < 2 || !number.starts_with('0'))
            };
            return if counted.split(',').all(is_plain) { Ok(()) } else { Err(COUNT) };
        }
        Ok(())
    }

    fn begins(&self, class: &ClassBracketed) -> Result<(), Difference> {
        let text = self.text(&class.span);
        let text = text.strip_prefix('[').unwrap_or(text);
        let mut first = text.strip_prefix('^').unwrap_or(text).chars();
        let starts = matches!((first.next(), first.next()), (Some('-' | ']'), Some('-')));
        if starts && first.next() != Some(']') { Err(FIRST) } else { Ok(()) }
    }
}

fn named(group: &Group) -> Result<(), Difference> {
    if let GroupKind::CaptureName { name, .. } = &group.kind
        && !name.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Err(NAME);
    }
    group.flags().map_or(Ok(()), flags)
}

fn flags(flags: &Flags) -> Result<(), Difference> {
    let is_unknown =
        |kind: &FlagsItemKind| matches!(kind, FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace));
    if flags.items.iter().any(|item| is_unknown(&item.kind)) { Err(FLAGS) } else { Ok(()) }
}

fn literal(literal: &Literal) -> Result<(), Difference> {
    match &literal.kind {
        LiteralKind::HexFixed(kind) | LiteralKind::HexBrace(kind) if *kind != HexLiteralKind::X => Err(CODE),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(pattern: &str) -> Option<Difference> {
        alike(pattern, &regex_syntax::ast::parse::Parser::new().parse(pattern).unwrap()).err()
    }

    #[test]
    fn what_one_of_them_reads_otherwise_or_not_at_all_is_named() {
        for (pattern, what) in [
            // RE2: one of `a` and `&`.
            ("[a&&b]", OPERATION),
            ("[^a~~z]", OPERATION),
            ("[+--]", OPERATION),
            // RE2: `a]` or `[]`.
            ("[a[b]]", NESTED),
            ("[[:word:][b]]", NESTED),
            // RE2: ranges.
            ("[--/]", FIRST),
            ("[^--/]", FIRST),
            ("[]-a]", FIRST),
            ("x[^]-a]", FIRST),
            // RE2: text.
            ("a{ 2 }", COUNT),
            ("a{2, 3}", COUNT),
            ("a{02}", COUNT),
            ("a{1,02}?", COUNT),
            (r"\<a\>", HALF),
            (r"\b{start}a", HALF),
            // RE2: nothing that it takes.
            ("a++", STACKED),
            ("a**", STACKED),
            ("a{2}{3}", STACKED),
            ("(?:x*??)", STACKED),
            ("(?P<a.b>x)", NAME),
            ("(?P<a[0]>x)", NAME),
            ("(?<é>x)", NAME),
            ("(?x: a b)", FLAGS),
            (r"[\u0041]", CODE),
        ] {
            assert_eq!(said(pattern), Some(what), "{pattern}");
        }
    }

    #[test]
    fn what_both_read_alike_is_left_alone() {
        for pattern in [
            "[]a-c]",
            "[]-]",
            "[--]",
            "[-a-z]",
            "[^-+]",
            "[a-]",
            r"[\--/]",
            r"[a&\&b\[\]]",
            "[[:alpha:]_-]",
            "a{2}b{2,}c{0,13}?",
            r"\{ 2 }",
            "(?:a+)+(b*)*",
            "(?P<a_1>x)(?<b>y)",
            "(?i:a)(?sU-m).é",
        ] {
            assert_eq!(said(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn what_is_found_in_an_empty_text_says_nothing() {
        assert!(says_something("^(?:a|bc)$") && !says_something("^a?$") && !says_something(""));
    }
}
