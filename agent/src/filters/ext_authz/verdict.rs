//! What becomes of a request once the upstream has decided, as Envoy takes its answers. It asks nobody.

use bytes::Bytes;

use super::super::asking::stays;
use super::super::check::fault_at;
use super::config::Config;
use super::names::Matching;
use crate::exchange::{Answer, Exchange, Reason};
use crate::http::{FieldName, Fields, Name, ResponseHead};
use heddle_xds::catalog::ConfigFault;

/// Fields of a consent for the client, among the values of an exchange.
pub(super) const FOR_CLIENT: &str = "ext-authz";
/// By this field a consent names fields that are taken out of the request.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// What a request says that passes although nobody has decided.
const UNDECIDED: FieldName = FieldName::of("x-envoy-auth-failure-mode-allowed");

/// What is done with an answer, compiled.
pub(super) struct Verdict {
    upstream: Matching,
    upstream_added: Matching,
    client: Matching,
    pub(super) client_on_success: Matching,
    allows: bool,
    marks: bool,
    status_on_error: u16,
}

impl Verdict {
    /// Compiles it.
    pub(super) fn new(config: &Config) -> Result<Verdict, Vec<ConfigFault>> {
        let names = |field: &str, list: &[String]| Matching::new(list).map_err(|(_, error)| vec![fault_at(field, error)]);
        Ok(Verdict {
            upstream: names("allowed_upstream_headers", &config.allowed_upstream_headers)?,
            upstream_added: names("allowed_upstream_headers_to_append", &config.allowed_upstream_headers_to_append)?,
            client: names("allowed_client_headers", &config.allowed_client_headers)?,
            client_on_success: names("allowed_client_headers_on_success", &config.allowed_client_headers_on_success)?,
            allows: config.failure_mode_allow,
            marks: config.failure_mode_allow_header_add,
            status_on_error: config.status_on_error,
        })
    }

    /// What the client gets, where the request ends here: only 200 lets it pass, and an answer of 500 and above is none.
    pub(super) fn decide(&self, x: &mut Exchange, head: &ResponseHead, body: Bytes) -> Option<Answer> {
        match head.status {
            // Whoever stands before the service has refused, in words that a question gets with the media type of a call.
            200 if head.fails_call() => Some(self.refusal(&ResponseHead { status: 403, ..head.clone() }, body)),
            200 => {
                self.consent(x, &head.fields);
                None
            }
            500.. => self.unanswered(x),
            _ => Some(self.refusal(head, body)),
        }
    }

    /// Nobody has decided.
    pub(super) fn unanswered(&self, x: &mut Exchange) -> Option<Answer> {
        if !self.allows {
            return Some(Answer::empty(self.status_on_error, Reason::Plugin));
        }
        // Nobody vouches for what the client says in the fields that the upstream would have set.
        x.request.fields.retain(|field| stays(field.id) || !self.upstream.has(field.name));
        if self.marks {
            x.request.fields.set_named(&UNDECIDED, "true");
        }
        None
    }

    fn consent(&self, x: &mut Exchange, from: &Fields) {
        let to = &mut x.request.fields;
        for line in from.get_all(TO_REMOVE) {
            for name in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
                to.retain(|field| stays(field.id) || !field.name.eq_ignore_ascii_case(name));
            }
        }
        let mut for_client = Fields::new();
        for field in from.iter().filter(|field| !stays(field.id)) {
            if self.upstream.has(field.name) {
                // Of several lines the last one counts.
                to.set(field.name, field.value);
            } else if self.upstream_added.has(field.name) {
                append(to, field.name, field.value);
            }
            if self.client_on_success.has(field.name) {
                for_client.push(field.id, field.name, field.value);
            }
        }
        if !for_client.is_empty() {
            match x.slot_mut::<Fields>(FOR_CLIENT) {
                Some(before) => before.append_all(&for_client),
                None => x.put(FOR_CLIENT, for_client),
            }
        }
    }

    fn refusal(&self, from: &ResponseHead, body: Bytes) -> Answer {
        let mut head = ResponseHead::new(from.status);
        if !body.is_empty() {
            head.fields.append_known(Name::ContentType, "text/plain");
        }
        let always = |id: Name, name: &[u8]| id == Name::Location || name.eq_ignore_ascii_case(b"www-authenticate");
        let told = |id: Name, name: &[u8]| match name.eq_ignore_ascii_case(TO_REMOVE.as_bytes()) {
            // It is meant for us.
            true => false,
            false => self.client.is_empty() || always(id, name) || self.client.has(name),
        };
        let all: Vec<_> = from.fields.iter().filter(|field| !stays(field.id) && told(field.id, field.name)).collect();
        for field in &all {
            head.fields.remove(field.name);
        }
        for field in all {
            head.fields.push(field.id, field.name, field.value);
        }
        Answer { head, body, reason: Reason::Plugin }
    }
}

/// Adds a value to a field, on the line that is there.
fn append(fields: &mut Fields, name: &[u8], value: &[u8]) {
    let there: Vec<&[u8]> =
        fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value).collect();
    let all = [there, vec![value]].concat().join(&b","[..]);
    fields.set(name, all);
}
