//! The filter of `data-mask`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Phases, check};
use super::config::Config;
use super::rule::{Rule, Target};
use crate::exchange::Exchange;
use crate::exchange::content::{Content, Kind};
use crate::http::Name;

struct DataMask {
    rules: Vec<Rule>,
    max_body: u64,
    max_args: usize,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let compile = |(index, rule)| Rule::compile(rule).map_err(|error| vec![check::fault_at(&format!("request[{index}]"), error)]);
    let rules = config.request.into_iter().enumerate().map(compile).collect::<Result<_, _>>()?;
    Ok(Arc::new(DataMask { rules, max_body: config.max_body_size, max_args: config.max_req_post_args }))
}

impl Filter for DataMask {
    fn phases(&self) -> Phases {
        Phases::REDACT
    }

    fn redact(&self, x: &mut Exchange) {
        for rule in &self.rules {
            match &rule.target {
                Target::Query(name) => {
                    for query in [&mut x.original.query, &mut x.request.query] {
                        if let Some(masked) = query.as_deref().and_then(|query| rule.query(query, name)) {
                            *query = masked;
                        }
                    }
                }
                Target::Header(name) if name.id() == Name::Host => {
                    let mut host = Value::String(std::mem::take(&mut x.request.authority));
                    if rule.value(&mut host) {
                        x.request.authority = host.as_str().unwrap_or_default().to_owned();
                    }
                }
                Target::Header(name) => rule.fields(&mut x.request.fields, name),
                Target::Json(_) | Target::Form(_) => {
                    if let Some(content) = x.content_mut() {
                        self.mask_content(rule, content);
                    }
                }
            }
        }
    }
}

impl DataMask {
    fn mask_content(&self, rule: &Rule, content: &mut Content) {
        if content.len() as u64 > self.max_body {
            return content.forget();
        }
        match (&rule.target, content.kind()) {
            (Target::Json(path), Kind::Json) => {
                if let Some(document) = content.document_mut() {
                    path.edit(document, &mut |value| rule.value(value));
                }
            }
            (Target::Form(name), Kind::Form) => {
                let Some(form) = content.document_mut().and_then(Value::as_object_mut) else { return };
                if form.len() > self.max_args {
                    return content.forget();
                }
                let stays = match form.get_mut(&**name) {
                    Some(Value::Array(values)) => {
                        values.retain_mut(|value| rule.value(value));
                        !values.is_empty()
                    }
                    Some(value) => rule.value(value),
                    None => true,
                };
                if !stays {
                    form.shift_remove(&**name);
                }
            }
            _ => {}
        }
    }
}
