//! What `retry` and `failover` say of requests that are sent a second time: statuses, methods, body sizes. It knows no pipeline.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::Faults;
use crate::exchange::{GrpcStatuses, Repeat, Statuses};
use crate::http::Method;

/// A status (`502`), or a range of them as text (`"500-599"`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::filters) enum StatusRange {
    /// One.
    One(u16),
    /// One or a range.
    Text(String),
}

impl StatusRange {
    /// First and last, `None` when it is neither a status nor a range.
    fn bounds(&self) -> Option<(u16, u16)> {
        let (first, last) = match self {
            StatusRange::One(status) => (*status, *status),
            StatusRange::Text(text) => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                (first.trim().parse().ok()?, last.trim().parse().ok()?)
            }
        };
        (100 <= first && first <= last && last <= 599).then_some((first, last))
    }
}

/// How a call of gRPC failed ("Status codes and their use in gRPC"), by its number.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(in crate::filters) enum GrpcStatus {
    Cancelled = 1,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

/// Adds the faults of `statuses`.
pub(in crate::filters) fn check_statuses(statuses: &[StatusRange], faults: &mut Faults) {
    for (index, status) in statuses.iter().enumerate() {
        if status.bounds().is_none() {
            faults.add(format!("statuses[{index}]"), "expected a status from 100 to 599, or a range such as 500-599");
        }
    }
}

/// Adds the faults of `methods`.
pub(in crate::filters) fn check_methods(methods: &[String], faults: &mut Faults) {
    for (index, method) in methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            faults.add(format!("methods[{index}]"), "expected the name of a method in capitals, such as POST");
        }
    }
}

/// Compiles them.
pub(in crate::filters) fn compile(
    (statuses, codes): (&[StatusRange], &[GrpcStatus]),
    methods: &[String],
    on_network_error: bool,
    max_body_size: u64,
) -> Repeat {
    let mut set = Statuses::default();
    statuses.iter().filter_map(StatusRange::bounds).for_each(|(first, last)| set.add(first, last));
    let mut grpc_statuses = GrpcStatuses::default();
    codes.iter().for_each(|code| grpc_statuses.add(*code as u8));
    let methods = methods.iter().map(|method| Method::from_token(method)).collect();
    Repeat { statuses: set, grpc_statuses, on_network_error, methods, max_body_size }
}

/// Longest body that is kept to be sent again, when nothing is said: that of Traefik's `retry`.
pub(in crate::filters) fn max_body_size() -> u64 {
    2 << 20
}

/// Longest body that may be kept: it is held in memory for each request on its way.
pub(in crate::filters) const MAX_BODY_SIZE: u64 = 64 << 20;
