//! Trust bundles of other trust domains, from files that are read again when they change. A file that cannot be read takes nothing away.

use std::path::PathBuf;
use std::time::SystemTime;

use heddle_node::identity::{Bundle, TrustDomain};

use super::authority::read;
use crate::settings::FederatedSettings;

/// All files.
#[derive(Debug)]
pub(super) struct Federation(Vec<Partner>);

#[derive(Debug)]
struct Partner {
    domain: TrustDomain,
    path: PathBuf,
    /// Of the file when it was read; `None` before that.
    stamp: Option<(SystemTime, u64)>,
    bundle: Option<Bundle>,
    trouble: String,
}

impl Federation {
    pub(super) fn new(settings: &[FederatedSettings]) -> Federation {
        let partner = |one: &FederatedSettings| Partner {
            domain: one.trust_domain.clone(),
            path: one.bundle_file.clone(),
            stamp: None,
            bundle: None,
            trouble: String::new(),
        };
        Federation(settings.iter().map(partner).collect())
    }

    /// Reads the files that have changed; whether a bundle is another one now.
    pub(super) fn refresh(&mut self) -> bool {
        let changed: Vec<bool> = self.0.iter_mut().map(Partner::refresh).collect();
        changed.contains(&true)
    }

    /// The bundles that are there.
    pub(super) fn bundles(&self) -> impl Iterator<Item = &Bundle> {
        self.0.iter().filter_map(|partner| partner.bundle.as_ref())
    }

    /// Each domain with the number of its roots and what is wrong with its file.
    pub(super) fn list(&self) -> impl Iterator<Item = (&TrustDomain, usize, &str)> {
        let roots = |partner: &Partner| partner.bundle.as_ref().map_or(0, |bundle| bundle.roots().len());
        self.0.iter().map(move |partner| (&partner.domain, roots(partner), partner.trouble.as_str()))
    }
}

impl Partner {
    fn refresh(&mut self) -> bool {
        let stamp = std::fs::metadata(&self.path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
        if stamp.is_some() && stamp == self.stamp {
            return false;
        }
        self.stamp = stamp;
        let bundle = read(&self.path).map_err(|error| error.to_string());
        let bundle = bundle.and_then(|text| Bundle::from_pem(self.domain.clone(), &text).map_err(|error| error.to_string()));
        match bundle {
            Ok(bundle) => {
                self.trouble.clear();
                let changed = self.bundle.as_ref() != Some(&bundle);
                self.bundle = Some(bundle);
                changed
            }
            Err(error) => {
                if self.trouble != error {
                    tracing::warn!(domain = %self.domain, error, "the bundle of a federated trust domain cannot be taken over");
                }
                self.trouble = error;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::super::issuer::Issuer;
    use super::*;

    fn pem(domain: &str) -> String {
        let domain = TrustDomain::new(domain).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let issuer = Issuer::generate(&domain, now, Duration::from_secs(3_600), Duration::ZERO).unwrap();
        Bundle::from_der(domain, vec![issuer.root().clone()]).unwrap().pem()
    }

    #[test]
    fn files_are_read_again_and_a_broken_one_takes_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("partner.pem");
        let settings = FederatedSettings { trust_domain: TrustDomain::new("partner").unwrap(), bundle_file: path.clone() };
        let mut federation = Federation::new(&[settings]);
        assert!(!federation.refresh(), "there is no file yet");
        assert!(federation.list().next().unwrap().2.contains("partner.pem"));
        std::fs::write(&path, pem("partner")).unwrap();
        assert!(federation.refresh());
        assert!(!federation.refresh(), "nothing has changed");
        std::fs::write(&path, "no PEM").unwrap();
        assert!(!federation.refresh());
        let (_, roots, trouble) = federation.list().next().unwrap();
        assert!(roots == 1 && !trouble.is_empty(), "{trouble}");
        std::fs::write(&path, pem("partner") + &pem("partner")).unwrap();
        assert!(federation.refresh());
        assert_eq!(federation.bundles().next().unwrap().roots().len(), 2);
    }
}
