//! Conditions of circuit breakers (`NetworkErrorRatio() > 0.3 && !(LatencyAtQuantileMS(50.0) < 100)`), parsed once. It knows no statistics.

use std::ops::Range;

/// What a condition asks about the last seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Measure {
    /// Share of requests that the upstream could not be reached for (502 and 504).
    NetworkErrorRatio,
    /// Requests with a status in the first range per request with a status in the second; the number of the pair.
    ResponseCodeRatio(usize),
    /// Milliseconds in which this share of requests was answered, between 0 and 1.
    LatencyAtQuantileMs(f64),
    /// Number of requests.
    RequestCount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Test(Measure, Order, f64),
}

/// Two ranges of statuses.
pub(super) type Ranges = (Range<u16>, Range<u16>);

/// A parsed condition.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::filters::api_breaker) struct Condition {
    pub(super) root: Node,
    /// The ranges that `ResponseCodeRatio` asks for, in order.
    pub(super) ranges: Vec<Ranges>,
    /// Whether some latency is asked for.
    pub(super) latency: bool,
}

/// Longest text, deepest nesting and most tests, which bounds time and memory of parsing and of each look.
const LONGEST: usize = 2048;
const DEEPEST: usize = 16;
const MOST_TESTS: usize = 32;

const KNOWN: &str =
    "NetworkErrorRatio(), ResponseCodeRatio(from, to, divFrom, divTo), LatencyAtQuantileMS(quantile), RequestThreshold()";

impl Condition {
    /// Parses a condition.
    ///
    /// # Errors
    /// What was expected where.
    pub(in crate::filters::api_breaker) fn parse(text: &str) -> Result<Condition, String> {
        if text.len() > LONGEST {
            return Err(format!("expected at most {LONGEST} characters, got {}", text.len()));
        }
        let mut parser = Parser { text, at: 0, depth: 0, tests: 0, ranges: Vec::new(), latency: false };
        let root = parser.any()?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.wrong("&&, || or the end"));
        }
        Ok(Condition { root, ranges: parser.ranges, latency: parser.latency })
    }

    /// Whether it holds, where `measure` answers what is asked.
    pub(super) fn holds(&self, measure: &impl Fn(&Measure) -> f64) -> bool {
        self.root.holds(measure)
    }
}

impl Node {
    fn holds(&self, measure: &impl Fn(&Measure) -> f64) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(measure)),
            Node::All(nodes) => nodes.iter().all(|node| node.holds(measure)),
            Node::Not(node) => !node.holds(measure),
            Node::Test(of, order, bound) => order.holds(measure(of), *bound),
        }
    }
}

impl Order {
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Order::Less => left < right,
            Order::LessOrEqual => left <= right,
            Order::Greater => left > right,
            Order::GreaterOrEqual => left >= right,
            Order::Equal => left == right,
            Order::NotEqual => left != right,
        }
    }
}

/// Where parsing stands: one look at each character, no step back.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    tests: usize,
    ranges: Vec<Ranges>,
    latency: bool,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.all()?];
        while self.takes("||") {
            nodes.push(self.all()?);
        }
        Ok(single(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, String> {
        let mut nodes = vec![self.one()?];
        while self.takes("&&") {
            nodes.push(self.one()?);
        }
        Ok(single(nodes, Node::All))
    }

    fn one(&mut self) -> Result<Node, String> {
        if self.depth == DEEPEST {
            return Err(format!("expected at most {DEEPEST} levels of parentheses and negations"));
        }
        self.depth += 1;
        let node = if self.takes("!") {
            Node::Not(Box::new(self.one()?))
        } else if self.takes("(") {
            let node = self.any()?;
            self.demand(")")?;
            node
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node, String> {
        self.tests += 1;
        if self.tests > MOST_TESTS {
            return Err(format!("expected at most {MOST_TESTS} comparisons"));
        }
        let measure = self.measure()?;
        let order = self.order()?;
        Ok(Node::Test(measure, order, self.number()?))
    }

    fn measure(&mut self) -> Result<Measure, String> {
        self.blanks();
        let start = self.at;
        self.at += self.rest().bytes().take_while(u8::is_ascii_alphanumeric).count();
        let name = &self.text[start..self.at];
        let measure = match name {
            "NetworkErrorRatio" => {
                self.demand("(")?;
                Measure::NetworkErrorRatio
            }
            "RequestThreshold" => {
                self.demand("(")?;
                Measure::RequestCount
            }
            "LatencyAtQuantileMS" => {
                self.demand("(")?;
                let quantile = self.number()?;
                if !(0.0..=100.0).contains(&quantile) {
                    return Err(format!("expected a quantile from 0 to 100, got {quantile}"));
                }
                self.latency = true;
                Measure::LatencyAtQuantileMs(quantile / 100.0)
            }
            "ResponseCodeRatio" => {
                self.demand("(")?;
                let [a, b, c, d] = [self.code(true)?, self.code(true)?, self.code(true)?, self.code(false)?];
                self.ranges.push((a..b, c..d));
                Measure::ResponseCodeRatio(self.ranges.len() - 1)
            }
            _ => {
                self.at = start;
                return Err(self.wrong(&format!("one of {KNOWN}")));
            }
        };
        self.demand(")")?;
        Ok(measure)
    }

    fn code(&mut self, more: bool) -> Result<u16, String> {
        let number = self.number()?;
        if !(0.0..=1000.0).contains(&number) || number.fract() != 0.0 {
            return Err(format!("expected a status from 0 to 1000, got {number}"));
        }
        if more {
            self.demand(",")?;
        }
        Ok(number as u16)
    }

    fn order(&mut self) -> Result<Order, String> {
        let orders = [
            ("<=", Order::LessOrEqual),
            (">=", Order::GreaterOrEqual),
            ("==", Order::Equal),
            ("!=", Order::NotEqual),
            ("<", Order::Less),
            (">", Order::Greater),
        ];
        orders
            .into_iter()
            .find_map(|(sign, order)| self.takes(sign).then_some(order))
            .ok_or_else(|| self.wrong("<, <=, >, >=, == or !="))
    }

    fn number(&mut self) -> Result<f64, String> {
        self.blanks();
        let length = self.rest().bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let text = &self.rest()[..length];
        let number = text.parse().map_err(|_| self.wrong("a number"))?;
        self.at += length;
        Ok(number)
    }

    fn demand(&mut self, sign: &str) -> Result<(), String> {
        if self.takes(sign) { Ok(()) } else { Err(self.wrong(sign)) }
    }

    fn takes(&mut self, sign: &str) -> bool {
        self.blanks();
        let there = self.rest().starts_with(sign);
        self.at += if there { sign.len() } else { 0 };
        there
    }

    fn blanks(&mut self) {
        self.at += self.rest().bytes().take_while(u8::is_ascii_whitespace).count();
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, expected: &str) -> String {
        match self.rest().trim_start() {
            "" => format!("expected {expected} at the end"),
            rest => format!("expected {expected} at `{}`", rest.chars().take(20).collect::<String>()),
        }
    }
}

fn single(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => {
            nodes.extend(last);
            many(nodes)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn holds(text: &str, errors: f64, latency: f64) -> bool {
        let measure = |of: &Measure| match of {
            Measure::NetworkErrorRatio => errors,
            Measure::ResponseCodeRatio(number) => *number as f64,
            Measure::LatencyAtQuantileMs(quantile) => latency * quantile,
            Measure::RequestCount => 7.0,
        };
        Condition::parse(text).unwrap().holds(&measure)
    }

    #[test]
    fn conditions_of_traefiks_pages_are_understood() {
        assert!(holds("NetworkErrorRatio() > 0.30", 0.4, 0.0) && !holds("NetworkErrorRatio()>0.30", 0.3, 0.0));
        assert!(holds("LatencyAtQuantileMS(50.0) > 100", 0.0, 300.0));
        let ratio = Condition::parse("ResponseCodeRatio(500, 600, 0, 600) > 0.25").unwrap();
        assert_eq!((ratio.ranges, ratio.latency), (vec![(500..600, 0..600)], false));
        let both = "ResponseCodeRatio(500, 600, 0, 600) > 0.30 || NetworkErrorRatio() > 0.10";
        assert!(holds(both, 0.2, 0.0) && !holds(both, 0.1, 0.0));
        assert!(holds("RequestThreshold() >= 7 && NetworkErrorRatio() == 0", 0.0, 0.0));
    }

    #[test]
    fn and_binds_closer_than_or_and_parentheses_closest() {
        let (t, f) = ("NetworkErrorRatio() <= 1", "NetworkErrorRatio() != 0");
        assert!(holds(&format!("{t} || {f} && {f}"), 0.0, 0.0));
        assert!(!holds(&format!("({t} || {f}) && {f}"), 0.0, 0.0));
        assert!(holds(&format!("!{f} && !(!({t}))"), 0.0, 0.0));
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (text, expected) in [
            ("", "expected one of NetworkErrorRatio()"),
            ("Nope() > 1", "at `Nope() > 1`"),
            ("NetworkErrorRatio() >", "expected a number at the end"),
            ("NetworkErrorRatio() 0.3", "expected <, <=, >, >=, == or != at `0.3`"),
            ("NetworkErrorRatio( > 0.3", "expected ) at `> 0.3`"),
            ("NetworkErrorRatio() > 0.3 0.4", "expected &&, || or the end at `0.4`"),
            ("(NetworkErrorRatio() > 0.3", "expected ) at the end"),
            ("ResponseCodeRatio(500, 600) > 1", "expected , at `) > 1`"),
            ("ResponseCodeRatio(500, 6000, 0, 600) > 1", "expected a status from 0 to 1000, got 6000"),
            ("LatencyAtQuantileMS(101) > 1", "expected a quantile from 0 to 100, got 101"),
            ("NetworkErrorRatio() > 1.2.3", "expected a number at `1.2.3`"),
        ] {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(100)).unwrap_err().contains("levels"));
        assert!(Condition::parse(&"!".repeat(100)).unwrap_err().contains("levels"));
        let many = vec!["NetworkErrorRatio()>1"; 33].join("||");
        assert!(Condition::parse(&many).unwrap_err().contains("comparisons"));
        assert!(Condition::parse(&" ".repeat(3000)).unwrap_err().contains("characters"));
    }

    /// A condition as text, and what it should say of an error ratio of one half.
    fn conditions() -> impl Strategy<Value = (String, bool)> {
        let leaf = (0u32..100).prop_map(|bound| (format!("NetworkErrorRatio() > 0.{bound:02}"), 0.5 > f64::from(bound) / 100.0));
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| (format!("({a}) && ({b})"), x && y)),
                (inner.clone(), inner.clone()).prop_map(|((a, x), (b, y))| (format!("({a})||({b})"), x || y)),
                inner.prop_map(|(a, x)| (format!("!( {a} )"), !x)),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[ ()!&|<>=.,0-9NetworkErrorRatioLatencyAtQuantileMSResponseCode]{0,60}") {
            let _ = Condition::parse(&text);
        }

        #[test]
        fn any_characters_are_refused_without_harm(text in "\\PC{0,40}") {
            let _ = Condition::parse(&format!("NetworkErrorRatio() > 0.1 {text}"));
        }

        #[test]
        fn conditions_mean_what_they_say((text, expected) in conditions()) {
            prop_assert_eq!(holds(&text, 0.5, 0.0), expected, "{}", text);
        }
    }
}
