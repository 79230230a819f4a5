//! Further tries of a request, and how long each of them is waited for. It knows no route.
//!
//! Our agents go on to an endpoint that was not tried yet, in whatever zone and of whatever priority, without asking for a budget where no endpoint has seen the
//! request. Envoy does so where it is told to avoid hosts and priorities that were tried.

use std::time::Duration;

use heddle_proto::envoy::config::route::v3 as wire;
use prost::Message;
use prost_types::Any;
use wire::retry_policy::{self, RetryBackOff, RetryHostPredicate, RetryPriority};

use super::super::matching::header;
use super::super::wire::{exact, span};
use crate::model::Timeouts;

/// Envoy rests between two tries in any case.
pub(in super::super) const SHORTEST_REST: Duration = Duration::from_millis(1);
/// Clients of gRPC rest so long as where nothing is said: the C core (of 1.85) loses calls that it makes again within a millisecond, and they end by their deadline.
const REST_OF_CALLS: Duration = Duration::from_millis(25);
/// What is tried again: what the endpoint has not seen, as our agents do.
const UNSEEN: &str = "connect-failure,refused-stream,reset-before-request";
/// Choices of an endpoint that was not tried yet.
const OTHER_HOSTS: i64 = 20;
/// Tries before endpoints of another priority are taken.
const BEFORE_OTHERS: i32 = 2;

/// What the plugin `retry` says.
pub(in super::super) struct Seen<'a> {
    /// In all.
    pub(in super::super) attempts: u32,
    /// Whether a connection that broke is a reason.
    pub(in super::super) network: bool,
    /// Statuses that are one.
    pub(in super::super) statuses: Vec<u32>,
    /// Of those of gRPC, as Envoy calls them.
    pub(in super::super) calls: Vec<String>,
    /// Methods of requests that may be sent twice.
    pub(in super::super) methods: &'a [&'a str],
    /// Before the second try, and the longest.
    pub(in super::super) rests: (Duration, Duration),
    /// Of each try.
    pub(in super::super) timeouts: Timeouts,
}

/// So many further tries of what no endpoint has seen.
pub(in super::super) fn of_unseen(retries: u32, timeouts: Timeouts, action: &mut wire::RouteAction) {
    let rests = (SHORTEST_REST, SHORTEST_REST * 2);
    let policy = policy(retries, timeouts, rests);
    put(
        wire::RetryPolicy { retry_on: if retries > 0 { UNSEEN.to_owned() } else { String::new() }, ..policy },
        (timeouts, rests.1),
        action,
    );
}

/// Tries of what an endpoint may have seen, too.
pub(in super::super) fn of_seen(seen: &Seen<'_>, action: &mut wire::RouteAction) {
    let retries = seen.attempts.saturating_sub(1);
    let mut retry_on = if retries > 0 { UNSEEN.to_owned() } else { String::new() };
    if retries > 0 && seen.network {
        retry_on.push_str(",reset");
    }
    if retries > 0 && !seen.statuses.is_empty() {
        retry_on.push_str(",retriable-status-codes");
    }
    for call in seen.calls.iter().filter(|_| retries > 0) {
        retry_on.push(',');
        retry_on.push_str(call);
    }
    let policy = wire::RetryPolicy {
        retry_on,
        retriable_status_codes: seen.statuses.clone(),
        retriable_request_headers: seen.methods.iter().map(|method| header(":method", exact(method))).collect(),
        ..policy(retries, seen.timeouts, seen.rests)
    };
    put(policy, (seen.timeouts, seen.rests.1), action);
}

/// Tries of calls by clients of gRPC, which know their own statuses alone and rest before each try (gRFC A44).
pub(in super::super) fn of_calls(seen: &Seen<'_>, action: &mut wire::RouteAction) {
    let first = seen.rests.0.max(REST_OF_CALLS);
    let longest = seen.rests.1.max(first);
    action.retry_policy = Some(wire::RetryPolicy {
        retry_on: seen.calls.join(","),
        num_retries: Some(seen.attempts.saturating_sub(1)),
        retry_back_off: Some(RetryBackOff { base_interval: span(first), max_interval: span(longest) }),
        ..Default::default()
    });
}

fn policy(retries: u32, timeouts: Timeouts, (first, longest): (Duration, Duration)) -> wire::RetryPolicy {
    let extension =
        |kind: &str, value: Vec<u8>| Any { type_url: format!("type.googleapis.com/envoy.extensions.retry.{kind}"), value };
    let hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(extension(
            "host.previous_hosts.v3.PreviousHostsPredicate",
            Vec::new(),
        ))),
    };
    let priority = RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_policy::retry_priority::ConfigType::TypedConfig(extension(
            "priority.previous_priorities.v3.PreviousPrioritiesConfig",
            PreviousPriorities { update_frequency: BEFORE_OTHERS }.encode_to_vec(),
        ))),
    };
    let told = wire::RetryPolicy {
        num_retries: Some(retries),
        per_try_idle_timeout: Some(timeouts.read).filter(|read| !read.is_zero()).and_then(span),
        ..Default::default()
    };
    if retries == 0 {
        return told;
    }
    wire::RetryPolicy {
        retry_host_predicate: vec![hosts],
        retry_priority: Some(priority),
        host_selection_retry_max_attempts: OTHER_HOSTS,
        retry_back_off: Some(RetryBackOff { base_interval: span(first), max_interval: span(longest) }),
        ..told
    }
}

/// The stream of the client is silent while one try after the other is waited for: each may take its time, with its connection and the rest before it.
fn put(policy: wire::RetryPolicy, (timeouts, rest): (Timeouts, Duration), action: &mut wire::RouteAction) {
    let one = timeouts.connect.saturating_add(timeouts.read.max(timeouts.send)).saturating_add(rest);
    let all = one.saturating_mul(policy.num_retries.unwrap_or(0).saturating_add(1));
    action.idle_timeout = span(if timeouts.read.is_zero() { Duration::ZERO } else { all });
    action.retry_policy = Some(policy);
}

/// `envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig`.
#[derive(Clone, PartialEq, Message)]
struct PreviousPriorities {
    #[prost(int32, tag = "1")]
    update_frequency: i32,
}
