//! Configuration of `consumer-restriction`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route, service, consumer group or consumer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// What the lists name: `consumer_name`, `consumer_group_id`, `service_id` or `route_id`.
    #[serde(default, rename = "type")]
    pub kind: Kind,
    /// Those who may come in; all others may not.
    #[schemars(length(min = 1))]
    pub whitelist: Option<Vec<String>>,
    /// Those who may not come in; looked at before `whitelist`.
    #[schemars(length(min = 1))]
    pub blacklist: Option<Vec<String>>,
    /// The methods that some may use; those who are not named may use all, and who is in `whitelist` too.
    #[schemars(length(min = 1))]
    pub allowed_by_methods: Option<Vec<AllowedMethods>>,
    /// Status of refusals.
    #[serde(default = "rejected_code")]
    #[schemars(range(min = 200, max = 599))]
    pub rejected_code: u16,
    /// `message` of refusals; by default it says what is forbidden.
    pub rejected_msg: Option<String>,
}

/// What the lists name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Names of consumers.
    #[default]
    ConsumerName,
    /// Ids of consumer groups.
    ConsumerGroupId,
    /// Ids of services.
    ServiceId,
    /// Ids of routes.
    RouteId,
}

/// The methods that one may use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowedMethods {
    /// Who: a name or id, as `type` says.
    pub user: String,
    /// The methods.
    #[schemars(length(min = 1))]
    pub methods: Vec<String>,
}

fn rejected_code() -> u16 {
    403
}

impl Kind {
    /// As configurations write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::ConsumerName => "consumer_name",
            Kind::ConsumerGroupId => "consumer_group_id",
            Kind::ServiceId => "service_id",
            Kind::RouteId => "route_id",
        }
    }
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if self.whitelist.is_none() && self.blacklist.is_none() && self.allowed_by_methods.is_none() {
            faults.add("", "expected whitelist, blacklist or allowed_by_methods");
        }
        let lists = [("whitelist", &self.whitelist), ("blacklist", &self.blacklist)];
        for (name, _) in lists.iter().filter(|(_, list)| list.as_ref().is_some_and(Vec::is_empty)) {
            faults.add(*name, "expect array to have at least 1 items");
        }
        if self.allowed_by_methods.as_ref().is_some_and(Vec::is_empty) {
            faults.add("allowed_by_methods", "expect array to have at least 1 items");
        }
        for (place, allowed) in self.allowed_by_methods.iter().flatten().enumerate() {
            if allowed.methods.is_empty() {
                faults.add(format!("allowed_by_methods[{place}].methods"), "expect array to have at least 1 items");
            }
        }
        faults.range("rejected_code", self.rejected_code, 200, 599);
    }
}
