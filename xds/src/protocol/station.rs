//! What a proxy of others says of the place where it stands, in the metadata of its node: it has no settings of ours. It knows no stream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use prost_types::value::Kind as ValueKind;
use prost_types::{Struct, Value};

use super::BadRequest;
use super::wire::{short, take_text};

/// Services that the application beside a proxy calls.
const MOST_CALLED: usize = 1_024;

/// The place of a proxy of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Station {
    /// Its bootstrap serves it an identity of the mesh.
    pub identity: bool,
    /// Members of federated trust domains may call the application beside it.
    pub federated: bool,
    /// Where the application beside it listens.
    pub application: Option<SocketAddr>,
    /// Services that the application calls, `<service>` or `<namespace>/<service>`, each with where it calls them.
    pub outbound: Vec<(Arc<str>, SocketAddr)>,
}

impl Station {
    /// Takes it out of the metadata of a node.
    pub(super) fn take(fields: &mut BTreeMap<String, Value>) -> Result<Station, BadRequest> {
        let application = take_text(fields, "application").map(|text| address("node.metadata.application", &text)).transpose()?;
        let mut is_on = |name: &str| matches!(fields.remove(name).and_then(|flag| flag.kind), Some(ValueKind::BoolValue(true)));
        let (identity, federated) = (is_on("identity"), is_on("federated"));
        let outbound = fields.remove("outbound").map(outbound).transpose()?.unwrap_or_default();
        Ok(Station { identity, federated, application, outbound })
    }
}

fn address(field: &'static str, text: &str) -> Result<SocketAddr, BadRequest> {
    text.parse().map_err(|_| BadRequest::Malformed(field))
}

fn outbound(value: Value) -> Result<Vec<(Arc<str>, SocketAddr)>, BadRequest> {
    const FIELD: &str = "node.metadata.outbound";
    let Some(ValueKind::StructValue(Struct { fields })) = value.kind else { return Err(BadRequest::Malformed(FIELD)) };
    if fields.len() > MOST_CALLED {
        return Err(BadRequest::TooMuch { what: FIELD, found: fields.len(), most: MOST_CALLED });
    }
    let one = |(service, at): (String, Value)| match at.kind {
        Some(ValueKind::StringValue(text)) => Ok((short(FIELD, service)?, address(FIELD, &text)?)),
        _ => Err(BadRequest::Malformed(FIELD)),
    };
    fields.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn text(text: &str) -> Value {
        Value { kind: Some(ValueKind::StringValue(text.into())) }
    }

    fn read(fields: &[(&str, Value)]) -> Result<Station, BadRequest> {
        Station::take(&mut fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn a_proxy_says_what_stands_beside_it() {
        let calls = Value {
            kind: Some(ValueKind::StructValue(Struct { fields: BTreeMap::from([("api".into(), text("127.0.0.1:1"))]) })),
        };
        let station = read(&[("application", text("127.0.0.1:8080")), ("outbound", calls)]).unwrap();
        let expected = Station {
            identity: false,
            federated: false,
            application: Some("127.0.0.1:8080".parse().unwrap()),
            outbound: vec![("api".into(), "127.0.0.1:1".parse().unwrap())],
        };
        assert_eq!(station, expected);
        let on = Value { kind: Some(ValueKind::BoolValue(true)) };
        assert!(read(&[("identity", on.clone())]).unwrap().identity && read(&[("federated", on)]).unwrap().federated);
        assert_eq!(read(&[]).unwrap(), Station::default());
        assert_eq!(read(&[("application", text("here"))]).unwrap_err(), BadRequest::Malformed("node.metadata.application"));
        assert_eq!(read(&[("outbound", text("api"))]).unwrap_err(), BadRequest::Malformed("node.metadata.outbound"));
    }
}
