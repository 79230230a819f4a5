//! The webhook's own authorities: who signs its certificate, whom the API server is to trust, and when the next one takes over. It touches no file and reads no clock.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};

/// Seconds for which an authority is good.
const AUTHORITY_SECONDS: u64 = 365 * 24 * 3600;
/// Seconds for which the certificate that is shown is good.
const SERVING_SECONDS: u64 = 30 * 24 * 3600;
/// The clock of an API server may be behind by so much.
const SKEW_SECONDS: u64 = 3600;
/// A new authority is trusted for so long before anything is signed with it, so that all API servers have heard of it.
const NOTICE_SECONDS: u64 = 14 * 24 * 3600;

/// All authorities, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Authorities {
    list: Vec<Authority>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
struct Authority {
    certificate: String,
    key: String,
    /// Seconds since 1970.
    made: u64,
}

/// A certificate with its chain and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// When it is to be replaced.
    pub renew_at: u64,
    /// The authority that signed it.
    pub issuer: String,
}

impl Authority {
    fn not_after(&self) -> u64 {
        self.made + AUTHORITY_SECONDS
    }

    fn make(now: u64) -> Result<Authority, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        // Two authorities of one name would be taken for each other.
        params.distinguished_name.push(DnType::CommonName, format!("heddle webhook authority {now}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        lifetime(&mut params, now, now + AUTHORITY_SECONDS);
        let key = KeyPair::generate()?;
        Ok(Authority { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem(), made: now })
    }
}

fn lifetime(params: &mut CertificateParams, now: u64, until: u64) {
    let at = |seconds| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds);
    (params.not_before, params.not_after) = (at(now.saturating_sub(SKEW_SECONDS)), at(until));
}

impl Authorities {
    /// Drops what has ended and makes what is due; `true` when something changed.
    ///
    /// # Errors
    /// No key can be made.
    pub fn turn(&mut self, now: u64) -> Result<bool, rcgen::Error> {
        let before = self.list.len();
        self.list.retain(|authority| authority.not_after() > now);
        let dropped = self.list.len() != before;
        let due = self.list.last().is_none_or(|newest| now.saturating_sub(newest.made) >= AUTHORITY_SECONDS / 3 * 2);
        if due {
            self.list.push(Authority::make(now)?);
        }
        Ok(dropped || due)
    }

    /// Whom to trust: PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.list.iter().map(|authority| authority.certificate.as_str()).collect()
    }

    /// Who signs: the newest that everybody has had the time to hear of.
    fn signer(&self, now: u64) -> Option<&Authority> {
        let known = self.list.iter().rev().find(|authority| now.saturating_sub(authority.made) >= NOTICE_SECONDS);
        known.or(self.list.first())
    }

    /// Whether this certificate has to be replaced.
    #[must_use]
    pub fn is_stale(&self, serving: &Serving, now: u64) -> bool {
        now >= serving.renew_at || self.signer(now).is_none_or(|signer| signer.certificate != serving.issuer)
    }

    /// A certificate for these names.
    ///
    /// # Errors
    /// There is no authority, or a name cannot stand in a certificate.
    pub fn sign(&self, names: &[String], now: u64) -> Result<Serving, String> {
        let signer = self.signer(now).ok_or("there is no authority")?;
        let make = || -> Result<Serving, rcgen::Error> {
            let mut params = CertificateParams::new(names.to_vec())?;
            params.distinguished_name.push(DnType::CommonName, "heddle webhook");
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let not_after = (now + SERVING_SECONDS).min(signer.not_after());
            lifetime(&mut params, now, not_after);
            let key = KeyPair::generate()?;
            let issuer = Issuer::from_ca_cert_pem(&signer.certificate, KeyPair::from_pem(&signer.key)?)?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            let renew_at = now + (not_after - now) / 3 * 2;
            Ok(Serving { certificate, key: key.serialize_pem(), not_after, renew_at, issuer: signer.certificate.clone() })
        };
        make().map_err(|error| format!("the webhook's certificate cannot be made: {error}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DAY: u64 = 24 * 3600;
    const START: u64 = 1_700_000_000;

    #[test]
    fn a_new_authority_is_trusted_before_it_signs_and_the_old_one_until_it_ends() {
        let mut authorities = Authorities::default();
        assert!(authorities.turn(START).unwrap());
        assert!(!authorities.turn(START + 100 * DAY).unwrap());
        let old = authorities.bundle();
        let names = ["heddle.heddle-system.svc".to_owned()];
        let first = authorities.sign(&names, START).unwrap();
        assert_eq!(first.issuer, old);
        assert!(!authorities.is_stale(&first, START + 19 * DAY) && authorities.is_stale(&first, START + 20 * DAY));
        let change = START + 244 * DAY;
        assert!(authorities.turn(change).unwrap());
        assert!(authorities.bundle().starts_with(&old) && authorities.bundle().len() > old.len());
        assert_eq!(authorities.sign(&names, change + 13 * DAY).unwrap().issuer, old);
        let later = authorities.sign(&names, change + 14 * DAY).unwrap();
        assert_ne!(later.issuer, old);
        assert!(authorities.turn(START + 366 * DAY).unwrap());
        assert!(!authorities.bundle().contains(&old) && authorities.bundle() == later.issuer);
        let text = serde_json::to_string(&authorities).unwrap();
        assert_eq!(serde_json::from_str::<Authorities>(&text).unwrap(), authorities);
    }

    #[test]
    fn a_certificate_does_not_outlive_its_authority() {
        let mut authorities = Authorities::default();
        authorities.turn(START).unwrap();
        let late = authorities.sign(&["a.example".to_owned()], START + 360 * DAY).unwrap();
        assert_eq!(late.not_after, START + 365 * DAY);
        assert!(authorities.sign(&["ä".to_owned()], START).is_err());
    }
}
