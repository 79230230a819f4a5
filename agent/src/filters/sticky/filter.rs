//! The filter of `sticky`.

use std::sync::Arc;

use serde_json::Value;

use super::super::set_cookie::SetCookie;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::Config;
use crate::exchange::Exchange;
use crate::http::ResponseHead;

struct Sticky {
    cookie: SetCookie,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(Sticky { cookie: config.cookie.compile(&format!("sticky {}", context.origin())) }))
}

impl Sticky {
    /// The token of the endpoint that the client was sent to before.
    fn pinned(&self, x: &Exchange) -> Option<u64> {
        let value = x.request.cookie(self.cookie.name()).filter(|value| value.len() == 16)?;
        u64::from_str_radix(value, 16).ok()
    }
}

impl Filter for Sticky {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::RESPONSE_HEAD)
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let pinned = self.pinned(x);
        x.note(std::ptr::from_ref(self).addr(), [u64::from(pinned.is_some()), pinned.unwrap_or_default(), 0, 0]);
        if pinned.is_some() {
            x.steer().preferred = pinned;
        }
        Flow::Continue
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let Some([had, token, ..]) = x.notes(std::ptr::from_ref(self).addr()).next() else { return };
        // Who was answered by the gateway, or in the end by nobody, has met no endpoint.
        let Some(attempt) = x.attempts.last().filter(|attempt| attempt.status.is_some()) else { return };
        let met = attempt.endpoint.token;
        if had == 0 || token != met {
            self.cookie.set(met, &mut head.fields);
        }
    }
}
