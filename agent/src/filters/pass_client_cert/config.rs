//! Configuration of `pass-client-cert`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Whether `X-Forwarded-Tls-Client-Cert` holds the certificates of the chain: PEM without delimiters and line ends, commas between.
    #[serde(default)]
    pub pem: bool,
    /// What `X-Forwarded-Tls-Client-Cert-Info` tells, percent-encoded; the field is not sent when absent.
    pub info: Option<Info>,
}

/// What is told of each certificate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Info {
    /// The end of its validity as `NA`, in Unix seconds.
    pub not_after: bool,
    /// The start of its validity as `NB`, in Unix seconds.
    pub not_before: bool,
    /// Its subject alternative names as `SAN`: names, mail addresses, IP addresses and URIs.
    pub sans: bool,
    /// Its serial number as `SerialNumber`, decimal.
    pub serial_number: bool,
    /// Whom it is for, as `Subject`.
    pub subject: Option<Name>,
    /// Who has issued it, as `Issuer`.
    pub issuer: Option<Name>,
}

/// Which attributes of a distinguished name are told.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Name {
    /// Domain components, as `DC`.
    pub domain_component: bool,
    /// Country, as `C`.
    pub country: bool,
    /// State or province, as `ST`.
    pub province: bool,
    /// Locality, as `L`.
    pub locality: bool,
    /// Organisation, as `O`.
    pub organization: bool,
    /// Organisational unit, as `OU`.
    pub organizational_unit: bool,
    /// Common name, as `CN`.
    pub common_name: bool,
    /// Serial number of the name, as `SN`.
    pub serial_number: bool,
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        if !self.pem && self.info.is_none() {
            faults.add("", "object matches none of the required: expected pem or info");
        }
    }
}
