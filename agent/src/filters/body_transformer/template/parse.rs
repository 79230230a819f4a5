//! The grammar: from pieces and words to nodes and expressions, bounded in size and depth. It knows no values.

use serde_json::Value;

use super::lex::{self, Kind, Piece, Word};
use super::{Expr, Function, Node, Operator};
use crate::exchange::Variable;

/// Most nodes and expressions of a template.
const MAX_NODES: usize = 20_000;
/// Deepest nesting of blocks.
const MAX_BLOCKS: usize = 32;
/// Deepest nesting within an expression.
const MAX_DEPTH: usize = 64;

/// The nodes of a template.
///
/// # Errors
/// Says what is wrong in which line.
pub(super) fn nodes(source: &str) -> Result<Vec<Node>, String> {
    let mut parser = Parser { pieces: lex::pieces(source)?.into_iter(), blocks: 0, nodes: 0 };
    match parser.block()? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(format!("line {}: `{}` belongs to no block", end.line, end.keyword)),
    }
}

struct Parser<'a> {
    pieces: std::vec::IntoIter<Piece<'a>>,
    blocks: usize,
    nodes: usize,
}

/// What has ended a block: `end`, `else` or `elseif` with its condition.
struct BlockEnd {
    line: usize,
    keyword: String,
    condition: Option<Expr>,
}

impl Parser<'_> {
    /// Nodes up to the end of the block or of the template.
    fn block(&mut self) -> Result<(Vec<Node>, Option<BlockEnd>), String> {
        self.blocks += 1;
        if self.blocks > MAX_BLOCKS {
            return Err(format!("blocks are nested deeper than {MAX_BLOCKS}"));
        }
        let mut nodes = Vec::new();
        let mut end = None;
        while let Some(piece) = self.pieces.next() {
            let line = piece.line;
            let at = |error: String| if error.starts_with("line ") { error } else { format!("line {line}: {error}") };
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(format!("the template has more than {MAX_NODES} parts"));
            }
            match piece.kind {
                Kind::Text(text) => nodes.push(Node::Text(text.into())),
                Kind::Escaped(text) => nodes.push(Node::Escaped(expression(text).map_err(at)?)),
                Kind::Raw(text) => nodes.push(Node::Raw(expression(text).map_err(at)?)),
                Kind::Statement(text) => match self.statement(text, line).map_err(at)? {
                    Ok(node) => nodes.push(node),
                    Err(found) => {
                        end = Some(found);
                        break;
                    }
                },
            }
        }
        self.blocks -= 1;
        Ok((nodes, end))
    }

    /// A statement with its blocks, or the end of a block.
    fn statement(&mut self, text: &str, line: usize) -> Result<Result<Node, BlockEnd>, String> {
        let mut words = Words::new(lex::words(text)?);
        let keyword = words.name().ok_or("expected a statement: if, elseif, else, for, local or end")?;
        let node = match keyword.as_str() {
            "if" => self.conditional(words.condition()?)?,
            "for" => self.repetition(words)?,
            "local" => {
                let name = words.name().ok_or("expected a name behind `local`")?;
                words.demand("=")?;
                let value = words.expression(0)?;
                words.done()?;
                Node::Local(name.into(), value)
            }
            "elseif" => return Ok(Err(BlockEnd { line, keyword, condition: Some(words.condition()?) })),
            "else" | "end" => {
                words.done()?;
                return Ok(Err(BlockEnd { line, keyword, condition: None }));
            }
            other => {
                return Err(format!("`{other}` is refused: there is no Lua here but if, elseif, else, for, local and end"));
            }
        };
        Ok(Ok(node))
    }

    fn conditional(&mut self, condition: Expr) -> Result<Node, String> {
        let mut branches = Vec::new();
        let mut condition = Some(condition);
        loop {
            let (nodes, end) = self.block()?;
            let end = end.ok_or("`if` has no `end`")?;
            match (condition.take(), end.keyword.as_str()) {
                (Some(held), keyword) => {
                    branches.push((held, nodes));
                    match keyword {
                        "end" => return Ok(Node::If(branches, Vec::new())),
                        "elseif" => condition = end.condition,
                        _ => {}
                    }
                }
                (None, "end") => return Ok(Node::If(branches, nodes)),
                (None, keyword) => return Err(format!("line {}: `{keyword}` behind `else`", end.line)),
            }
        }
    }

    fn repetition(&mut self, mut words: Words) -> Result<Node, String> {
        let first = words.name().ok_or("expected a name behind `for`")?;
        if words.take("=") {
            let from = words.expression(0)?;
            words.demand(",")?;
            let to = words.expression(0)?;
            let step = if words.take(",") { words.expression(0)? } else { Expr::Constant(Value::from(1)) };
            let body = self.body(words)?;
            return Ok(Node::Count(first.into(), [from, to, step], body));
        }
        words.demand(",")?;
        let second = words.name().ok_or("expected two names behind `for`")?;
        let keyword = words.name();
        let listed = match (keyword.as_deref(), words.name().as_deref()) {
            (Some("in"), Some("ipairs")) => true,
            (Some("in"), Some("pairs")) => false,
            _ => return Err("expected `in ipairs(…) do` or `in pairs(…) do`".to_owned()),
        };
        words.demand("(")?;
        let over = words.expression(0)?;
        words.demand(")")?;
        let body = self.body(words)?;
        Ok(Node::Each(first.into(), second.into(), listed, over, body))
    }

    /// What stands between `do` and `end`.
    fn body(&mut self, mut words: Words) -> Result<Vec<Node>, String> {
        if words.name().as_deref() != Some("do") {
            return Err("expected `do`".to_owned());
        }
        words.done()?;
        match self.block()? {
            (nodes, Some(end)) if end.keyword == "end" => Ok(nodes),
            (_, Some(end)) => Err(format!("line {}: `{}` belongs to no `if`", end.line, end.keyword)),
            (_, None) => Err("`for` has no `end`".to_owned()),
        }
    }
}

/// One expression and nothing else.
fn expression(text: &str) -> Result<Expr, String> {
    let mut words = Words::new(lex::words(text)?);
    let expr = words.expression(0)?;
    words.done()?;
    Ok(expr)
}

struct Words {
    words: std::iter::Peekable<std::vec::IntoIter<Word>>,
    depth: usize,
}

/// Operators with what binds them, loosest first, as in Lua.
const OPERATORS: [(&str, u8, Operator); 12] = [
    ("==", 3, Operator::Equal),
    ("~=", 3, Operator::Unequal),
    ("<", 3, Operator::Less),
    ("<=", 3, Operator::AtMost),
    (">", 3, Operator::More),
    (">=", 3, Operator::AtLeast),
    ("..", 4, Operator::Join),
    ("+", 5, Operator::Add),
    ("-", 5, Operator::Subtract),
    ("*", 6, Operator::Multiply),
    ("/", 6, Operator::Divide),
    ("%", 6, Operator::Modulo),
];
const OR: u8 = 1;
const AND: u8 = 2;
const UNARY: u8 = 7;

impl Words {
    fn new(words: Vec<Word>) -> Words {
        Words { words: words.into_iter().peekable(), depth: 0 }
    }

    fn name(&mut self) -> Option<String> {
        match self.words.next_if(|word| matches!(word, Word::Name(_)))? {
            Word::Name(name) => Some(name),
            _ => None,
        }
    }

    fn take(&mut self, sign: &str) -> bool {
        self.words.next_if(|word| matches!(word, Word::Sign(found) if *found == sign)).is_some()
    }

    fn demand(&mut self, sign: &str) -> Result<(), String> {
        if self.take(sign) { Ok(()) } else { Err(format!("expected `{sign}`")) }
    }

    fn done(&mut self) -> Result<(), String> {
        match self.words.next() {
            None => Ok(()),
            Some(word) => Err(format!("unexpected {word:?}")),
        }
    }

    /// What stands between `if` and `then`.
    fn condition(&mut self) -> Result<Expr, String> {
        let expr = self.expression(0)?;
        if self.name().as_deref() != Some("then") {
            return Err("expected `then`".to_owned());
        }
        self.done().map(|()| expr)
    }

    /// An expression whose operators bind at least as tightly as `tightness`.
    fn expression(&mut self, tightness: u8) -> Result<Expr, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH}"));
        }
        let mut left = self.unary()?;
        let mut chained = 0;
        loop {
            chained += 1;
            if chained > MAX_DEPTH {
                return Err(format!("the expression has more than {MAX_DEPTH} operators in a row"));
            }
            let (name, sign) = match self.words.peek() {
                Some(Word::Name(name)) => (name.clone(), ""),
                Some(Word::Sign(sign)) => (String::new(), *sign),
                _ => break,
            };
            left = match (name.as_str(), sign) {
                ("or", _) if tightness <= OR => {
                    self.words.next();
                    Expr::Or(Box::new(left), Box::new(self.expression(OR + 1)?))
                }
                ("and", _) if tightness <= AND => {
                    self.words.next();
                    Expr::And(Box::new(left), Box::new(self.expression(AND + 1)?))
                }
                (_, sign) => match OPERATORS.iter().find(|(text, binding, _)| *text == sign && tightness <= *binding) {
                    Some((_, binding, operator)) => {
                        self.words.next();
                        Expr::Binary(*operator, Box::new(left), Box::new(self.expression(binding + 1)?))
                    }
                    None => break,
                },
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if self.words.next_if(|word| matches!(word, Word::Name(name) if name == "not")).is_some() {
            return Ok(Expr::Not(Box::new(self.expression(UNARY)?)));
        }
        if self.take("-") {
            return Ok(Expr::Minus(Box::new(self.expression(UNARY)?)));
        }
        if self.take("#") {
            return Ok(Expr::Length(Box::new(self.expression(UNARY)?)));
        }
        let mut expr = self.primary()?;
        let mut steps = 0;
        loop {
            steps += 1;
            if steps > MAX_DEPTH {
                return Err(format!("a path has more than {MAX_DEPTH} steps"));
            }
            let key = if self.take(".") {
                Expr::Constant(Value::from(self.name().ok_or("expected a name behind `.`")?))
            } else if self.take("[") {
                let key = self.expression(0)?;
                self.demand("]")?;
                key
            } else {
                return Ok(expr);
            };
            expr = Expr::Index(Box::new(expr), Box::new(key));
        }
    }

    fn primary(&mut self) -> Result<Expr, String> {
        match self.words.next() {
            Some(Word::Number(number)) => Ok(Expr::Constant(super::eval::number(number))),
            Some(Word::Text(text)) => Ok(Expr::Constant(Value::from(text))),
            Some(Word::Sign("(")) => {
                let expr = self.expression(0)?;
                self.demand(")").map(|()| expr)
            }
            Some(Word::Name(name)) => self.named(name),
            Some(word) => Err(format!("unexpected {word:?}")),
            None => Err("expected an expression".to_owned()),
        }
    }

    fn named(&mut self, name: String) -> Result<Expr, String> {
        match name.as_str() {
            "nil" => return Ok(Expr::Constant(Value::Null)),
            "true" => return Ok(Expr::Constant(Value::Bool(true))),
            "false" => return Ok(Expr::Constant(Value::Bool(false))),
            "and" | "or" | "then" | "do" | "end" | "function" | "return" | "in" => return Err(format!("unexpected `{name}`")),
            "_ctx" => return self.variable(),
            "string" => {
                self.demand(".")?;
                let function = self.name().unwrap_or_default();
                return self.call(&format!("string.{function}"));
            }
            "_multipart" if self.take(":") => {
                let method = self.name().unwrap_or_default();
                return self.call(&format!("_multipart:{method}"));
            }
            _ => {}
        }
        match self.words.peek() {
            Some(Word::Sign("(")) => self.call(&name),
            Some(Word::Sign(":")) => Err(format!("methods are refused: `{name}:`")),
            _ => Ok(Expr::Name(name.into())),
        }
    }

    /// `_ctx.var.NAME`, the only thing that is seen of the request.
    fn variable(&mut self) -> Result<Expr, String> {
        const ONLY: &str = "of _ctx only _ctx.var.NAME is there";
        self.demand(".").map_err(|_| ONLY.to_owned())?;
        if self.name().as_deref() != Some("var") {
            return Err(ONLY.to_owned());
        }
        let name = if self.take(".") {
            self.name()
        } else if self.take("[") {
            let text = match self.words.next() {
                Some(Word::Text(text)) => Some(text),
                _ => None,
            };
            self.demand("]").map_err(|_| ONLY.to_owned())?;
            text
        } else {
            None
        };
        Ok(Expr::Variable(Box::new(Variable::new(&name.ok_or(ONLY)?))))
    }

    fn call(&mut self, name: &str) -> Result<Expr, String> {
        let function = match name {
            "_escape_json" => Function::EscapeJson,
            "_escape_xml" => Function::EscapeXml,
            "tostring" => Function::ToString,
            "tonumber" => Function::ToNumber,
            "type" => Function::Type,
            "string.upper" => Function::Upper,
            "string.lower" => Function::Lower,
            "_multipart:get" => Function::Part,
            other => {
                return Err(format!(
                    "`{other}` is refused: the functions are _escape_json, _escape_xml, tostring, tonumber, type, string.upper, \
                     string.lower and _multipart:get"
                ));
            }
        };
        self.demand("(")?;
        let argument = self.expression(0)?;
        self.demand(")")?;
        Ok(Expr::Call(function, vec![argument]))
    }
}
