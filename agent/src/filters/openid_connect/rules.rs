//! What claims must say before a request may go on: scopes, audience, schema. It knows not how they were verified.

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value};

use super::config::{AudienceRule, Config};

/// Most bytes that a pattern of a schema may take when it is compiled.
const PATTERN_SIZE: usize = 256 * 1024;

/// What claims must say.
pub(crate) struct Rules {
    scopes: Vec<String>,
    audience: AudienceRule,
    client_id: String,
    schema: Option<Validator>,
}

/// Why claims are not enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lacking {
    /// A scope is missing.
    #[error("required scopes {0} not present")]
    Scopes(String),
    /// The audience is missing.
    #[error("required audience claim not present")]
    NoAudience,
    /// It is for others.
    #[error("mismatched audience")]
    OtherAudience,
    /// The schema does not hold.
    #[error("the claims are not as claim_schema demands")]
    Schema,
}

/// Compiles a schema. Its patterns run in linear time, and it may refer to nothing outside.
///
/// # Errors
/// In words.
pub(crate) fn compile_schema(schema: &Map<String, Value>) -> Result<Validator, String> {
    let patterns = PatternOptions::regex().size_limit(PATTERN_SIZE);
    let options = jsonschema::options().with_pattern_options(patterns).offline();
    options.build(&Value::Object(schema.clone())).map_err(|error| format!("expected a JSON Schema: {error}"))
}

impl Rules {
    /// Those of a configuration.
    ///
    /// # Errors
    /// What is wrong with its schema.
    pub(crate) fn new(config: &Config) -> Result<Rules, String> {
        Ok(Rules {
            scopes: config.required_scopes.clone(),
            audience: config.claim_validator.audience.clone(),
            client_id: config.client_id.clone(),
            schema: config.claim_schema.as_ref().map(compile_schema).transpose()?,
        })
    }

    /// Judges the scopes, separated by blanks.
    ///
    /// # Errors
    /// One is missing.
    pub(crate) fn check_scopes(&self, granted: &str) -> Result<(), Lacking> {
        if self.scopes.iter().all(|scope| granted.split(' ').any(|one| one == scope)) {
            return Ok(());
        }
        Err(Lacking::Scopes(self.scopes.join(", ")))
    }

    /// Judges the claims of a bearer token.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub(crate) fn check_bearer(&self, claims: &Map<String, Value>) -> Result<(), Lacking> {
        self.check_scopes(&scopes_of(claims))?;
        match claims.get(&self.audience.claim) {
            None | Some(Value::Null) if self.audience.required => return Err(Lacking::NoAudience),
            Some(audience) if self.audience.match_with_client_id && !names(audience, &self.client_id) => {
                return Err(Lacking::OtherAudience);
            }
            _ => {}
        }
        self.check_schema(|| Value::Object(claims.clone()))
    }

    /// Judges what was learnt against the schema, where there is one.
    ///
    /// # Errors
    /// It does not hold.
    pub(crate) fn check_schema(&self, learnt: impl FnOnce() -> Value) -> Result<(), Lacking> {
        match &self.schema {
            Some(schema) if !schema.is_valid(&learnt()) => Err(Lacking::Schema),
            _ => Ok(()),
        }
    }
}

/// The scopes of a token: `scope` (RFC 8693 section 4.2), or `scp` as some providers write it; as text or as a list.
fn scopes_of(claims: &Map<String, Value>) -> String {
    match claims.get("scope").or_else(|| claims.get("scp")) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        _ => String::new(),
    }
}

fn names(audience: &Value, client_id: &str) -> bool {
    match audience {
        Value::String(one) => one == client_id,
        Value::Array(all) => all.iter().any(|one| one.as_str() == Some(client_id)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn rules(more: Value) -> Rules {
        let mut config = json!({"client_id": "app", "discovery": "https://p"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Rules::new(&serde_json::from_value(config).unwrap()).unwrap()
    }

    fn judge(rules: &Rules, claims: Value) -> Result<(), Lacking> {
        rules.check_bearer(claims.as_object().unwrap())
    }

    #[test]
    fn all_scopes_must_be_there() {
        let rules = rules(json!({"required_scopes": ["a", "b"]}));
        for good in [json!({"scope": "c b a"}), json!({"scope": ["a", "b"]}), json!({"scp": "a b"})] {
            assert_eq!(judge(&rules, good), Ok(()));
        }
        for bad in [json!({}), json!({"scope": "a"}), json!({"scope": "ab"}), json!({"scope": 1})] {
            assert_eq!(judge(&rules, bad).unwrap_err().to_string(), "required scopes a, b not present");
        }
    }

    #[test]
    fn the_audience_may_be_demanded() {
        let rules =
            rules(json!({"claim_validator": {"audience": {"claim": "who", "required": true, "match_with_client_id": true}}}));
        assert_eq!(judge(&rules, json!({"who": "app"})), Ok(()));
        assert_eq!(judge(&rules, json!({"who": ["x", "app"]})), Ok(()));
        assert_eq!(judge(&rules, json!({"aud": "app"})), Err(Lacking::NoAudience));
        for other in [json!({"who": "x"}), json!({"who": ["x"]}), json!({"who": 1})] {
            assert_eq!(judge(&rules, other), Err(Lacking::OtherAudience));
        }
    }

    #[test]
    fn a_schema_may_be_demanded() {
        let rules = rules(
            json!({"claim_schema": {"type": "object", "required": ["email"], "properties": {"email": {"pattern": "@a$"}}}}),
        );
        assert_eq!(judge(&rules, json!({"email": "u@a"})), Ok(()));
        assert_eq!(judge(&rules, json!({"email": "u@b"})), Err(Lacking::Schema));
        assert_eq!(judge(&rules, json!({})), Err(Lacking::Schema));
        for wrong in [json!({"type": 5}), json!({"$ref": "https://elsewhere/x"}), json!({"pattern": "(a)\\1"})] {
            assert!(compile_schema(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }
}
