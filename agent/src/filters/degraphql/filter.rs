//! The filter of `degraphql`.

use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{Body, Method, Name};

struct Degraphql {
    shape: Arc<Shape>,
    limit: u64,
    refusal: Box<Answer>,
}

/// What every query has.
struct Shape {
    query: String,
    variables: Vec<String>,
    operation: Option<String>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut refusal = Answer::empty(405, Reason::Plugin);
    refusal.head.fields.append("Allow", "GET, POST");
    let shape = Shape { query: config.query, variables: config.variables.unwrap_or_default(), operation: config.operation_name };
    Ok(Arc::new(Degraphql { shape: Arc::new(shape), limit: config.max_req_body_size, refusal: Box::new(refusal) }))
}

impl Filter for Degraphql {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        match x.request.method {
            Method::Get => {
                let variables = self.shape.variables.iter().filter_map(|name| Some((name.clone(), argument(x, name)?)));
                let variables = variables.collect();
                self.shape.send(x, variables)
            }
            Method::Post => {
                let shape = self.shape.clone();
                Flow::Body { limit: self.limit, then: Box::new(move |x, body| shape.send_body(x, &body)) }
            }
            _ => Flow::Answer(self.refusal.clone()),
        }
    }
}

impl Shape {
    /// Takes the variables out of a JSON body.
    fn send_body(&self, x: &mut Exchange, body: &[u8]) -> Flow {
        let mut given: Map<String, Value> = match serde_json::from_slice(body) {
            Ok(given) => given,
            Err(_) if body.is_empty() && self.variables.is_empty() => Map::new(),
            Err(error) => {
                let message = format!("invalid request body, expected a JSON object: {error}");
                return Flow::Answer(Box::new(Answer::json(400, &json!({ "message": message }), Reason::Plugin)));
            }
        };
        let variables = self.variables.iter().filter_map(|name| Some((name.clone(), given.remove(name)?))).collect();
        self.send(x, variables)
    }

    /// Puts the query in place of the request's body (GraphQL over HTTP, section 5.4).
    fn send(&self, x: &mut Exchange, variables: Map<String, Value>) -> Flow {
        let mut body = Map::new();
        body.insert("query".to_owned(), Value::from(self.query.as_str()));
        body.insert("variables".to_owned(), Value::Object(variables));
        if let Some(name) = &self.operation {
            body.insert("operationName".to_owned(), Value::from(name.as_str()));
        }
        x.body = Body::from(Bytes::from(Value::Object(body).to_string()));
        x.request.method = Method::Post;
        x.request.fields.set_known(Name::ContentType, "application/json");
        x.request.fields.remove_known(Name::ContentEncoding);
        Flow::Continue
    }
}

/// An argument of the query, decoded.
fn argument(x: &Exchange, name: &str) -> Option<Value> {
    let text = x.request.query_arg(name)?.replace('+', " ");
    Some(Value::from(percent_decode_str(&text).decode_utf8_lossy().into_owned()))
}
