//! Watches over one connection that came in while it is served: its age, and whether who called is still trusted, or still let in in clear. It knows no requests.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use heddle_node::clock;
use heddle_xds::model::PeerMode;
use rustls_pki_types::CertificateDer;

use super::super::site::{Drain, Link};
use super::entry::Inbound;
use crate::exchange::Door;

/// How long the last words of a connection may take whose caller is trusted no more.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves a connection to its end, which comes sooner when it has become too old, when its caller is trusted or let in no more, or some time after `listener` began to
/// close. The connection's own drain says so to those who serve it.
pub(super) async fn watch(inbound: &Inbound, listener: &Drain, link: &Link, serving: impl Future<Output = ()>) {
    let drain = &link.site.drain;
    let mut serving = pin!(serving);
    let closing = listener.begins();
    if listener.has_begun() {
        drain.begin();
    }
    let is_member = link.info.door.peer().is_some();
    let (mut changes, mut modes) = (inbound.identity.changes(), inbound.modes.subscribe());
    // That may have changed while it was not known yet who calls.
    if !is_member && !is_let_in_clear(inbound, link) {
        return;
    }
    let mut closing = pin!(closing);
    let mut age = pin!(tokio::time::sleep(inbound.settings.max_connection_age));
    let mut is_old = false;
    loop {
        tokio::select! {
            biased;
            () = &mut serving => return,
            () = closing.as_mut(), if !drain.has_begun() => drain.begin(),
            () = age.as_mut(), if is_member => {
                if is_old {
                    let _ = inbound.stats.refused("age", clock::unix_ms());
                    return;
                }
                is_old = true;
                drain.begin();
                let cut = age.deadline() + inbound.settings.max_connection_age_grace;
                age.as_mut().reset(cut);
            }
            changed = changes.changed(), if is_member => {
                if changed.is_ok() && !is_trusted(inbound, link) {
                    break;
                }
            }
            changed = modes.changed(), if !is_member => {
                if changed.is_ok() && !is_let_in_clear(inbound, link) {
                    break;
                }
            }
        }
    }
    drain.begin();
    // Whatever is still in flight then is cut.
    let _ = tokio::time::timeout(FAREWELL, serving).await;
}

fn is_let_in_clear(inbound: &Inbound, link: &Link) -> bool {
    let Door::Inbound { port, .. } = link.info.door else { return true };
    if inbound.mode(port) != PeerMode::Strict {
        return true;
    }
    if inbound.stats.refused("plaintext", clock::unix_ms()) {
        let client = link.info.peer;
        tracing::warn!(%client, port, "a connection in clear is closed: only members of the mesh are let in from now on");
    }
    false
}

fn is_trusted(inbound: &Inbound, link: &Link) -> bool {
    let Some(shown) = link.info.tls.as_ref().and_then(|tls| tls.client.as_ref()) else { return true };
    let chain: Vec<CertificateDer<'_>> = shown.chain.iter().map(|der| CertificateDer::from(&**der)).collect();
    match inbound.identity.recheck(&chain) {
        Ok(_) => true,
        Err(rejection) => {
            if inbound.stats.refused("untrusted", clock::unix_ms()) {
                let (peer, client) = (link.info.door.peer(), link.info.peer);
                tracing::warn!(peer = peer.map(|id| &**id), %client, %rejection, "a connection is closed: its caller is trusted no more");
            }
            false
        }
    }
}
