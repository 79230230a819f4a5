//! The filter of `key-auth`.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::super::{BuildContext, Built, Filter, Flow, Phases, check, identity};
use super::config::Config;
use crate::exchange::{Answer, ConsumerInfo, Exchange, Reason};
use crate::http::FieldName;

struct KeyAuth {
    header: FieldName,
    query: Box<str>,
    hide: bool,
    anonymous: Option<Box<str>>,
    missing: Answer,
    invalid: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let challenge = format!("apikey realm=\"{}\"", config.realm);
    let refusal = |message: &str| {
        let mut answer = Answer::json(401, &json!({"message": message}), Reason::Plugin);
        answer.head.fields.append("WWW-Authenticate", &challenge);
        answer
    };
    Ok(Arc::new(KeyAuth {
        header: FieldName::new(config.header),
        query: config.query.into(),
        hide: config.hide_credentials,
        anonymous: config.anonymous_consumer.map(Into::into),
        missing: refusal("Missing API key in request"),
        invalid: refusal("Invalid API key in request"),
    }))
}

/// Where the key stood.
enum Place {
    Header,
    Query,
}

impl Filter for KeyAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let found = self.find(x).map(|(place, key)| (place, x.directory.find_credential("key-auth", &key)));
        match found {
            Some((place, Some(consumer))) => {
                if self.hide {
                    self.hide(x, &place);
                }
                identity::attach(x, consumer);
                Flow::Continue
            }
            Some((_, None)) => self.refuse(x, &self.invalid),
            None => self.refuse(x, &self.missing),
        }
    }
}

impl KeyAuth {
    fn find<'a>(&self, x: &'a Exchange) -> Option<(Place, Cow<'a, [u8]>)> {
        if let Some(key) = x.request.fields.get_named(&self.header) {
            return Some((Place::Header, Cow::Borrowed(key)));
        }
        let raw = x.request.query_arg(&self.query)?;
        // `+` is a blank in a query of the form type.
        let key = if raw.contains('+') {
            Cow::Owned(percent_decode_str(&raw.replace('+', " ")).collect())
        } else {
            Cow::from(percent_decode_str(raw))
        };
        Some((Place::Query, key))
    }

    fn hide(&self, x: &mut Exchange, place: &Place) {
        match place {
            Place::Header => _ = x.request.fields.remove_named(&self.header),
            Place::Query => {
                let query = x.request.query.take().unwrap_or_default();
                let others = query.split('&').filter(|pair| pair.split('=').next() != Some(&*self.query));
                let rest = others.collect::<Vec<_>>().join("&");
                x.request.query = (!rest.is_empty()).then_some(rest);
            }
        }
    }

    /// Goes on as the anonymous consumer where there is one.
    fn refuse(&self, x: &mut Exchange, refusal: &Answer) -> Flow {
        let anonymous: Option<Arc<ConsumerInfo>> = self.anonymous.as_deref().and_then(|name| x.directory.consumer(name));
        match anonymous {
            Some(consumer) => {
                identity::attach(x, consumer);
                Flow::Continue
            }
            None => Flow::Answer(Box::new(refusal.clone())),
        }
    }
}
