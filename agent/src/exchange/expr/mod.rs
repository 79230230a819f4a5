//! Conditions on a request in the form of lua-resty-expr (`[["arg_name","==","jack"]]`), compiled once. It knows not what depends on them.
//!
//! An expression is an array of conditions that must all hold; the empty array always holds. A condition is `[variable, operator, value]`,
//! `[variable, "!", operator, value]` or the old `[variable, value]`. Groups are `["AND" | "OR" | "!AND" | "!OR", condition, condition, …]`.
//! Regular expressions are matched in linear time, so patterns that look ahead or behind are refused.

mod compile;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;
use regex::Regex;

use super::variable::Value;
use super::{Exchange, Variable};

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expr {
    root: Node,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ExprError {
    /// Where in the expression, for example `[0][2]`; empty for the whole.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Variable, Op),
}

#[derive(Debug, Clone)]
enum Op {
    /// Equal text.
    Text(String),
    /// Equal number; the left side is converted.
    Number(f64),
    /// Absent.
    Null,
    /// The same of yes and no, which only JSON knows.
    Bool(bool),
    /// Never equal: arrays and objects equal no text.
    Never,
    /// Compared as numbers.
    Order(Order, f64),
    Matches(Regex),
    In(Vec<String>),
    Has(String),
    /// A whole number from the first on and below the second.
    Between(i64, i64),
    Ip(Vec<IpNet>),
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Expr {
    /// Whether the expression always holds.
    pub fn is_trivial(&self) -> bool {
        matches!(&self.root, Node::All(nodes) if nodes.is_empty())
    }

    /// Whether it looks at the body, which must have been kept ([`Exchange::keep_content`]).
    pub fn wants_content(&self) -> bool {
        self.root.wants_content()
    }

    /// Whether it holds for this request.
    pub fn matches(&self, x: &Exchange) -> bool {
        self.root.holds(x)
    }
}

impl Node {
    fn wants_content(&self) -> bool {
        match self {
            Node::All(nodes) | Node::Any(nodes) => nodes.iter().any(Node::wants_content),
            Node::Not(node) => node.wants_content(),
            Node::Test(variable, _) => variable.wants_content(),
        }
    }

    fn holds(&self, x: &Exchange) -> bool {
        match self {
            Node::All(nodes) => nodes.iter().all(|node| node.holds(x)),
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(x)),
            Node::Not(node) => !node.holds(x),
            Node::Test(variable, op) => op.holds(variable, x),
        }
    }
}

impl Op {
    fn holds(&self, variable: &Variable, x: &Exchange) -> bool {
        let text = || variable.get(x);
        match self {
            Op::Text(expected) if variable.is_several() => variable.any(x, |text| text == expected),
            Op::Matches(regex) if variable.is_several() => variable.any(x, |text| regex.is_match(text)),
            Op::Text(expected) => text().is_some_and(|text| text == *expected),
            Op::Number(expected) => text().and_then(|text| number(&text)).is_some_and(|number| number == *expected),
            Op::Null => variable.value(x).is_none(),
            Op::Bool(expected) => variable.value(x) == Some(Value::Bool(*expected)),
            Op::Never => false,
            Op::Order(order, bound) => text().and_then(|text| number(&text)).is_some_and(|number| order.holds(number, *bound)),
            Op::Matches(regex) => text().is_some_and(|text| regex.is_match(&text)),
            Op::In(list) => text().is_some_and(|text| list.iter().any(|item| *item == text)),
            Op::Has(item) => variable.any(x, |value| value == item),
            Op::Between(start, end) => {
                variable.any(x, |text| text.trim().parse().is_ok_and(|number: i64| (*start..*end).contains(&number)))
            }
            Op::Ip(nets) => text().and_then(|text| text.parse().ok()).is_some_and(|ip: IpAddr| contains(nets, ip)),
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
        }
    }
}

/// Whether one of the networks holds the address; an IPv4 address in IPv6 form counts as IPv4.
pub fn contains(nets: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| net.contains(&ip))
}

/// An address or a network; a plain address is a network of one.
pub fn parse_net(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A number as Lua reads one: decimal or `0x…`, blanks around it allowed.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok()? as f64,
        Some(_) => return None,
        // Words such as `inf`, which Rust reads, are no numbers in Lua.
        None if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => return None,
        None => digits.parse().ok()?,
    };
    Some(if negative { -value } else { value })
}
