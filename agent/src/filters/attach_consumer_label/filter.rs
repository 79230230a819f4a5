//! The filter of `attach-consumer-label`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::Exchange;
use crate::http::FieldName;

struct AttachConsumerLabel {
    headers: Box<[(FieldName, Box<str>)]>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let headers = config.headers.into_iter().map(|(name, label)| (FieldName::new(name), label.trim_start_matches('$').into()));
    Ok(Arc::new(AttachConsumerLabel { headers: headers.collect() }))
}

impl Filter for AttachConsumerLabel {
    fn phases(&self) -> Phases {
        Phases::BEFORE_PROXY
    }

    fn before_proxy(&self, x: &mut Exchange) -> Flow {
        for (name, label) in &self.headers {
            // Dropped even where nobody is known: who sends it himself must not be believed.
            x.request.fields.remove_named(name);
            if let Some(value) = x.consumer.as_deref().and_then(|consumer| consumer.labels.get(&**label)) {
                x.request.fields.append_named(name, &**value);
            }
        }
        Flow::Continue
    }
}
