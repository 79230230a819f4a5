//! The filter of `pass-client-cert`.

use std::sync::Arc;

use quick_cache::sync::Cache;
use serde_json::Value;

use super::super::{BuildContext, Built, Filter, Flow, Phases, check};
use super::config::{Config, Info};
use super::facts;
use crate::exchange::{ClientCertificate, Exchange};
use crate::http::{FieldName, Fields};

const CERTIFICATE: FieldName = FieldName::of("X-Forwarded-Tls-Client-Cert");
const INFO: FieldName = FieldName::of("X-Forwarded-Tls-Client-Cert-Info");
/// Certificates whose fields are remembered, since clients show the same one with every request.
const REMEMBERED: usize = 1_024;

struct PassClientCert {
    pem: bool,
    info: Option<Info>,
    /// The fields by the fingerprint of the certificate.
    known: Cache<Box<str>, Arc<Fields>>,
}

pub(super) fn build(value: &Value, _context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    Ok(Arc::new(PassClientCert { pem: config.pem, info: config.info, known: Cache::new(REMEMBERED) }))
}

impl Filter for PassClientCert {
    fn phases(&self) -> Phases {
        Phases::REWRITE
    }

    fn rewrite(&self, x: &mut Exchange) -> Flow {
        // What a client says of its own certificate is never believed.
        for name in [&CERTIFICATE, &INFO] {
            x.request.fields.remove_named(name);
        }
        let connection = x.connection.clone();
        if let Some(client) = connection.tls.as_ref().and_then(|tls| tls.client.as_ref()) {
            let fields = match self.known.get(&*client.fingerprint) {
                Some(fields) => fields,
                None => self.learn(client),
            };
            x.request.fields.append_all(&fields);
        }
        Flow::Continue
    }
}

impl PassClientCert {
    fn learn(&self, client: &ClientCertificate) -> Arc<Fields> {
        let mut fields = Fields::new();
        if self.pem {
            fields.append_named(&CERTIFICATE, facts::pem(&client.chain));
        }
        if let Some(info) = &self.info {
            fields.append_named(&INFO, facts::info(&client.chain, info));
        }
        let fields = Arc::new(fields.laid_out());
        self.known.insert(client.fingerprint.as_str().into(), fields.clone());
        fields
    }
}
