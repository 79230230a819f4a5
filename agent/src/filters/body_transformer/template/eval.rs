//! Rendering: values as Lua has them (`nil` and `false` are false, lists begin at 1), bounded in steps and in what is made. It knows no grammar.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{Expr, Function, Node, Operator, Scene};

/// Most parts that are rendered and expressions that are evaluated.
const MAX_STEPS: u32 = 2_000_000;

type Seen<'a> = Cow<'a, Value>;

struct Renderer<'a> {
    scene: &'a Scene<'a>,
    locals: Vec<(&'a str, Seen<'a>)>,
    out: String,
    steps: u32,
}

/// The text of nodes for a scene.
///
/// # Errors
/// Says what could not be done.
pub(super) fn render<'a>(nodes: &'a [Node], scene: &'a Scene<'a>) -> Result<String, String> {
    let mut renderer = Renderer { scene, locals: Vec::new(), out: String::new(), steps: 0 };
    renderer.nodes(nodes)?;
    Ok(renderer.out)
}

/// A number, a whole one as such.
pub(super) fn number(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

impl<'a> Renderer<'a> {
    /// Renders a block; the names that it has made end with it.
    fn nodes(&mut self, nodes: &'a [Node]) -> Result<(), String> {
        let outer = self.locals.len();
        for node in nodes {
            self.step()?;
            self.node(node)?;
        }
        self.locals.truncate(outer);
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(format!("the template takes more than {MAX_STEPS} steps")) } else { Ok(()) }
    }

    fn node(&mut self, node: &'a Node) -> Result<(), String> {
        match node {
            Node::Text(text) => self.push(text),
            Node::Raw(expr) => {
                let text = self.value(expr).map(|value| text(&value))?;
                self.push(&text)
            }
            Node::Escaped(expr) => match self.value(expr)?.as_ref() {
                Value::String(text) => self.push(&escaped_html(text)),
                other => self.push(&text(other)),
            },
            Node::If(branches, other) => {
                for (condition, nodes) in branches {
                    if truth(self.value(condition)?.as_ref()) {
                        return self.nodes(nodes);
                    }
                }
                self.nodes(other)
            }
            Node::Each(key, value, listed, over, body) => self.each((key, value), *listed, over, body),
            Node::Count(name, bounds, body) => self.count(name, bounds, body),
            Node::Local(name, expr) => {
                let value = self.value(expr)?;
                self.locals.push((name, value));
                Ok(())
            }
        }
    }

    fn push(&mut self, text: &str) -> Result<(), String> {
        if self.out.len() + text.len() > self.scene.limit {
            return Err(format!("the template makes more than {} bytes", self.scene.limit));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn each(&mut self, (key, value): (&'a str, &'a str), listed: bool, over: &'a Expr, body: &'a [Node]) -> Result<(), String> {
        let pairs: Vec<(Value, Seen<'a>)> = match self.value(over)? {
            Cow::Borrowed(Value::Array(list)) => numbered(list.iter().map(Cow::Borrowed)),
            Cow::Owned(Value::Array(list)) => numbered(list.into_iter().map(Cow::Owned)),
            Cow::Borrowed(Value::Object(map)) if !listed => {
                map.iter().map(|(name, value)| (Value::from(name.as_str()), Cow::Borrowed(value))).collect()
            }
            Cow::Owned(Value::Object(map)) if !listed => {
                map.into_iter().map(|(name, value)| (Value::from(name), Cow::Owned(value))).collect()
            }
            _ => Vec::new(),
        };
        let outer = self.locals.len();
        for (name, item) in pairs {
            // As in Lua, a list ends at its first nil.
            if listed && item.is_null() {
                break;
            }
            self.step()?;
            self.locals.push((key, Cow::Owned(name)));
            self.locals.push((value, item));
            self.nodes(body)?;
            self.locals.truncate(outer);
        }
        Ok(())
    }

    fn count(&mut self, name: &'a str, bounds: &'a [Expr; 3], body: &'a [Node]) -> Result<(), String> {
        let mut numbers = [0.0; 3];
        for (place, expr) in numbers.iter_mut().zip(bounds) {
            *place = self.value(expr).and_then(|value| as_number(&value).ok_or("`for` counts with numbers".to_owned()))?;
        }
        let [mut at, to, step] = numbers;
        if step == 0.0 {
            return Err("`for` counts in steps of zero".to_owned());
        }
        let outer = self.locals.len();
        while if step > 0.0 { at <= to } else { at >= to } {
            self.step()?;
            self.locals.push((name, Cow::Owned(number(at))));
            self.nodes(body)?;
            self.locals.truncate(outer);
            at += step;
        }
        Ok(())
    }

    fn value(&mut self, expr: &'a Expr) -> Result<Seen<'a>, String> {
        self.step()?;
        Ok(match expr {
            Expr::Constant(value) => Cow::Borrowed(value),
            Expr::Name(name) => self.named(name),
            Expr::Variable(variable) => Cow::Owned((self.scene.look)(variable).map_or(Value::Null, Value::from)),
            Expr::Index(of, key) => {
                let (of, key) = (self.value(of)?, self.value(key)?);
                index(of, &key)
            }
            Expr::Call(function, arguments) => {
                let Some(argument) = arguments.first() else { return Ok(Cow::Owned(Value::Null)) };
                let argument = self.value(argument)?;
                self.call(*function, argument)
            }
            Expr::Not(of) => Cow::Owned(Value::Bool(!truth(self.value(of)?.as_ref()))),
            Expr::Minus(of) => {
                let value = self.value(of)?;
                Cow::Owned(number(-as_number(&value).ok_or_else(|| no_number(&value))?))
            }
            Expr::Length(of) => Cow::Owned(Value::from(match self.value(of)?.as_ref() {
                Value::String(text) => text.len(),
                Value::Array(list) => list.len(),
                _ => 0,
            })),
            Expr::And(left, right) => {
                let left = self.value(left)?;
                if truth(&left) { self.value(right)? } else { left }
            }
            Expr::Or(left, right) => {
                let left = self.value(left)?;
                if truth(&left) { left } else { self.value(right)? }
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                Cow::Owned(self.binary(*operator, &left, &right)?)
            }
        })
    }

    fn named(&self, name: &str) -> Seen<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return value.clone();
        }
        match (self.scene.root.get(name), name) {
            (Some(value), _) => Cow::Borrowed(value),
            (None, "_body") => Cow::Owned(Value::from(self.scene.body)),
            (None, "_multipart") => Cow::Borrowed(self.scene.parts),
            (None, _) => Cow::Owned(Value::Null),
        }
    }

    fn call(&self, function: Function, argument: Seen<'a>) -> Seen<'a> {
        let value = match function {
            Function::EscapeJson => Value::from(argument.to_string()),
            Function::EscapeXml => Value::from(escaped_xml(&text(&argument))),
            Function::ToString if argument.is_null() => Value::from("nil"),
            Function::ToString => Value::from(text(&argument)),
            Function::ToNumber => as_number(&argument).map_or(Value::Null, number),
            Function::Type => Value::from(kind(&argument)),
            Function::Upper => Value::from(text(&argument).to_ascii_uppercase()),
            Function::Lower => Value::from(text(&argument).to_ascii_lowercase()),
            Function::Part => return index(Cow::Borrowed(self.scene.parts), &argument),
        };
        Cow::Owned(value)
    }

    fn binary(&self, operator: Operator, left: &Value, right: &Value) -> Result<Value, String> {
        let arithmetic = |work: fn(f64, f64) -> f64| {
            let left = as_number(left).ok_or_else(|| no_number(left))?;
            let right = as_number(right).ok_or_else(|| no_number(right))?;
            Ok(number(work(left, right)))
        };
        let ordered = |holds: fn(Ordering) -> bool| Ok(Value::Bool(compare(left, right)?.is_some_and(holds)));
        match operator {
            Operator::Equal => Ok(Value::Bool(equal(left, right))),
            Operator::Unequal => Ok(Value::Bool(!equal(left, right))),
            Operator::Less => ordered(Ordering::is_lt),
            Operator::AtMost => ordered(Ordering::is_le),
            Operator::More => ordered(Ordering::is_gt),
            Operator::AtLeast => ordered(Ordering::is_ge),
            Operator::Join => {
                let (left, right) = (text(left), text(right));
                if left.len() + right.len() > self.scene.limit {
                    return Err(format!("the template makes a text of more than {} bytes", self.scene.limit));
                }
                Ok(Value::from(left + right.as_str()))
            }
            Operator::Add => arithmetic(|left, right| left + right),
            Operator::Subtract => arithmetic(|left, right| left - right),
            Operator::Multiply => arithmetic(|left, right| left * right),
            Operator::Divide => arithmetic(|left, right| left / right),
            Operator::Modulo => arithmetic(|left, right| left - (left / right).floor() * right),
        }
    }
}

fn numbered<'a>(items: impl Iterator<Item = Seen<'a>>) -> Vec<(Value, Seen<'a>)> {
    items.enumerate().map(|(index, item)| (Value::from(index + 1), item)).collect()
}

/// What lies under a key; lists begin at 1, and nothing lies in nothing.
fn index<'a>(of: Seen<'a>, key: &Value) -> Seen<'a> {
    fn at<'v>(of: &'v Value, key: &Value) -> Option<&'v Value> {
        match (of, key) {
            (Value::Object(map), Value::String(name)) => map.get(name),
            (Value::Object(map), Value::Number(number)) => map.get(&number.to_string()),
            (Value::Array(list), Value::Number(number)) => list.get(usize::try_from(number.as_u64()?).ok()?.checked_sub(1)?),
            // An element with a single text is its own first child.
            (Value::String(_), Value::Number(number)) if number.as_u64() == Some(1) => Some(of),
            _ => None,
        }
    }
    match of {
        Cow::Borrowed(of) => at(of, key).map_or(Cow::Owned(Value::Null), Cow::Borrowed),
        Cow::Owned(of) => Cow::Owned(at(&of, key).cloned().unwrap_or_default()),
    }
}

fn truth(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// As it is printed: nothing for `nil`, lists and objects as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) | Value::Object(_) => "table",
    }
}

/// The number, also of a text that reads as one.
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

fn no_number(value: &Value) -> String {
    format!("arithmetic on a {}", kind(value))
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

fn compare(left: &Value, right: &Value) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => Ok(left.as_f64().partial_cmp(&right.as_f64())),
        (Value::String(left), Value::String(right)) => Ok(Some(left.cmp(right))),
        _ => Err(format!("a {} compared with a {}", kind(left), kind(right))),
    }
}

fn escaped_html(text: &str) -> String {
    escaped(text, |character| match character {
        '/' => Some("&#47;"),
        '\'' => Some("&#39;"),
        other => common_entity(other),
    })
}

fn escaped_xml(text: &str) -> String {
    escaped(text, |character| if character == '\'' { Some("&apos;") } else { common_entity(character) })
}

fn common_entity(character: char) -> Option<&'static str> {
    match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        _ => None,
    }
}

fn escaped(text: &str, entity: impl Fn(char) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match entity(character) {
            Some(entity) => out.push_str(entity),
            None => out.push(character),
        }
    }
    out
}
