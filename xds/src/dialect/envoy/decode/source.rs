//! Where a resource is asked for. It knows no resource.

use std::time::Duration;

use super::read::{Fault, Fields, Read};

/// How long a resource that depends on another waits for it, where nothing is said: Envoy's `initial_fetch_timeout`.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// Zero waits for ever in Envoy.
const FOR_EVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// Reads where a resource is asked for: always of the control plane that this node follows. Says how long it is waited for.
pub(super) fn read(fields: &mut Fields<'_>) -> Read<Duration> {
    let ads = fields.message("ads", |ads| ads.skip())?.is_some();
    let own = fields.message("self", |own| own.skip())?.is_some();
    fields.choice("resource_api_version", &[("V3", 2, ()), ("AUTO", 0, ())])?;
    fields.refuse("path", "files are not watched: use ads")?;
    fields.refuse("path_config_source", "files are not watched: use ads")?;
    fields.refuse("api_config_source", "only the one control plane that this node follows is asked: use ads")?;
    let patience = fields.duration("initial_fetch_timeout")?.unwrap_or(PATIENCE);
    if !ads && !own {
        return Err(Fault::new("ads", "is missing: only the control plane that this node follows is asked"));
    }
    Ok(if patience.is_zero() { FOR_EVER } else { patience })
}
