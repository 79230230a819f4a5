//! From the JSON form of an expression to its compiled form. It evaluates nothing.

use serde_json::Value;

use super::super::pattern;
use super::{Expr, ExprError, Node, Op, Order, parse_net};
use crate::exchange::Variable;

/// Deepest nesting of groups.
const MAX_DEPTH: usize = 16;
/// Most conditions of one expression.
const MAX_CONDITIONS: usize = 1024;

impl Expr {
    /// Compiles the JSON form.
    ///
    /// # Errors
    /// Says where it is wrong and what was expected.
    pub fn compile(source: &Value) -> Result<Expr, ExprError> {
        let mut compiler = Compiler { conditions: 0 };
        let Some(items) = source.as_array() else {
            return Err(wrong("", format!("expected an array of conditions, found {}", kind(source))));
        };
        let root = match items.first() {
            None => Node::All(Vec::new()),
            Some(Value::String(word)) if group(word).is_none() => {
                return Err(wrong("", "rule should be wrapped inside brackets".to_owned()));
            }
            Some(_) => compiler.node(items, "", 0)?,
        };
        Ok(Expr { root })
    }
}

struct Compiler {
    conditions: usize,
}

impl Compiler {
    fn node(&mut self, items: &[Value], path: &str, depth: usize) -> Result<Node, ExprError> {
        if depth > MAX_DEPTH {
            return Err(wrong(path, format!("conditions are nested deeper than {MAX_DEPTH}")));
        }
        match items.first() {
            Some(Value::String(word)) => match group(word) {
                Some((any, negated)) => self.group(&items[1..], path, depth, any, negated),
                None => self.condition(word, &items[1..], path),
            },
            Some(Value::Array(_)) => Ok(Node::All(self.members(items, 0, path, depth)?)),
            Some(other) => Err(wrong(&format!("{path}[0]"), format!("expected a variable name, found {}", kind(other)))),
            None => Err(wrong(path, "expected a condition, found an empty array".to_owned())),
        }
    }

    fn group(&mut self, members: &[Value], path: &str, depth: usize, any: bool, negated: bool) -> Result<Node, ExprError> {
        if members.len() < 2 {
            return Err(wrong(path, "a logical group needs at least two conditions".to_owned()));
        }
        let members = self.members(members, 1, path, depth)?;
        let node = if any { Node::Any(members) } else { Node::All(members) };
        Ok(if negated { Node::Not(Box::new(node)) } else { node })
    }

    fn members(&mut self, items: &[Value], offset: usize, path: &str, depth: usize) -> Result<Vec<Node>, ExprError> {
        let member = |(index, item): (usize, &Value)| {
            let path = format!("{path}[{}]", index + offset);
            match item {
                Value::Array(items) => self.node(items, &path, depth + 1),
                other => Err(wrong(&path, format!("expected a condition, found {}", kind(other)))),
            }
        };
        items.iter().enumerate().map(member).collect()
    }

    fn condition(&mut self, name: &str, rest: &[Value], path: &str) -> Result<Node, ExprError> {
        self.conditions += 1;
        if self.conditions > MAX_CONDITIONS {
            return Err(wrong(path, format!("more than {MAX_CONDITIONS} conditions")));
        }
        let (negated, op, value, at) = match rest {
            [value] => (false, "==", value, 1),
            [Value::String(not), Value::String(op), value] if not == "!" => (true, op.as_str(), value, 3),
            [Value::String(op), value] => (false, op.as_str(), value, 2),
            [other, _] => return Err(wrong(&format!("{path}[1]"), format!("expected an operator, found {}", kind(other)))),
            _ => return Err(wrong(path, "expected [variable, operator, value]".to_owned())),
        };
        let (inverse, op) = operation(op, value, &format!("{path}[{at}]"), path)?;
        let test = Node::Test(Variable::new(name), op);
        Ok(if negated != inverse { Node::Not(Box::new(test)) } else { test })
    }
}

/// The operation, and whether its result is inverted.
fn operation(op: &str, value: &Value, at: &str, path: &str) -> Result<(bool, Op), ExprError> {
    let op = match op.to_ascii_lowercase().as_str() {
        "==" => equal(value),
        "~=" => return Ok((true, equal(value))),
        "<" => Op::Order(Order::Less, bound(value, at)?),
        "<=" => Op::Order(Order::LessOrEqual, bound(value, at)?),
        ">" => Op::Order(Order::Greater, bound(value, at)?),
        ">=" => Op::Order(Order::GreaterOrEqual, bound(value, at)?),
        "~~" => Op::Matches(regex(value, "", at)?),
        "~*" => Op::Matches(regex(value, "i", at)?),
        "in" => Op::In(list(value, at)?),
        // Only texts can be had: other values never are.
        "has" => value.as_str().map_or(Op::Never, |text| Op::Has(text.to_owned())),
        "ipmatch" => Op::Ip(networks(value, at)?),
        "between" => between(value, at)?,
        other => {
            return Err(wrong(
                path,
                format!(
                    "unknown operator `{other}`; known are == ~= > >= < <= ~~ ~* in has between ipmatch, each after an optional !"
                ),
            ));
        }
    };
    Ok((false, op))
}

fn equal(value: &Value) -> Op {
    match value {
        Value::String(text) => Op::Text(text.clone()),
        Value::Number(number) => number.as_f64().map_or(Op::Never, Op::Number),
        Value::Null => Op::Null,
        Value::Bool(value) => Op::Bool(*value),
        Value::Array(_) | Value::Object(_) => Op::Never,
    }
}

fn bound(value: &Value, at: &str) -> Result<f64, ExprError> {
    let number = match value {
        Value::String(text) => super::number(text),
        other => other.as_f64(),
    };
    number.ok_or_else(|| wrong(at, format!("expected a number, found {}", kind(value))))
}

fn regex(value: &Value, options: &str, at: &str) -> Result<regex::Regex, ExprError> {
    let text = value.as_str().ok_or_else(|| wrong(at, format!("expected a regular expression, found {}", kind(value))))?;
    pattern::compile(text, options).map_err(|message| wrong(at, message))
}

/// The texts of the list. The comparison is strict: what is not a text never equals a variable, which is one.
fn list(value: &Value, at: &str) -> Result<Vec<String>, ExprError> {
    let items = value.as_array().ok_or_else(|| wrong(at, format!("expected an array, found {}", kind(value))))?;
    Ok(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn between(value: &Value, at: &str) -> Result<Op, ExprError> {
    let bounds = match value.as_array().map(Vec::as_slice) {
        Some([start, end]) => start.as_i64().zip(end.as_i64()),
        _ => None,
    };
    let (start, end) = bounds.ok_or_else(|| wrong(at, format!("expected two whole numbers, found {value}")))?;
    Ok(Op::Between(start, end))
}

fn networks(value: &Value, at: &str) -> Result<Vec<ipnet::IpNet>, ExprError> {
    let one = |value: &Value, at: &str| {
        let net = value.as_str().and_then(parse_net);
        net.ok_or_else(|| wrong(at, format!("expected an IP address or network, found {value}")))
    };
    match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| one(item, &format!("{at}[{index}]"))).collect(),
        single => one(single, at).map(|net| vec![net]),
    }
}

/// Whether a group word means "any", and whether it is negated.
fn group(word: &str) -> Option<(bool, bool)> {
    match word.to_ascii_uppercase().as_str() {
        "AND" => Some((false, false)),
        "OR" => Some((true, false)),
        "!AND" => Some((false, true)),
        "!OR" => Some((true, true)),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wrong(path: &str, message: String) -> ExprError {
    ExprError { path: path.to_owned(), message }
}
