//! The filter of `cors`.

use std::sync::Arc;

use heddle_xds::catalog::ConfigFault;
use regex::Regex;
use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Metadata};
use super::origins::Origins;
use crate::exchange::{Answer, Exchange, Reason, pattern};
use crate::http::{Fields, Method, Name, ResponseHead};

struct Cors {
    origins: Origins,
    timing: Option<Origins>,
    methods: Box<str>,
    /// `None` repeats what the browser asks for.
    headers: Option<Box<str>>,
    expose: Option<Box<str>>,
    max_age: Box<str>,
    credentials: bool,
}

/// What `**` stands for among methods.
const ALL_METHODS: &str = "GET,POST,PUT,DELETE,PATCH,HEAD,OPTIONS,CONNECT,TRACE";

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let names = config.allow_origins_by_metadata.iter().flatten();
    let further = names.filter_map(|name| metadata.allow_origins.get(name)).flat_map(|list| list.split(','));
    let further = further.map(|origin| origin.trim().into()).collect();
    let patterns = compile("allow_origins_by_regex", config.allow_origins_by_regex.as_deref())?;
    // A pattern list takes the place of the default `*`, not of what was written.
    let written = value.get("allow_origins").is_some() || (patterns.is_empty() && config.allow_origins_by_metadata.is_none());
    let timing_patterns = compile("timing_allow_origins_by_regex", config.timing_allow_origins_by_regex.as_deref())?;
    let timing = (config.timing_allow_origins.is_some() || !timing_patterns.is_empty())
        .then(|| Origins::new(config.timing_allow_origins.as_deref(), timing_patterns, Vec::new()));
    Ok(Arc::new(Cors {
        origins: Origins::new(written.then_some(&*config.allow_origins), patterns, further),
        timing,
        methods: if config.allow_methods == "**" { ALL_METHODS.into() } else { config.allow_methods.into() },
        headers: (config.allow_headers != "**").then(|| config.allow_headers.into()),
        expose: (!config.expose_headers.is_empty()).then(|| config.expose_headers.into()),
        max_age: config.max_age.to_string().into(),
        credentials: config.allow_credential,
    }))
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
        if x.request.method == Method::Options {
            Flow::Answer(Box::new(Answer::empty(200, Reason::Answered)))
        } else {
            Flow::Continue
        }
    }

    fn response_head(&self, x: &mut Exchange, head: &mut ResponseHead) {
        let asking = x.request.fields.get_known(Name::Origin).and_then(|origin| std::str::from_utf8(origin).ok());
        let fields = &mut head.fields;
        let depends = |origins: &Origins| origins.depends_on_origin();
        if depends(&self.origins) || self.timing.as_ref().is_some_and(depends) {
            vary_by_origin(fields);
        }
        if let Some(origin) = self.timing.as_ref().and_then(|timing| timing.allowed(asking)) {
            fields.set("Timing-Allow-Origin", origin);
        }
        let Some(origin) = self.origins.allowed(asking) else { return };
        fields.set("Access-Control-Allow-Origin", origin);
        fields.set("Access-Control-Allow-Methods", &*self.methods);
        fields.set("Access-Control-Max-Age", &*self.max_age);
        if let Some(expose) = &self.expose {
            fields.set("Access-Control-Expose-Headers", &**expose);
        }
        match &self.headers {
            Some(list) => fields.set("Access-Control-Allow-Headers", &**list),
            None => {
                if let Some(asked) = x.request.fields.get("access-control-request-headers") {
                    fields.set("Access-Control-Allow-Headers", asked);
                }
            }
        }
        if self.credentials {
            fields.set("Access-Control-Allow-Credentials", "true");
        }
    }
}

/// Adds `Origin` to `Vary` unless it is there (RFC 9110 section 12.5.5).
fn vary_by_origin(fields: &mut Fields) {
    let member = |value: &[u8]| {
        value.split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"origin")
        })
    };
    let present = fields.get_all("vary").any(member);
    if !present {
        fields.append("Vary", "Origin");
    }
}
