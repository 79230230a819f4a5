//! Whether RE2, by which Envoys and clients of gRPC match, reads a pattern as our agents do. It knows no route.
//!
//! What it does not read is refused by the whole table of routes, and what it reads otherwise would match something else.

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{
    AssertionKind, Ast, ClassSetBinaryOp, ClassSetItem, Flag, Flags, FlagsItemKind, HexLiteralKind, Literal, LiteralKind,
    RepetitionKind, RepetitionRange, Visitor, visit,
};

/// How often something may be repeated by a number, taken all together.
const MOST_REPEATED: u32 = 1_000;

/// A pattern that RE2 reads as our agents do, or what of it it does not.
pub(super) fn accept(pattern: &str) -> Result<(), String> {
    let told = |why: String| format!("pattern `{pattern}`: Envoy's regular expressions (RE2) know no {why}");
    let ast = Parser::new().parse(pattern).map_err(|error| format!("pattern `{pattern}`: {}", error.kind()))?;
    visit(&ast, Looking::default()).map_err(told)
}

/// What is looked at on the way through a pattern.
#[derive(Default)]
struct Looking {
    /// The counted repetitions that are open.
    repeated: Vec<u32>,
}

impl Visitor for Looking {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Flags(set) => flags(&set.flags),
            Ast::Group(group) => group.flags().map_or(Ok(()), flags),
            Ast::Literal(one) => literal(one),
            Ast::ClassUnicode(_) => Err("classes of Unicode".to_owned()),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => Err("half boundaries of words".to_owned()),
            },
            Ast::Repetition(repetition) => {
                self.repeated.push(count(&repetition.op.kind));
                let all = self.repeated.iter().fold(1_u32, |all, one| all.saturating_mul(*one));
                if all > MOST_REPEATED { Err(format!("more than {MOST_REPEATED} repetitions")) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        if let Ast::Repetition(_) = ast {
            self.repeated.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Bracketed(_) => Err("classes within classes".to_owned()),
            ClassSetItem::Unicode(_) => Err("classes of Unicode".to_owned()),
            ClassSetItem::Literal(one) => literal(one),
            ClassSetItem::Range(range) => literal(&range.start).and_then(|()| literal(&range.end)),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), String> {
        Err("operations on classes (&&, --, ~~)".to_owned())
    }
}

fn flags(flags: &Flags) -> Result<(), String> {
    let unknown = flags
        .items
        .iter()
        .find(|item| matches!(item.kind, FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace)));
    unknown.map_or(Ok(()), |_| Err("flags but i, m, s and U".to_owned()))
}

fn literal(literal: &Literal) -> Result<(), String> {
    match &literal.kind {
        LiteralKind::HexFixed(kind) | LiteralKind::HexBrace(kind) if *kind != HexLiteralKind::X => {
            Err(r"\u and \U in the place of \x".to_owned())
        }
        // From 1.40 on they are matched byte by byte.
        _ if !literal.c.is_ascii() => Err("characters beyond ASCII".to_owned()),
        _ => Ok(()),
    }
}

fn count(kind: &RepetitionKind) -> u32 {
    match kind {
        RepetitionKind::Range(
            RepetitionRange::Exactly(most) | RepetitionRange::AtLeast(most) | RepetitionRange::Bounded(_, most),
        ) => (*most).max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_re2_reads_is_taken_and_all_else_is_named() {
        for good in [
            r"^/a/[^/]+\.(?:png|jpe?g)$",
            r"(?i)mozilla/\d+",
            r"[[:alpha:]_-]{2,64}",
            r"\x41\x{7F}",
            r"\bcat\B",
            "(?P<id>[0-9]+)",
        ] {
            assert_eq!(accept(good), Ok(()), "{good}");
        }
        let refused = [
            (r"[a-z&&[^aeiou]]", "operations on classes"),
            (r"[a[bc]]", "classes within classes"),
            (r"(?x) a b", "flags but"),
            (r"\u0041", r"\u and \U"),
            (r"\x{1F600}", "characters beyond ASCII"),
            ("[a-é]", "characters beyond ASCII"),
            (r"\p{Greek}", "classes of Unicode"),
            (r"\b{start}a", "half boundaries"),
            (r"(a{50}){50}", "more than 1000 repetitions"),
            (r"a{2000}", "more than 1000 repetitions"),
            (r"(?=a)", "look-around"),
        ];
        for (pattern, why) in refused {
            let told = accept(pattern).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
