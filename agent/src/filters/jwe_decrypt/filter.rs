//! The filter of `jwe-decrypt`.

use std::sync::Arc;

use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check, identity};
use super::config::{Config, Secret};
use super::token::Token;
use crate::exchange::{Answer, Exchange};
use crate::http::FieldName;

struct JweDecrypt {
    header: FieldName,
    forward: FieldName,
    strict: bool,
    missing: Answer,
    invalid: Answer,
    no_kid: Answer,
    unknown: Answer,
    failed: Answer,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(JweDecrypt {
        header: FieldName::new(config.header),
        forward: FieldName::new(config.forward_header),
        strict: config.strict,
        missing: identity::refusal(403, "missing JWE token in request"),
        invalid: identity::refusal(400, "JWE token invalid"),
        no_kid: identity::refusal(400, "missing kid in JWE token"),
        unknown: identity::refusal(400, "invalid kid in JWE token"),
        failed: identity::refusal(400, "failed to decrypt JWE token"),
    }))
}

impl Filter for JweDecrypt {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        if !self.strict && x.request.fields.get_named(&self.header).is_none() {
            // What stands there was in no token.
            x.request.fields.remove_named(&self.forward);
            return Flow::Continue;
        }
        match self.decrypt(x) {
            Ok(content) => {
                x.request.fields.set_named(&self.forward, content);
                Flow::Continue
            }
            Err(refusal) => Flow::Answer(Box::new(refusal.clone())),
        }
    }
}

impl JweDecrypt {
    fn decrypt(&self, x: &Exchange) -> Result<Vec<u8>, &Answer> {
        let value = x.request.fields.get_named(&self.header).ok_or(&self.missing)?;
        let value = std::str::from_utf8(value).map_err(|_| &self.invalid)?;
        let text = identity::after_scheme(value, "Bearer").unwrap_or(value);
        let token = Token::parse(text).ok_or(&self.invalid)?;
        let kid = token.kid.as_deref().ok_or(&self.no_kid)?;
        let consumer = x.directory.find_credential("jwe-decrypt", kid.as_bytes()).ok_or(&self.unknown)?;
        let secret = consumer.proof.clone().and_then(|proof| proof.downcast::<Secret>().ok());
        let content = secret.as_deref().and_then(|secret| token.decrypt(secret.0.as_ref()?)).ok_or(&self.failed)?;
        // It becomes a field, so it must be able to stand in one.
        if content.iter().any(u8::is_ascii_control) { Err(&self.failed) } else { Ok(content) }
    }
}
