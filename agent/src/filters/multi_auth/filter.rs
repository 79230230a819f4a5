//! The filter of `multi-auth`.

use std::sync::Arc;

use serde_json::Value;

use super::super::identity::{self, Guests};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{self, Config};
use crate::exchange::{Answer, Exchange};

struct MultiAuth(Arc<Inner>);

struct Inner {
    plugins: Box<[Arc<dyn Filter>]>,
    guests: Guests,
    refusal: Answer,
}

/// How far a request has come.
struct Progress {
    inner: Arc<Inner>,
    /// Number of the plugin that is asked.
    at: usize,
    /// What those before have challenged the client to do.
    challenges: Vec<Vec<u8>>,
    /// What the first of them has answered that could not tell, for example because keys cannot be fetched.
    unsure: Option<Box<Answer>>,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let mut plugins = Vec::new();
    let mut anonymous = None;
    for (name, config, path) in config.plugins() {
        let mut config = config.clone();
        // One who goes on as anybody would keep the others from being asked.
        let own = config.as_object_mut().and_then(|fields| fields.remove("anonymous_consumer"));
        anonymous = anonymous.or(own.as_ref().and_then(Value::as_str).map(str::to_owned));
        let Some(plugin) = config::find(name) else {
            return Err(vec![check::fault_at(&path, format!("expected an authentication plugin, got [{name}]"))]);
        };
        plugins.push((plugin.build)(&config, context)?);
    }
    Ok(Arc::new(MultiAuth(Arc::new(Inner {
        plugins: plugins.into(),
        guests: Guests::new(anonymous),
        refusal: identity::refusal(401, "Authorization Failed"),
    }))))
}

impl Filter for MultiAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        Progress { inner: self.0.clone(), at: 0, challenges: Vec::new(), unsure: None }.ask(x)
    }
}

impl Progress {
    /// Asks the next plugin.
    fn ask(self, x: &mut Exchange) -> Flow {
        match self.inner.plugins.get(self.at).cloned() {
            Some(plugin) => {
                let flow = plugin.rewrite(x);
                self.after(flow, x)
            }
            None => {
                if let Some(unsure) = self.unsure {
                    return Flow::Answer(unsure);
                }
                let mut refusal = self.inner.refusal.clone();
                for challenge in &self.challenges {
                    refusal.head.fields.append("WWW-Authenticate", challenge);
                }
                self.inner.guests.admit_or(x, &refusal)
            }
        }
    }

    /// Goes on with what a plugin says, now or after it has waited.
    fn after(mut self, flow: Flow, x: &mut Exchange) -> Flow {
        match flow {
            Flow::Continue => Flow::Continue,
            Flow::Answer(answer) => {
                let challenges = answer.head.fields.get_all("www-authenticate");
                self.challenges.extend(challenges.map(<[u8]>::to_vec));
                self.at += 1;
                if answer.head.status >= 500 {
                    self.unsure.get_or_insert(answer);
                }
                self.ask(x)
            }
            Flow::Wait(future) => Flow::Wait(Box::pin(async move {
                let resume = future.await;
                Box::new(move |x: &mut Exchange| {
                    let flow = resume(x);
                    self.after(flow, x)
                }) as Resume
            })),
            Flow::Body { limit, then } => Flow::Body {
                limit,
                then: Box::new(move |x, bytes| {
                    let flow = then(x, bytes);
                    self.after(flow, x)
                }),
            },
        }
    }
}
