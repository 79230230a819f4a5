//! Edits of header fields of one route, gathered one after the other as our agents make them. It knows no plugin.
//!
//! Envoy makes the edits of a route in an order of its own, whatever the list says: it removes, looks which fields are absent, sets, and adds. So what is gathered
//! is kept such that this order has the outcome of ours.

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::config::route::v3 as wire;

/// Edits of requests, or of answers.
pub(super) struct Edits<'a> {
    made: &'a mut Vec<base::HeaderValueOption>,
    removed: &'a mut Vec<String>,
}

impl<'a> Edits<'a> {
    pub(super) fn of_requests(route: &'a mut wire::Route) -> Edits<'a> {
        Edits { made: &mut route.request_headers_to_add, removed: &mut route.request_headers_to_remove }
    }

    pub(super) fn of_answers(route: &'a mut wire::Route) -> Edits<'a> {
        Edits { made: &mut route.response_headers_to_add, removed: &mut route.response_headers_to_remove }
    }

    /// A field that is added: Envoy adds last, so that nothing else of its name has to go.
    pub(super) fn add(&mut self, option: base::HeaderValueOption) {
        self.made.push(option);
    }

    /// A field that is set, in the place of all that was made of it before.
    pub(super) fn set(&mut self, option: base::HeaderValueOption) {
        self.forget(name(&option));
        self.made.push(option);
    }

    /// A field that is removed, with all that was made of it before. What is made of it later stays, since Envoy removes first.
    pub(super) fn remove(&mut self, name: &str) {
        self.forget(name);
        self.removed.push(name.to_owned());
    }

    /// A field that is made where it is absent. Envoy looks for it before it sets and adds others, our agents find what was made before.
    pub(super) fn fill(&mut self, option: base::HeaderValueOption) -> Result<(), String> {
        let field = name(&option);
        if self.made.iter().any(|other| name(other).eq_ignore_ascii_case(field)) {
            return Err(format!("headers.{field}: is set or added before, where Envoy would not find it"));
        }
        self.made.push(option);
        Ok(())
    }

    fn forget(&mut self, field: &str) {
        self.made.retain(|option| !name(option).eq_ignore_ascii_case(field));
    }
}

fn name(option: &base::HeaderValueOption) -> &str {
    option.header.as_ref().map_or("", |header| &header.key)
}
