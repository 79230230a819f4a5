//! The filter of `ldap-auth`.

use std::sync::Arc;
use std::time::Duration;

use heddle_node::clock;
use serde_json::{Value, json};

use super::super::asking::Complaints;
use super::super::check::fault_at;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check, identity};
use super::basic;
use super::cache::Cache;
use super::config::Config;
use super::directory::{Directory, Proof};
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::Name;

struct LdapAuth {
    inner: Arc<Inner>,
}

/// What outlives the call of a phase, because an answer is waited for.
struct Inner {
    directory: Directory,
    cache: Option<(Arc<Cache>, Duration)>,
    hide: bool,
    missing: Answer,
    malformed: Answer,
    wrong: Answer,
    unavailable: Answer,
    complaints: Complaints,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let key = format!("ldap-auth/{}", config.ldap_uri);
    let connections = context.keep.get_or(&key, Default::default);
    let directory = Directory::new(&config, connections).map_err(|error| vec![fault_at("ldap_uri", error)])?;
    let challenge = format!("Basic realm=\"{}\"", config.realm);
    let refusal = |status: u16, message: &str| {
        let mut answer = Answer::json(status, &json!({ "message": message }), Reason::Plugin);
        if status == 401 {
            answer.head.fields.append("WWW-Authenticate", &challenge);
        }
        answer
    };
    // A proof holds for one server and one kind of entry; another configuration begins anew.
    let kept = format!("ldap-auth/{}/{}/{}", config.ldap_uri, config.uid, config.base_dn);
    let cache = (config.cache_ttl > 0).then(|| {
        let mut dice = fastrand::Rng::new();
        (context.keep.get_or(&kept, || Cache::new(&mut || dice.u8(..))), Duration::from_secs(config.cache_ttl))
    });
    let inner = Inner {
        directory,
        cache,
        hide: config.hide_credentials,
        missing: refusal(401, "Missing authorization in request"),
        malformed: refusal(401, "Invalid authorization in request"),
        wrong: refusal(401, "Invalid user authorization"),
        unavailable: refusal(config.status_on_error, "Invalid user authorization"),
        complaints: Complaints::default(),
    };
    Ok(Arc::new(LdapAuth { inner: Arc::new(inner) }))
}

impl Filter for LdapAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = self.inner.clone();
        let Some(value) = x.request.fields.get_known(Name::Authorization) else { return refuse(&inner.missing) };
        let Some((name, password)) = basic::parse(value) else { return refuse(&inner.malformed) };
        let dn = inner.directory.dn(&name);
        if inner.is_proven(&dn, &password) {
            return inner.identify(x, &dn);
        }
        Flow::Wait(Box::pin(async move {
            let proof = inner.directory.prove(&dn, &password).await;
            Box::new(move |x: &mut Exchange| inner.decide(x, &dn, &password, proof)) as Resume
        }))
    }
}

fn refuse(answer: &Answer) -> Flow {
    Flow::Answer(Box::new(answer.clone()))
}

impl Inner {
    fn is_proven(&self, dn: &str, password: &str) -> bool {
        self.cache.as_ref().is_some_and(|(cache, _)| cache.holds(dn, password, clock::now()))
    }

    fn decide(&self, x: &mut Exchange, dn: &str, password: &str, proof: Result<Proof, String>) -> Flow {
        match proof {
            Ok(Proof::Right) => {
                if let Some((cache, ttl)) = &self.cache {
                    cache.keep(dn, password, *ttl, clock::now());
                }
                self.identify(x, dn)
            }
            Ok(Proof::Wrong) => refuse(&self.wrong),
            Err(error) => {
                if self.complaints.may_speak() {
                    tracing::warn!(plugin = "ldap-auth", server = self.directory.url(), %error, "the directory server gives no usable answer");
                }
                refuse(&self.unavailable)
            }
        }
    }

    fn identify(&self, x: &mut Exchange, dn: &str) -> Flow {
        let Some(consumer) = x.directory.find_credential("ldap-auth", dn.as_bytes()) else { return refuse(&self.wrong) };
        if self.hide {
            x.request.fields.remove_known(Name::Authorization);
        }
        identity::attach(x, consumer);
        Flow::Continue
    }
}
