//! Configuration of `grpc-web`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::asking::check_names;
use super::super::check::{self, Faults};

/// Configuration on a route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Names of fields that preflights are told a page may send, with commas between.
    #[serde(default = "cors_allow_headers")]
    pub cors_allow_headers: String,
    /// Most bytes of a call as they are sent; longer ones are answered with 413. Without it there is no limit: calls are passed on piece by piece.
    #[schemars(range(min = 1))]
    pub max_req_body_size: Option<u64>,
    /// As Envoy's filter does it: what is no gRPC-Web passes as it is, paths stay, and CORS is for `cors` alone.
    #[serde(default)]
    pub transparent: bool,
}

fn cors_allow_headers() -> String {
    "content-type,x-grpc-web,x-user-agent".to_owned()
}

impl check::Config for Config {
    fn validate(&self, faults: &mut Faults) {
        let names: Vec<String> = self.cors_allow_headers.split(',').map(|name| name.trim().to_owned()).collect();
        if self.cors_allow_headers != "*" {
            check_names("cors_allow_headers", &names, false, faults);
        }
        if let Some(limit) = self.max_req_body_size {
            faults.range("max_req_body_size", limit, 1, u64::MAX);
        }
    }
}
