//! The filter of `jwt-auth`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::identity::{self, EXTERNAL_USER, Guests};
use super::super::jose::{Algorithm, ClaimRules, Claims, JoseError, KeySet, Unverified};
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{Config, Known, TimeClaim, Verifier, public_algorithms};
use super::jwks::{Fetching, Library, Source, Unavailable};
use super::told::Told;
use crate::exchange::variable::{JWT_CLAIMS, JWT_PAYLOAD};
use crate::exchange::{Answer, ConsumerInfo, Exchange};
use crate::http::FieldName;
use crate::outbound::Outbound;

struct JwtAuth(Arc<Inner>);

struct Inner {
    header: Option<FieldName>,
    bearer_only: bool,
    query: Box<str>,
    cookie: Box<str>,
    hide: bool,
    key_claim: Box<str>,
    keep_payload: bool,
    told: Told,
    optional: bool,
    guests: Guests,
    /// Whose keys verify all tokens, where there is one.
    issuer: Option<Issuer>,
    consumer_required: bool,
    rules: ClaimRules,
    /// How keys of consumers are fetched; without URL.
    fetching: Fetching,
    library: Arc<Library>,
    outbound: Outbound,
    realm: Box<str>,
    missing: Answer,
    no_key: Answer,
    unknown: Answer,
    unavailable: Answer,
}

struct Issuer {
    keys: IssuerKeys,
    allowed: Box<[Algorithm]>,
}

/// Where the keys of an issuer are.
enum IssuerKeys {
    Published(Arc<Source>),
    Here(Arc<KeySet>),
}

/// Where the token stood.
#[derive(Clone, Copy)]
enum Place {
    Header,
    Query,
    Cookie,
}

/// A token on its way through the check.
struct Case {
    token: String,
    place: Place,
    consumer: Option<Arc<ConsumerInfo>>,
    /// Seconds that clocks may differ for this consumer.
    grace: u32,
}

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let boxed = |list: Option<Vec<String>>| list.unwrap_or_default().into_iter().map(String::into_boxed_str).collect();
    let library = context.keep.get_or("jwt-auth", Library::default);
    let fetching = Fetching { url: "".into(), ttl_s: config.jwks_ttl, timeout_ms: config.timeout, verify: config.ssl_verify };
    let keys = match (&config.jwks_url, &config.jwks) {
        (None, None) => None,
        (None, Some(set)) => {
            let keys = KeySet::of_json(set).map_err(|error| vec![check::fault_at("jwks", error.to_string())])?;
            Some(IssuerKeys::Here(Arc::new(keys)))
        }
        (Some(url), _) => {
            let fetching = Fetching { url: url.as_str().into(), ..fetching.clone() };
            let source =
                library.source(&fetching, context.outbound).map_err(|message| vec![check::fault_at("jwks_url", message)])?;
            Some(IssuerKeys::Published(source))
        }
    };
    let allowed = config.algorithms.map_or_else(public_algorithms, Vec::into_boxed_slice);
    let required = config.claims_to_verify.unwrap_or_default().into_iter().map(|claim| match claim {
        TimeClaim::Exp => "exp".into(),
        TimeClaim::Nbf => "nbf".into(),
    });
    let challenge = format!("Bearer realm=\"{}\"", config.realm);
    Ok(Arc::new(JwtAuth(Arc::new(Inner {
        header: (!config.header.is_empty()).then(|| FieldName::new(config.header)),
        bearer_only: config.bearer_only,
        query: config.query.into(),
        cookie: config.cookie.into(),
        hide: config.hide_credentials,
        key_claim: config.key_claim_name.into(),
        keep_payload: config.store_in_ctx,
        guests: Guests::new(config.anonymous_consumer),
        told: Told::new(config.payload_header, config.claim_headers),
        optional: config.optional,
        issuer: keys.map(|keys| Issuer { keys, allowed }),
        consumer_required: config.consumer_required,
        rules: ClaimRules {
            skew: config.clock_skew.into(),
            required: required.collect(),
            issuers: boxed(config.issuers),
            audiences: boxed(config.audiences),
            ..ClaimRules::default()
        },
        fetching,
        library,
        outbound: context.outbound.clone(),
        missing: identity::challenge("Missing JWT token in request", &challenge),
        no_key: identity::challenge("missing user key in JWT token", &challenge),
        unknown: identity::challenge("Invalid user key in JWT token", &challenge),
        unavailable: identity::refusal(503, "The keys that tokens are verified with cannot be fetched"),
        realm: config.realm.into(),
    }))))
}

impl Filter for JwtAuth {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        let inner = &self.0;
        inner.told.forget(&mut x.request.fields);
        let Some((place, token)) = inner.find(x) else {
            return if inner.optional { Flow::Continue } else { inner.guests.admit_or(x, &inner.missing) };
        };
        inner.begin(x, Case { token, place, consumer: None, grace: 0 })
    }
}

impl Inner {
    fn find(&self, x: &Exchange) -> Option<(Place, String)> {
        if let Some(value) = self.header.as_ref().and_then(|name| x.request.fields.get_named(name)) {
            let value = String::from_utf8_lossy(value);
            match identity::after_scheme(&value, "Bearer") {
                Some(token) => return Some((Place::Header, token.to_owned())),
                None if !self.bearer_only => return Some((Place::Header, value.into_owned())),
                None => {}
            }
        }
        if let Some(token) = Some(&self.query).filter(|name| !name.is_empty()).and_then(|name| x.request.query_arg(name)) {
            return Some((Place::Query, token.to_owned()));
        }
        Some(&self.cookie)
            .filter(|name| !name.is_empty())
            .and_then(|name| x.request.cookie(name))
            .map(|token| (Place::Cookie, token.to_owned()))
    }

    fn begin(self: &Arc<Self>, x: &mut Exchange, mut case: Case) -> Flow {
        let unverified = match Unverified::parse(&case.token) {
            Ok(unverified) => unverified,
            Err(error) => return self.refuse(x, &format!("JWT token invalid: {error}"), &error),
        };
        if let Some(issuer) = &self.issuer {
            let allowed = issuer.allowed.clone();
            return match &issuer.keys {
                IssuerKeys::Published(source) => self.verify_published(x, case, source.clone(), allowed),
                IssuerKeys::Here(_) if !allowed.contains(&unverified.algorithm()) => {
                    let error = JoseError::Algorithm(unverified.algorithm());
                    self.decide(x, case, Err(error))
                }
                IssuerKeys::Here(keys) => {
                    let verdict = unverified.verify_with(keys, &allowed);
                    self.decide(x, case, verdict)
                }
            };
        }
        let Some(Value::String(key)) = unverified.peek(&self.key_claim) else { return self.guests.admit_or(x, &self.no_key) };
        let found = x.directory.find_credential("jwt-auth", key.as_bytes());
        let Some(consumer) = found else { return self.guests.admit_or(x, &self.unknown) };
        let known = consumer.proof.clone().and_then(|proof| proof.downcast::<Known>().ok());
        case.consumer = Some(consumer);
        case.grace = known.as_deref().map_or(0, |known| known.grace);
        match known.as_deref().map(|known| &known.verifier) {
            Some(Verifier::Key(key, algorithm)) => {
                let verdict = unverified.verify(key, *algorithm);
                self.decide(x, case, verdict)
            }
            Some(Verifier::Published { url, allowed }) => {
                let fetching = Fetching { url: url.clone(), ..self.fetching.clone() };
                match self.library.source(&fetching, &self.outbound) {
                    Ok(source) => self.verify_published(x, case, source, allowed.clone()),
                    Err(_) => Flow::Answer(Box::new(self.unavailable.clone())),
                }
            }
            Some(Verifier::Nothing) | None => self.decide(x, case, Err(JoseError::NoKey)),
        }
    }

    /// Verifies with published keys, which may have to be fetched.
    fn verify_published(self: &Arc<Self>, x: &mut Exchange, case: Case, source: Arc<Source>, allowed: Box<[Algorithm]>) -> Flow {
        let now_ms = x.started_ms;
        let Ok(unverified) = Unverified::parse(&case.token) else { return self.guests.admit_or(x, &self.missing) };
        let (kid, algorithm) = (unverified.kid().map(str::to_owned), unverified.algorithm());
        if !allowed.contains(&algorithm) {
            // Not worth asking anybody.
            return self.decide(x, case, Err(JoseError::Algorithm(algorithm)));
        }
        let suits = move |keys: &KeySet| keys.has(kid.as_deref(), algorithm);
        if let Some(keys) = source.at_hand(now_ms, &suits) {
            let verdict = unverified.verify_with(&keys, &allowed);
            return self.decide(x, case, verdict);
        }
        let inner = self.clone();
        Flow::Wait(Box::pin(async move {
            let keys = source.keys(now_ms, suits).await;
            Box::new(move |x: &mut Exchange| match keys {
                Ok(keys) => {
                    let verdict = Unverified::parse(&case.token).and_then(|token| token.verify_with(&keys, &allowed));
                    inner.decide(x, case, verdict)
                }
                Err(Unavailable) => Flow::Answer(Box::new(inner.unavailable.clone())),
            }) as Resume
        }))
    }

    fn decide(&self, x: &mut Exchange, mut case: Case, verdict: Result<Claims, JoseError>) -> Flow {
        let judged = verdict.and_then(|claims| self.judge(&claims, case.grace, x.started_ms).map(|()| claims));
        let claims = match judged {
            Ok(claims) => claims,
            Err(error) => return self.refuse(x, "failed to verify jwt", &error),
        };
        if case.consumer.is_none() {
            let key = claims.text(&self.key_claim);
            case.consumer = key.and_then(|key| x.directory.find_credential("jwt-auth", key.as_bytes()));
            if case.consumer.is_none() && self.consumer_required {
                let refusal = if key.is_some() { &self.unknown } else { &self.no_key };
                return self.guests.admit_or(x, refusal);
            }
        }
        if self.hide {
            self.hide(x, case.place);
        }
        let claims = claims.into_map();
        self.told.tell(&mut x.request.fields, &case.token, &claims);
        self.accept(x, case.consumer, claims);
        Flow::Continue
    }

    fn judge(&self, claims: &Claims, grace: u32, now_ms: u64) -> Result<(), JoseError> {
        let now = now_ms / 1_000;
        if u64::from(grace) <= self.rules.skew {
            return Ok(claims.check(&self.rules, now)?);
        }
        Ok(claims.check(&ClaimRules { skew: grace.into(), ..self.rules.clone() }, now)?)
    }

    fn accept(&self, x: &mut Exchange, consumer: Option<Arc<ConsumerInfo>>, claims: Map<String, Value>) {
        if self.keep_payload {
            x.put(JWT_PAYLOAD, serde_json::to_string(&claims).unwrap_or_default());
        }
        match consumer {
            Some(consumer) => identity::attach(x, consumer),
            None => {
                identity::disown(x);
                x.put(EXTERNAL_USER, Value::Object(claims.clone()));
            }
        }
        x.put(JWT_CLAIMS, claims);
    }

    fn hide(&self, x: &mut Exchange, place: Place) {
        match place {
            Place::Header => _ = self.header.as_ref().map(|name| x.request.fields.remove_named(name)),
            Place::Query => identity::hide_query_arg(x, &self.query),
            Place::Cookie => identity::hide_cookie(x, &self.cookie),
        }
    }

    /// Refuses a token and says why, as RFC 6750 section 3 has it.
    fn refuse(&self, x: &mut Exchange, message: &str, error: &JoseError) -> Flow {
        let why = error.to_string().replace(['"', '\\'], "'");
        let challenge = format!("Bearer realm=\"{}\", error=\"invalid_token\", error_description=\"{why}\"", self.realm);
        self.guests.admit_or(x, &identity::challenge(message, &challenge))
    }
}
