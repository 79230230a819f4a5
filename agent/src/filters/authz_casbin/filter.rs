//! The filter of `authz-casbin`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use heddle_xds::catalog::ConfigFault;
use serde_json::{Value, json};

use super::super::check::fault_at;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Metadata};
use super::policy::{MAX_POLICY, Policy};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::FieldName;

struct AuthzCasbin {
    username: FieldName,
    policy: Policy,
    denied: Answer,
    /// Second of the last complaint, Unix time.
    complained: AtomicU64,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let policy = match (&config.model, &config.policy, &config.model_path, &config.policy_path) {
        (Some(model), Some(policy), ..) => compile(model, policy, ["model", "policy"])?,
        (_, _, Some(model), Some(policy)) => {
            // Files may say something else by the next time.
            context.own();
            let paths = ["model_path", "policy_path"];
            compile(&text(model, paths[0])?, &text(policy, paths[1])?, paths)?
        }
        _ => {
            let missing = || vec![fault_at("", "without a model here, plugin_metadata/authz-casbin must hold one".to_owned())];
            let metadata: Metadata = check::read(context.metadata.ok_or_else(missing)?)?;
            compile(&metadata.model, &metadata.policy, ["", ""])?
        }
    };
    Ok(Arc::new(AuthzCasbin {
        username: FieldName::new(config.username),
        policy,
        denied: Answer::json(403, &json!({"message": "Access Denied"}), Reason::Plugin),
        complained: AtomicU64::new(0),
    }))
}

/// Compiles; a fault is put where the text at fault comes from.
fn compile(model: &str, policy: &str, [of_model, of_policy]: [&str; 2]) -> Result<Policy, Vec<ConfigFault>> {
    let place = |field| if field == "model" { of_model } else { of_policy };
    Policy::compile(model, policy).map_err(|(field, error)| vec![fault_at(place(field), error)])
}

/// The text of a file, not at any length.
fn text(path: &str, field: &str) -> Result<String, Vec<ConfigFault>> {
    let mut text = String::new();
    let opened = std::fs::File::open(Path::new(path));
    let read = opened.and_then(|file| file.take(MAX_POLICY as u64 + 1).read_to_string(&mut text));
    match read {
        Ok(bytes) if bytes <= MAX_POLICY => Ok(text),
        Ok(_) => Err(vec![fault_at(field, format!("{path} is longer than {MAX_POLICY} bytes"))]),
        Err(error) => Err(vec![fault_at(field, format!("{path}: {error}; the file must be on the host of the data plane"))]),
    }
}

impl Filter for AuthzCasbin {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let named = x.request.fields.get_named(&self.username);
        let subject = match named.map(std::str::from_utf8) {
            None => "anonymous",
            Some(Ok(name)) => name,
            Some(Err(_)) => return self.deny(),
        };
        match self.policy.allows(subject, &x.request.path, x.request.method.as_str()) {
            Ok(true) => Flow::Continue,
            Ok(false) => self.deny(),
            Err(error) => {
                let second = x.started_ms / 1000;
                if self.complained.swap(second, Ordering::Relaxed) != second {
                    tracing::warn!(plugin = "authz-casbin", %error, "the matcher of the model fails; the request is denied");
                }
                self.deny()
            }
        }
    }
}

impl AuthzCasbin {
    fn deny(&self) -> Flow {
        Flow::Answer(Box::new(self.denied.clone()))
    }
}
