//! The filter of `key-auth`.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::super::identity::{self, Guests};
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::{Answer, Exchange};
use crate::http::FieldName;

struct KeyAuth {
    header: FieldName,
    query: Box<str>,
    hide: bool,
    guests: Guests,
    missing: Answer,
    invalid: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let challenge = format!("apikey realm=\"{}\"", config.realm);
    Ok(Arc::new(KeyAuth {
        header: FieldName::new(config.header),
        query: config.query.into(),
        hide: config.hide_credentials,
        guests: Guests::new(config.anonymous_consumer),
        missing: identity::challenge("Missing API key in request", &challenge),
        invalid: identity::challenge("Invalid API key in request", &challenge),
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
            Some((_, None)) => self.guests.admit_or(x, &self.invalid),
            None => self.guests.admit_or(x, &self.missing),
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
            Place::Query => identity::hide_query_arg(x, &self.query),
        }
    }
}
