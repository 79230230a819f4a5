//! The filter of `cors`.

use std::sync::Arc;

use heddle_xds::catalog::ConfigFault;
use regex::Regex;
use serde_json::Value;

use super::super::fields::vary_by;
use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Metadata};
use super::origins::Origins;
use crate::exchange::{Answer, Exchange, Reason, pattern};
use crate::http::{FieldName, Fields, Method, Name, ResponseHead};

struct Cors {
    origins: Origins,
    timing: Option<Origins>,
    /// What those are told who are allowed; with the origin where that is always the same.
    told: Fields,
    /// Whether the origin depends on who asks.
    tells_origin: bool,
    /// Whether the fields are allowed that the browser asks for.
    repeats_headers: bool,
    /// Whether scripts may read each field that a response has.
    exposes_each: bool,
    only_preflights: bool,
    /// Whether caches must keep the answers to different origins apart.
    varies: bool,
    /// Whether what is told depends on who asks.
    remembers: bool,
}

const TIMING_ALLOW_ORIGIN: FieldName = FieldName::of("Timing-Allow-Origin");
const ALLOW_ORIGIN: FieldName = FieldName::of("Access-Control-Allow-Origin");
const ALLOW_METHODS: FieldName = FieldName::of("Access-Control-Allow-Methods");
const MAX_AGE: FieldName = FieldName::of("Access-Control-Max-Age");
const EXPOSE_HEADERS: FieldName = FieldName::of("Access-Control-Expose-Headers");
const ALLOW_HEADERS: FieldName = FieldName::of("Access-Control-Allow-Headers");
const ALLOW_CREDENTIALS: FieldName = FieldName::of("Access-Control-Allow-Credentials");
const REQUEST_HEADERS: FieldName = FieldName::of("Access-Control-Request-Headers");

const REQUEST_METHOD: FieldName = FieldName::of("Access-Control-Request-Method");

/// Key of the slot for [`Asking`].
const SLOT: &str = "cors";

/// The origin that asks, where it stands in no list: what stands in one is noted by its number, which costs no allocation.
struct Asking(Box<str>);

/// Allows each single thing by its name.
const EACH: &str = "**";
/// What `**` stands for among methods.
const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let names = config.allow_origins_by_metadata.iter().flatten();
    let further = names.filter_map(|name| metadata.allow_origins.get(name)).flat_map(|list| list.split(','));
    let further = further.map(|origin| origin.trim().into()).collect();
    let patterns = compile("allow_origins_by_regex", config.allow_origins_by_regex.as_deref())?;
    let timing_patterns = compile("timing_allow_origins_by_regex", config.timing_allow_origins_by_regex.as_deref())?;
    let timing = (config.timing_allow_origins.is_some() || !timing_patterns.is_empty())
        .then(|| Origins::new(config.timing_allow_origins.as_deref(), timing_patterns, Vec::new()));
    let origins = Origins::new(config.origins(), patterns, further);
    let varies = [Some(&origins), timing.as_ref()].into_iter().flatten().any(Origins::depends_on_origin);
    let differs = |timing: &Origins| timing.always().is_none();
    let remembers = differs(&origins) || timing.as_ref().is_some_and(differs);
    let told = told(&config, origins.always());
    Ok(Arc::new(Cors {
        tells_origin: origins.always().is_none(),
        origins,
        timing,
        told,
        repeats_headers: config.allow_headers == EACH,
        exposes_each: config.expose_headers == EACH,
        only_preflights: config.only_preflights,
        varies,
        remembers,
    }))
}

/// The fields that are the same for all who are allowed.
fn told(config: &Config, origin: Option<&str>) -> Fields {
    let mut told = Fields::new();
    if let Some(origin) = origin {
        told.append_named(&ALLOW_ORIGIN, origin);
    }
    if !config.allow_methods.is_empty() {
        told.append_named(&ALLOW_METHODS, if config.allow_methods == EACH { ALL_METHODS } else { &config.allow_methods });
    }
    told.append_named(&MAX_AGE, config.max_age.to_string());
    if !config.expose_headers.is_empty() && config.expose_headers != EACH {
        told.append_named(&EXPOSE_HEADERS, &config.expose_headers);
    }
    if !config.allow_headers.is_empty() && config.allow_headers != EACH {
        told.append_named(&ALLOW_HEADERS, &config.allow_headers);
    }
    if config.allow_credential {
        told.append_named(&ALLOW_CREDENTIALS, "true");
    }
    told.laid_out()
}

fn compile(field: &str, patterns: Option<&[String]>) -> Result<Vec<Regex>, Vec<ConfigFault>> {
    let one = |text: &String| pattern::compile(text, "").map_err(|error| vec![check::fault_at(field, error)]);
    patterns.unwrap_or_default().iter().map(one).collect()
}

impl Filter for Cors {
    fn phases(&self) -> Phases {
        Phases::REWRITE.and(Phases::RESPONSE_HEAD)
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        // What comes later may take the origin off what goes upstream.
        if self.remembers
            && let Some(origin) = x.request.fields.get_known(Name::Origin).and_then(|origin| std::str::from_utf8(origin).ok())
        {
            match self.origins.place(origin) {
                Some(place) => x.note(self.address(), [place as u64, 0, 0, 0]),
                None => {
                    let origin = Asking(origin.into());
                    x.put(SLOT, origin);
                }
            }
        }
        if x.request.method == Method::Options && (!self.only_preflights || is_preflight(&x.request.fields)) {
            Flow::Answer(Box::new(Answer::empty(200, Reason::Answered)))
        } else {
            Flow::Continue
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let noted = || x.notes(self.address()).next().and_then(|[place, ..]| self.origins.written(place as usize));
        let asking = || noted().or_else(|| x.slot::<Asking>(SLOT).map(|asking| &*asking.0));
        let fields = &mut head.fields;
        if self.varies {
            vary_by(fields, "Origin");
        }
        if let Some(origin) = self.timing.as_ref().and_then(|timing| timing.allowed(asking())) {
            fields.set_named(&TIMING_ALLOW_ORIGIN, origin);
        }
        if self.tells_origin {
            let Some(origin) = self.origins.allowed(asking()) else { return };
            fields.set_named(&ALLOW_ORIGIN, origin);
        }
        if self.exposes_each {
            let each = names(fields);
            fields.set_named(&EXPOSE_HEADERS, each);
        }
        fields.set_all(&self.told);
        if self.repeats_headers
            && let Some(asked) = x.request.fields.get_named(&REQUEST_HEADERS)
        {
            fields.set_named(&ALLOW_HEADERS, asked);
        }
    }
}

impl Cors {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Whether a browser asks what it may do (Fetch standard, "CORS-preflight request").
fn is_preflight(fields: &Fields) -> bool {
    fields.contains_known(Name::Origin) && fields.get_named(&REQUEST_METHOD).is_some()
}

/// The names of all fields of a response that scripts can be shown, with commas between.
fn names(fields: &Fields) -> Vec<u8> {
    let mut names = Vec::new();
    for field in fields.iter().filter(|field| !field.is("set-cookie")) {
        if !names.is_empty() {
            names.push(b',');
        }
        names.extend_from_slice(field.name);
    }
    names
}
