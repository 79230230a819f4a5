//! Whether RE2, by which Envoys and clients of gRPC match, reads a pattern as our agents do. It knows no route.
//!
//! What it does not read is refused by the whole table of routes, and what it reads otherwise would match something else.

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{AssertionKind, Ast, ClassSet, ClassSetItem, Literal, RepetitionKind, RepetitionRange, Visitor, visit};

use super::super::syntax;

/// How often something may be repeated by a number, taken all together.
const MOST_REPEATED: u32 = 1_000;
/// Steps of the largest program that Envoy takes unless the pattern itself says more.
pub(super) const USUAL: u64 = 100;
/// Steps of the largest program that we write: RE2 holds a program in a part of 8 MiB, 87,381 steps read forwards and 43,690 backwards.
const MOST: u64 = 40_000;
/// Steps of a class before its members: what is not among them is, beyond ASCII, a net of ranges of bytes.
const CLASS: u64 = 20;
/// Steps of all but a class that has a name: of `\W` in either case, 28 over UTF-8.
const OTHERS: u64 = 30;
/// Steps of a character at most, which may be one of several bytes, and in either case.
const CHARACTER: u64 = 8;

/// A pattern that RE2 reads as our agents do, or what of it it does not.
pub(super) fn accept(pattern: &str) -> Result<(), String> {
    let told = |why: String| format!("pattern `{pattern}`: Envoy's regular expressions (RE2) know no {why}");
    let ast = Parser::new().parse(pattern).map_err(|error| format!("pattern `{pattern}`: {}", error.kind()))?;
    syntax::alike(pattern, &ast).map_err(|difference| told(difference.what.to_owned()))?;
    visit(&ast, Looking::default()).map_err(told)?;
    fits(pattern)
}

/// Whether a pattern becomes a program that RE2 has room for.
pub(super) fn fits(pattern: &str) -> Result<(), String> {
    if size(pattern) <= MOST {
        return Ok(());
    }
    let start: String = pattern.chars().take(40).collect();
    Err(format!("a pattern that is too large for Envoy's regular expressions (RE2): `{start}…`"))
}

/// Steps of the program that a pattern becomes, rather too many than too few.
pub(super) fn size(pattern: &str) -> u64 {
    // Any byte, which RE2 alone knows.
    Parser::new().parse(&pattern.replace(r"\C", ".")).map_or(u64::MAX, |ast| steps(&ast).saturating_add(10))
}

fn steps(ast: &Ast) -> u64 {
    let all = |parts: &[Ast]| parts.iter().fold(1, |sum: u64, part| sum.saturating_add(steps(part)).saturating_add(1));
    match ast {
        Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => 1,
        Ast::Literal(_) => CHARACTER,
        Ast::ClassPerl(class) if class.negated => OTHERS,
        Ast::Dot(_) | Ast::ClassPerl(_) | Ast::ClassUnicode(_) => CLASS,
        Ast::ClassBracketed(class) => members(&class.kind).saturating_mul(CHARACTER).saturating_add(CLASS),
        Ast::Repetition(repetition) => {
            let once = steps(&repetition.ast).saturating_add(2);
            once.saturating_mul(u64::from(count(&repetition.op.kind)).saturating_add(1))
        }
        Ast::Group(group) => steps(&group.ast).saturating_add(2),
        Ast::Alternation(all_of) => all(&all_of.asts),
        Ast::Concat(all_of) => all(&all_of.asts),
    }
}

fn members(set: &ClassSet) -> u64 {
    match set {
        ClassSet::Item(ClassSetItem::Union(union)) => union.items.len() as u64,
        _ => 1,
    }
}

/// Whether a pattern is found at the beginning of a text alone, and so once.
pub(super) fn is_anchored(pattern: &str) -> bool {
    fn begins(ast: &Ast) -> bool {
        match ast {
            Ast::Assertion(assertion) => matches!(assertion.kind, AssertionKind::StartLine | AssertionKind::StartText),
            Ast::Concat(all) => all.asts.first().is_some_and(begins),
            Ast::Alternation(all) => all.asts.iter().all(begins),
            // One with flags may mean the beginning of any line.
            Ast::Group(group) => group.flags().is_none_or(|flags| flags.items.is_empty()) && begins(&group.ast),
            _ => false,
        }
    }
    Parser::new().parse(pattern).is_ok_and(|ast| begins(&ast))
}

/// The groups of a pattern that are told by number.
pub(super) fn groups(pattern: &str) -> u32 {
    #[derive(Default)]
    struct Counted(u32);
    impl Visitor for Counted {
        type Output = u32;
        type Err = ();

        fn finish(self) -> Result<u32, ()> {
            Ok(self.0)
        }

        fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
            self.0 += u32::from(matches!(ast, Ast::Group(group) if group.is_capturing()));
            Ok(())
        }
    }
    Parser::new().parse(pattern).ok().and_then(|ast| visit(&ast, Counted::default()).ok()).unwrap_or_default()
}

/// A pattern for names of hosts in small letters, as one that finds the same in a text that may have large ones and a port behind: what stands for one of
/// many characters stands for no colon, and the end is before the port. `None` where that cannot be said.
pub(super) fn without_port(pattern: &str) -> Option<String> {
    let mut ports = Ports { pattern, out: String::new(), done: 0 };
    let ast = Parser::new().parse(pattern).ok()?;
    visit(&ast, &mut ports).ok()?;
    Some(ports.out + &pattern[ports.done..])
}

/// What takes the place of the end of a host.
const END: &str = r"\.?(?::[0-9]*)?$";

struct Ports<'a> {
    pattern: &'a str,
    out: String,
    /// How much of the pattern was taken over.
    done: usize,
}

impl Ports<'_> {
    fn put(&mut self, span: &regex_syntax::ast::Span, other: &str) {
        self.out.push_str(&self.pattern[self.done..span.start.offset]);
        self.out.push_str(other);
        self.done = span.end.offset;
    }
}

impl Visitor for &mut Ports<'_> {
    type Output = ();
    type Err = ();

    fn finish(self) -> Result<(), ()> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), ()> {
        match ast {
            Ast::Flags(_) | Ast::ClassUnicode(_) => return Err(()),
            Ast::Group(group) if group.flags().is_some_and(|flags| !flags.items.is_empty()) => return Err(()),
            Ast::Literal(one) if one.c == ':' || one.c == '[' || one.c == ']' || one.c.is_ascii_uppercase() => return Err(()),
            // It would be about the last sign alone of what takes the place of an end.
            Ast::Repetition(repetition) if matches!(*repetition.ast, Ast::Assertion(_)) => return Err(()),
            Ast::Dot(span) => self.put(span, "[^:]"),
            Ast::ClassPerl(class) if class.negated => return Err(()),
            Ast::ClassBracketed(class) if class.negated => return Err(()),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine | AssertionKind::StartText => {}
                AssertionKind::EndLine => self.put(&assertion.span, END),
                // `\z`, which would be within the port, and boundaries, of which the colon would be one.
                _ => return Err(()),
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), ()> {
        let is_plain = |c: char| c.is_ascii() && c != ':' && c != '[' && c != ']' && !c.is_ascii_uppercase();
        let fits = match item {
            ClassSetItem::Literal(one) => is_plain(one.c),
            // A range that holds neither colons nor large letters lies below, between or above them.
            ClassSetItem::Range(range) => (range.start.c..=range.end.c).all(is_plain),
            ClassSetItem::Perl(class) => !class.negated,
            ClassSetItem::Union(_) => true,
            _ => false,
        };
        fits.then_some(()).ok_or(())
    }
}

/// What both read alike and an Envoy must not be told all the same.
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
            Ast::Literal(one) => literal(one),
            Ast::ClassUnicode(_) => Err("classes of Unicode".to_owned()),
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
            ClassSetItem::Unicode(_) => Err("classes of Unicode".to_owned()),
            ClassSetItem::Literal(one) => literal(one),
            ClassSetItem::Range(range) => literal(&range.start).and_then(|()| literal(&range.end)),
            _ => Ok(()),
        }
    }
}

/// From 1.40 on characters beyond ASCII are matched byte by byte.
fn literal(literal: &Literal) -> Result<(), String> {
    if literal.c.is_ascii() { Ok(()) } else { Err("characters beyond ASCII".to_owned()) }
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
    fn no_program_is_larger_than_it_is_counted() {
        // Sizes that Envoy 1.40 tells of.
        for (pattern, told) in [
            ("alexander|benjamin|catherine|dominique|elizabeth|frederick|gabriella|henrietta|isabella|jonathan", 90),
            ("^/api/(v[0-9]+)/customers/([0-9a-f-]{36})/orders/([0-9]{1,12})/items/(.*)$", 174),
            ("[a-z]{1,500}", 1_003),
            (r"(?is)\C*(?:[^/]{1,900})\C*", 2_706),
            (r"\w{1000}", 3_004),
            // Of google-re2 over UTF-8.
            (r"(?i)\W\W\W\W", 112),
        ] {
            assert!(size(pattern) >= told, "{pattern}: {}", size(pattern));
        }
        assert!(size("/a/[^/]+") <= USUAL, "what is small in any case says nothing of it");
    }

    #[test]
    fn what_re2_has_no_room_for_is_refused() {
        assert_eq!(accept("[^/]{1,900}"), Ok(()));
        for large in ["(?:[^a][^b][^c][^d]){1000}", "(?:[a-z]{30}[^0]{30}){30}"] {
            assert!(accept(large).unwrap_err().contains("too large"), "{large}");
        }
    }

    #[test]
    fn what_is_found_at_the_beginning_alone_is_told_from_the_rest() {
        for (pattern, anchored, count) in [
            ("^/a/(.*)", true, 1),
            ("^(/a)|^/b(c)", true, 2),
            ("(?:^/a|^/b)", true, 0),
            ("^/zz|q", false, 0),
            ("(?m)^/a", false, 0),
            ("(?m:^/a)", false, 0),
            ("/a", false, 0),
            ("(^/a)?b", false, 1),
        ] {
            assert_eq!((is_anchored(pattern), groups(pattern)), (anchored, count), "{pattern}");
        }
    }

    #[test]
    fn what_is_found_in_a_host_is_found_before_its_port() {
        assert_eq!(without_port(r"^(a|b)\.c$").as_deref(), Some(r"^(a|b)\.c\.?(?::[0-9]*)?$"));
        assert_eq!(without_port("^a.*b[0-9a-z]").as_deref(), Some("^a[^:]*b[0-9a-z]"));
        for other in ["a:80", "A", "[^a]", "[A-Z]", "[+-z]", r"\D", r"\ba", r"a\z", "(?m)^a", r"\[a", "a$*b", "a$?", "a${0}b"] {
            assert_eq!(without_port(other), None, "{other}");
        }
    }

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
            // With one of these an Envoy would refuse the table of all routes.
            ("a++", "repetitions of repetitions"),
            ("a{2}{3}", "repetitions of repetitions"),
            ("x*??", "repetitions of repetitions"),
            ("(?P<a.b>x)", "names of groups"),
            ("(?P<é>x)", "names of groups"),
            // These it would read otherwise.
            ("[--/]", "`-` or `]` at the beginning"),
            ("[]-a]", "`-` or `]` at the beginning"),
            ("a{ 2 }", "repetitions with blanks"),
        ];
        for (pattern, why) in refused {
            let told = accept(pattern).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
