//! Copies of requests for other clusters. It knows no route.

use super::super::piece::Mirror;
use super::super::read::{Fault, Fields, Read};
use super::matching::runtime_percent;

/// Mirrors of one route.
const MAX_MIRRORS: usize = 8;
/// The smallest share of requests, in percent, that can be copied.
const LEAST: f64 = 0.001;

/// Reads `request_mirror_policies`; those of no request, too, since they stand instead of what is said further out.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<Vec<Mirror>> {
    let mirrors = fields.list("request_mirror_policies", one)?;
    if mirrors.len() > MAX_MIRRORS {
        return Err(Fault::new("request_mirror_policies", format!("expected at most {MAX_MIRRORS} mirrors")));
    }
    Ok(mirrors)
}

fn one(fields: &mut Fields<'_>) -> Read<Mirror> {
    fields.refuse("cluster_header", "is not supported: name the cluster")?;
    // Whether a copy is traced is said for all requests alike.
    fields.ignore(&["trace_sampled"]);
    let percent = fields.message("runtime_fraction", runtime_percent)?.unwrap_or(100.0);
    if percent > 0.0 && percent < LEAST {
        return Err(Fault::new("runtime_fraction", format!("expected nothing, or at least {LEAST} percent")));
    }
    let marked = !fields.is_on("disable_shadow_host_suffix_append")?;
    Ok(Mirror { cluster: fields.name("cluster")?, share: percent / 100.0, marked })
}
