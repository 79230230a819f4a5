//! The template language: text with `{{expression}}`, `{*raw*}` and `{% if %}`/`{% for %}`, a bounded part of what lua-resty-template has. It runs no Lua.

mod eval;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::exchange::Variable;

/// Longest template in bytes.
const MAX_SOURCE: usize = 256 * 1024;

/// A compiled template.
#[derive(Debug)]
pub(super) struct Template {
    nodes: Vec<Node>,
}

/// What a template may see of the request.
pub(super) type Look<'a> = &'a dyn Fn(&Variable) -> Option<String>;

/// What a template is rendered with.
pub(super) struct Scene<'a> {
    /// By what names are looked up.
    pub root: &'a Value,
    /// `_body`.
    pub body: &'a str,
    /// `_multipart`.
    pub parts: &'a Value,
    /// `_ctx.var`.
    pub look: Look<'a>,
    /// Most bytes that are made.
    pub limit: usize,
}

/// A part of a template.
#[derive(Debug)]
enum Node {
    Text(Box<str>),
    /// With `&`, `<`, `>`, `"`, `'` and `/` as entities.
    Escaped(Expr),
    Raw(Expr),
    If(Vec<(Expr, Vec<Node>)>, Vec<Node>),
    /// Names of key and value; whether only the items of a list are meant.
    Each(Box<str>, Box<str>, bool, Expr, Vec<Node>),
    /// From, to and step.
    Count(Box<str>, [Expr; 3], Vec<Node>),
    Local(Box<str>, Expr),
}

#[derive(Debug)]
enum Expr {
    Constant(Value),
    Name(Box<str>),
    Variable(Box<Variable>),
    Index(Box<Expr>, Box<Expr>),
    Call(Function, Vec<Expr>),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Length(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Join,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    EscapeJson,
    EscapeXml,
    ToString,
    ToNumber,
    Type,
    Upper,
    Lower,
    /// `_multipart:get(name)`.
    Part,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Says what is wrong in which line.
    pub(super) fn compile(source: &str) -> Result<Template, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("the template is longer than {MAX_SOURCE} bytes"));
        }
        Ok(Template { nodes: parse::nodes(source)? })
    }

    /// The text for a scene.
    ///
    /// # Errors
    /// Says what could not be done.
    pub(super) fn render(&self, scene: &Scene<'_>) -> Result<String, String> {
        eval::render(&self.nodes, scene)
    }
}
