//! The filter of `acl`.

use std::sync::Arc;

use serde_json::Value;

use super::super::identity::{self, EXTERNAL_USER};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Labels};
use super::pick::Pick;
use super::values::{Parser, finds_in_text};
use crate::exchange::{Answer, ConsumerInfo, Exchange};

/// Labels, each with the values that count.
type Wanted = Box<[Label]>;

/// A label and the values that count.
type Label = (Box<str>, Box<[Box<str>]>);

struct Acl {
    allow: Option<Wanted>,
    deny: Option<Wanted>,
    field: Pick,
    /// The label that `field` counts as.
    key: Box<str>,
    parser: Parser,
    unknown: Answer,
    forbidden: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let fault = |path: &str, message: String| vec![check::fault_at(path, message)];
    let field = Pick::parse(&config.external_user_label_field).map_err(|message| fault("external_user_label_field", message))?;
    let parser = config.parser().map_err(|message| fault("external_user_label_field_separator", message))?;
    let message = config.rejected_msg.as_deref().unwrap_or("The consumer is forbidden.");
    Ok(Arc::new(Acl {
        forbidden: identity::refusal(config.rejected_code, message),
        unknown: identity::refusal(401, "Missing authentication."),
        allow: config.allow_labels.map(wanted),
        deny: config.deny_labels.map(wanted),
        field,
        key: config.external_user_label_field_key.unwrap_or(config.external_user_label_field).into(),
        parser,
    }))
}

fn wanted(labels: Labels) -> Wanted {
    labels.into_iter().map(|(label, values)| (label.into(), values.into_iter().map(Into::into).collect())).collect()
}

/// Who asks.
enum Who<'a> {
    Consumer(&'a ConsumerInfo),
    External(&'a Value),
}

impl Filter for Acl {
    fn phases(&self) -> Phases {
        Phases::ACCESS
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let who = match (&x.consumer, x.slot::<Value>(EXTERNAL_USER)) {
            (Some(consumer), _) => Who::Consumer(consumer),
            (None, Some(user)) => Who::External(user),
            (None, None) => return Flow::Answer(Box::new(self.unknown.clone())),
        };
        let denied = self.deny.as_deref().is_some_and(|labels| self.has(&who, labels));
        let allowed = self.allow.as_deref().is_none_or(|labels| self.has(&who, labels));
        if allowed && !denied { Flow::Continue } else { Flow::Answer(Box::new(self.forbidden.clone())) }
    }
}

impl Acl {
    fn has(&self, who: &Who<'_>, labels: &[Label]) -> bool {
        labels.iter().any(|(label, values)| match who {
            Who::Consumer(consumer) => consumer.labels.get(&**label).is_some_and(|text| finds_in_text(text, values)),
            Who::External(user) => *label == self.key && self.field.any(user, &mut |value| self.parser.finds(value, values)),
        })
    }
}
