//! The filter of `request-id`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::algorithm::Maker;
use super::config::Config;
use crate::exchange::Exchange;
use crate::exchange::variable::REQUEST_ID;
use crate::http::{FieldName, Name, ResponseHead};

struct RequestId {
    header: FieldName,
    in_response: bool,
    maker: Maker,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(RequestId {
        maker: Maker::new(&config),
        in_response: config.include_in_response,
        header: FieldName::new(config.header_name),
    }))
}

impl Filter for RequestId {
    fn phases(&self) -> Phases {
        if self.in_response { Phases::REWRITE.and(Phases::RESPONSE_HEAD) } else { Phases::REWRITE }
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if x.request.fields.get_named(&self.header).is_none_or(<[u8]>::is_empty) {
            self.maker.make(&mut x.dice, x.started_ms, |id| x.request.fields.set_own_named(&self.header, id));
        }
        // The usual one is where the variable `request_id` looks by itself.
        if self.header.id() != Name::XRequestId {
            let id = x.request.fields.get_named(&self.header).map(|id| String::from_utf8_lossy(id).into_owned());
            x.put(REQUEST_ID, id.unwrap_or_default());
        }
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        if let Some(id) = x.request.fields.get_named(&self.header) {
            head.fields.set_named(&self.header, id);
        }
    }
}
