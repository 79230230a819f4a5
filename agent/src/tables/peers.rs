//! Who is let in by a sidecar, as the control plane says: the modes of its service, of single ports and of its namespace. It knows no settings of the sidecar.

use std::collections::BTreeMap;

use heddle_xds::model::{PeerAuthentication, PeerMode};

/// Who is let in; the more specific goes before the less specific.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerModes {
    ports: BTreeMap<u16, PeerMode>,
    service: Option<PeerMode>,
    namespace: Option<PeerMode>,
}

impl PeerModes {
    /// Of all that is told to one sidecar. Of two that speak of the same, which the control plane refuses, the safer one counts.
    pub(super) fn compile<'a>(told: impl IntoIterator<Item = &'a PeerAuthentication>) -> PeerModes {
        let mut modes = PeerModes::default();
        for peers in told {
            let general = if peers.service.is_some() { &mut modes.service } else { &mut modes.namespace };
            *general = peers.mode.max(*general);
            for (port, mode) in &peers.ports {
                let known = modes.ports.entry(*port).or_insert(*mode);
                *known = (*mode).max(*known);
            }
        }
        modes
    }

    /// Who is let in at this port of the application; `None` where nothing is said.
    #[must_use]
    pub fn at(&self, port: u16) -> Option<PeerMode> {
        self.ports.get(&port).copied().or(self.service).or(self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use PeerMode::{Disable, Permissive, Strict};

    use super::*;

    fn told(service: Option<&str>, mode: Option<PeerMode>, ports: &[(u16, PeerMode)]) -> PeerAuthentication {
        let ports = ports.iter().copied().collect();
        PeerAuthentication { id: "p".into(), namespace: "shop".into(), service: service.map(Into::into), mode, ports }
    }

    #[test]
    fn the_most_specific_decides() {
        let namespace = told(None, Some(Permissive), &[]);
        let ports = told(Some("web"), None, &[(9090, Disable)]);
        let service = told(Some("web"), Some(Strict), &[(9090, Permissive)]);
        let at = |told: &[&PeerAuthentication]| [80, 9090].map(|port| PeerModes::compile(told.iter().copied()).at(port));
        assert_eq!(at(&[]), [None, None]);
        assert_eq!(at(&[&namespace]), [Some(Permissive), Some(Permissive)]);
        assert_eq!(at(&[&namespace, &ports]), [Some(Permissive), Some(Disable)]);
        assert_eq!(at(&[&namespace, &service]), [Some(Strict), Some(Permissive)]);
        assert_eq!(at(&[&service, &ports]), [Some(Strict), Some(Permissive)], "of two the safer one");
    }
}
