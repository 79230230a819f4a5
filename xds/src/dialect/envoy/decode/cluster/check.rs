//! How the health of endpoints is found out: probes, and what requests meet. It knows no cluster.

use std::sync::Arc;
use std::time::Duration;

use super::super::read::{Fault, Fields, Read, bytes};
use super::super::route::headers::{changed, is_plain};
use crate::model::{ActiveCheck, CheckKind, PassiveCheck, Thresholds};

/// Probes at once; Envoy knows no bound.
const CONCURRENCY: u32 = 100;
/// Errors in a row after which Envoy ejects an endpoint.
const ERRORS: u32 = 5;
/// Most statuses that a range of expected ones may name.
const STATUSES: std::ops::Range<u64> = 100..600;

/// Probes of our own, where a cluster has some.
pub(crate) fn active(fields: &mut Fields<'_>, cluster: &Arc<str>) -> Read<Option<ActiveCheck>> {
    let mut checks = fields.list("health_checks", |check| probe(check, cluster))?;
    match checks.len() {
        0 | 1 => Ok(checks.pop()),
        _ => Err(Fault::new("health_checks", "more than one check of a cluster is not supported")),
    }
}

fn probe(fields: &mut Fields<'_>, cluster: &Arc<str>) -> Read<ActiveCheck> {
    let needed = |name: &'static str| move |found: Option<Duration>| found.ok_or_else(|| Fault::new(name, "is missing"));
    let timeout = fields.duration("timeout").and_then(needed("timeout"))?;
    let interval = fields.duration("interval").and_then(needed("interval"))?;
    fields.ignore(&[
        "initial_jitter",
        "interval_jitter",
        "interval_jitter_percent",
        "reuse_connection",
        "event_log_path",
        "event_logger",
        "no_traffic_interval",
        "no_traffic_healthy_interval",
        "unhealthy_edge_interval",
        "healthy_edge_interval",
        "always_log_health_check_failures",
        "always_log_health_check_success",
    ]);
    let port = port(fields)?;
    fields.refuse("tls_options", "is not supported: probes use the TLS of the cluster")?;
    fields.refuse("transport_socket_match_criteria", "is not supported")?;
    fields.refuse("grpc_health_check", "is not supported: use http_health_check or tcp_health_check")?;
    fields.refuse("custom_health_check", "is not supported: use http_health_check or tcp_health_check")?;
    let failures = fields.small("unhealthy_threshold")?.ok_or_else(|| Fault::new("unhealthy_threshold", "is missing"))?;
    let successes = fields.small("healthy_threshold")?.ok_or_else(|| Fault::new("healthy_threshold", "is missing"))?;
    let mut check = ActiveCheck {
        kind: CheckKind::Tcp,
        timeout,
        concurrency: CONCURRENCY,
        host: None,
        port,
        method: "GET".into(),
        path: "/".into(),
        body: "".into(),
        verify_certificate: false,
        headers: Vec::new(),
        healthy_interval: interval,
        unhealthy_interval: fields.duration("unhealthy_interval")?.unwrap_or(interval),
        thresholds: Thresholds {
            healthy_statuses: vec![200],
            successes,
            unhealthy_statuses: Vec::new(),
            http_failures: failures,
            tcp_failures: failures,
            timeouts: failures,
        },
        checkers: 0,
    };
    let tcp = fields.message("tcp_health_check", |tcp| {
        tcp.refuse("send", "is not supported: a connection that stands is healthy")?;
        tcp.refuse("receive", "is not supported: a connection that stands is healthy")
    })?;
    let http = fields.message("http_health_check", |http| http_probe(http, &mut check, cluster))?;
    match (tcp, http) {
        (Some(()), None) | (None, Some(())) => Ok(check),
        _ => Err(Fault::new("", "expected http_health_check or tcp_health_check")),
    }
}

/// A port that is probed instead of that of the endpoint.
fn port(fields: &mut Fields<'_>) -> Read<Option<u16>> {
    let Some(port) = fields.small("alt_port")? else { return Ok(None) };
    let known = u16::try_from(port).ok().filter(|port| *port > 0);
    known.map(Some).ok_or_else(|| Fault::new("alt_port", "expected 1 to 65535"))
}

/// Reads an `Int64Range` of statuses.
fn statuses(range: &mut Fields<'_>) -> Read<Vec<u16>> {
    let (start, end) = (range.number("start")?.unwrap_or(0), range.number("end")?.unwrap_or(0));
    let known = STATUSES.contains(&start) && (start..=STATUSES.end).contains(&end);
    if known {
        Ok((start..end).map(|status| status as u16).collect())
    } else {
        Err(Fault::new("", "expected statuses from 100 up to 600"))
    }
}

fn http_probe(http: &mut Fields<'_>, check: &mut ActiveCheck, cluster: &Arc<str>) -> Read<()> {
    check.kind = CheckKind::Http;
    // Envoy calls whom it probes by the name of the cluster where nothing is said.
    check.host = http.text("host")?.map(Arc::from).or_else(|| Some(cluster.clone()));
    check.path = http.name("path")?;
    for (field, text) in [("host", check.host.as_deref()), ("path", Some(&*check.path))] {
        if text.is_some_and(|text| !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Fault::new(
                field,
                "expected visible ASCII without blanks; where host is missing, the name of the cluster stands for it",
            ));
        }
    }
    http.refuse("send", "bodies of probes are not supported")?;
    http.refuse("receive", "looking into answers of probes is not supported")?;
    http.refuse("service_name_matcher", "is not supported")?;
    http.choice("codec_client_type", &[("HTTP1", 0, ())])?;
    if let Some(method) = http.choice(
        "method",
        &[("GET", 1, "GET"), ("HEAD", 2, "HEAD"), ("OPTIONS", 6, "OPTIONS"), ("METHOD_UNSPECIFIED", 0, "GET")],
    )? {
        check.method = method.into();
    }
    let expected = http.list("expected_statuses", statuses)?.concat();
    if !expected.is_empty() {
        check.thresholds.healthy_statuses = expected;
    }
    // Whatever was not expected is a failure: of one that may be tried again it takes as many as of others, of one that may not the first is enough.
    let good = &check.thresholds.healthy_statuses;
    check.thresholds.unhealthy_statuses =
        (STATUSES.start as u16..STATUSES.end as u16).filter(|status| !good.contains(status)).collect();
    let again = http.list("retriable_statuses", statuses)?.concat();
    let counted = check.thresholds.unhealthy_statuses.iter().filter(|status| again.contains(status)).count();
    match counted {
        0 => check.thresholds.http_failures = 1,
        all if all == check.thresholds.unhealthy_statuses.len() => {}
        _ => {
            return Err(Fault::new(
                "retriable_statuses",
                "expected all statuses that are not expected_statuses, or none of them",
            ));
        }
    }
    check.headers = http.list("request_headers_to_add", |option| {
        option.ignore(&["append_action", "append", "keep_empty_value"]);
        option.required("header", |header| {
            let raw = header.text("raw_value")?.map(bytes).transpose()?.map(String::from_utf8).transpose();
            let raw = raw.map_err(|_| Fault::new("raw_value", "expected text, found bytes that are not UTF-8"))?;
            let value = header.text("value")?.map(str::to_owned).or(raw).unwrap_or_default();
            let key = header.name("key")?;
            changed(&key).map_err(|reason| Fault::new("key", reason))?;
            let value = said(&value).map_err(|reason| Fault::new("value", reason))?;
            Ok((key, value.into()))
        })
    })?;
    Ok(())
}

/// A text without Envoy's operators: of a probe there is nothing that they could show.
fn said(value: &str) -> Result<String, String> {
    is_plain(value)?;
    match value.replace("%%", "").contains('%') {
        true => Err("operators are not supported in a probe; a plain `%` is written `%%`".to_owned()),
        false => Ok(value.replace("%%", "%")),
    }
}

/// What requests meet, where a cluster wants endpoints to be judged by that.
pub(crate) fn passive(fields: &mut Fields<'_>) -> Read<Option<PassiveCheck>> {
    fields.message("outlier_detection", |outlier| {
        // How often and how long endpoints are put aside follows our own clock, and no more than a share of them is: named in the documentation.
        outlier.ignore(&[
            "interval",
            "base_ejection_time",
            "max_ejection_time",
            "max_ejection_percent",
            "max_ejection_time_jitter",
            "always_eject_one_host",
            "failure_percentage_threshold",
            "failure_percentage_minimum_hosts",
            "failure_percentage_request_volume",
            "successful_active_health_check_uneject_host",
        ]);
        by_rate(outlier)?;
        outlier
            .refuse("enforcing_failure_percentage", "ejecting by a share of failures is not supported: use consecutive_5xx")?;
        outlier.refuse("enforcing_failure_percentage_local_origin", "ejecting by a share of failures is not supported")?;
        outlier.refuse("monitors", "is not supported")?;
        let split = outlier.is_on("split_external_local_origin_errors")?;
        let (mut all, mut gateway) = (
            outlier.small("consecutive_5xx")?.unwrap_or(ERRORS),
            outlier.small("consecutive_gateway_failure")?.unwrap_or(ERRORS),
        );
        let local = outlier.small("consecutive_local_origin_failure")?.unwrap_or(ERRORS);
        all = enforced(outlier.small("enforcing_consecutive_5xx")?.unwrap_or(100), all)?;
        gateway = enforced(outlier.small("enforcing_consecutive_gateway_failure")?.unwrap_or(0), gateway)?;
        let origin = enforced(outlier.small("enforcing_consecutive_local_origin_failure")?.unwrap_or(100), local)?;
        let (statuses, failures) = match (all, gateway) {
            (0, 0) => (Vec::new(), 0),
            (0, gateway) => (vec![502, 503, 504], gateway),
            (all, 0) => ((500..600).collect(), all),
            (..) => {
                return Err(Fault::new(
                    "enforcing_consecutive_gateway_failure",
                    "is not supported beside consecutive_5xx: one of them counts",
                ));
            }
        };
        // Where both are not told apart, a connection that fails is a failure like another.
        let local = if split || failures == 0 { origin } else { failures };
        Ok(PassiveCheck {
            thresholds: Thresholds {
                healthy_statuses: (200..500).collect(),
                successes: 1,
                unhealthy_statuses: statuses,
                http_failures: failures,
                tcp_failures: local,
                timeouts: local,
            },
        })
    })
}

/// Endpoints are not compared with each other: whoever wants that to be done is told. What is said of how has no meaning where it is not.
fn by_rate(outlier: &mut Fields<'_>) -> Read<()> {
    const TUNED: [&str; 3] = ["success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor"];
    let reason = "ejecting by the rate of success is not supported: set it to 0, and use consecutive_5xx";
    outlier.refuse("enforcing_local_origin_success_rate", reason)?;
    match outlier.small("enforcing_success_rate")? {
        Some(0) => outlier.ignore(&TUNED),
        Some(_) => return Err(Fault::new("enforcing_success_rate", reason)),
        None => {
            for name in TUNED {
                outlier.refuse(name, "ejecting by the rate of success is not supported: set enforcing_success_rate to 0")?;
            }
        }
    }
    Ok(())
}

/// A count that is enforced always or never.
fn enforced(percent: u32, count: u32) -> Read<u32> {
    match percent {
        0 => Ok(0),
        100 => Ok(count),
        _ => Err(Fault::new("", "enforcing by chance is not supported: expected 0 or 100 percent")),
    }
}
