//! How the authority lies in the store: keys sealed, one record per thing, so that those that change often do not rewrite those that do not. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::others::Report;
use super::rotation::Rotation;
use super::tokens::Token;
use crate::store::RecordWrite;

/// The record of roots and rotation.
const STATE: &str = "authority/state";
/// Records of tokens, by id.
const TOKEN: &str = "authority/token/";
/// Records of the latest expiry of what a root has signed, by fingerprint.
const EXPIRY: &str = "authority/expiry/";
/// Records of the latest expiry of an identity, by fingerprint and identity.
const LIVE: &str = "authority/live/";

/// Records of what control planes say of their nodes, by control plane.
const REPORT: &str = "authority/report/";

/// Roots and rotation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) trust_domain: String,
    /// Grows whenever this is written.
    #[serde(default)]
    pub(super) number: u64,
    pub(super) rotation: Rotation,
    pub(super) roots: Vec<StoredRoot>,
}

/// A root, with its key when it is ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredRoot {
    pub(super) fingerprint: String,
    /// DER in base64.
    certificate: String,
    /// PKCS #8 DER in base64, sealed; absent for an operator's.
    pub(super) key: Option<String>,
}

impl StoredRoot {
    pub(super) fn new(fingerprint: &str, certificate: &CertificateDer<'_>, key: Option<String>) -> StoredRoot {
        StoredRoot { fingerprint: fingerprint.to_owned(), certificate: STANDARD.encode(certificate), key }
    }

    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        STANDARD.decode(&self.certificate).ok().map(CertificateDer::from)
    }
}

/// Latest expiries by root and identity, Unix milliseconds.
pub(super) type Live = BTreeMap<String, BTreeMap<String, u64>>;

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) state: Option<State>,
    pub(super) tokens: Vec<Token>,
    pub(super) last_expiry_ms: BTreeMap<String, u64>,
    pub(super) live: Live,
    pub(super) reports: BTreeMap<String, Report>,
}

impl Stored {
    /// Reads the records; what is not the authority's is skipped. An error says which record is damaged.
    pub(super) fn read(records: Vec<(String, Vec<u8>)>) -> Result<Stored, String> {
        let mut stored = Stored::default();
        for (key, value) in records {
            let damaged = |error: serde_json::Error| format!("the record {key} is damaged: {error}");
            let number =
                || <[u8; 8]>::try_from(&value[..]).map(u64::from_be_bytes).map_err(|_| format!("the record {key} is damaged"));
            if key == STATE {
                stored.state = Some(serde_json::from_slice(&value).map_err(damaged)?);
            } else if key.starts_with(TOKEN) {
                stored.tokens.push(serde_json::from_slice(&value).map_err(damaged)?);
            } else if let Some(root) = key.strip_prefix(EXPIRY) {
                stored.last_expiry_ms.insert(root.to_owned(), number()?);
            } else if let Some((root, id)) = key.strip_prefix(LIVE).and_then(|rest| rest.split_once('/')) {
                stored.live.entry(root.to_owned()).or_default().insert(id.to_owned(), number()?);
            } else if let Some(name) = key.strip_prefix(REPORT) {
                stored.reports.insert(name.to_owned(), serde_json::from_slice(&value).map_err(damaged)?);
            }
        }
        Ok(stored)
    }
}

/// What a record of the authority says.
#[derive(Debug)]
pub(super) enum Said {
    State(State),
    Token(Box<Token>),
    NoToken(String),
    Expiry(String, u64),
    /// Root, identity, and until when; `None`: it has expired.
    Live(String, String, Option<u64>),
    /// Of a control plane; `None`: it is gone.
    Report(String, Option<Report>),
}

/// Reads one record; `Ok(None)` when it is not the authority's, or nothing follows from it.
pub(super) fn said(key: &str, value: Option<&[u8]>) -> Result<Option<Said>, String> {
    let damaged = |error: serde_json::Error| format!("the record {key} is damaged: {error}");
    let number =
        |value: &[u8]| <[u8; 8]>::try_from(value).map(u64::from_be_bytes).map_err(|_| format!("the record {key} is damaged"));
    Ok(if let Some(id) = key.strip_prefix(TOKEN) {
        Some(match value {
            Some(value) => Said::Token(serde_json::from_slice(value).map_err(damaged)?),
            None => Said::NoToken(id.to_owned()),
        })
    } else if let Some((root, id)) = key.strip_prefix(LIVE).and_then(|rest| rest.split_once('/')) {
        Some(Said::Live(root.to_owned(), id.to_owned(), value.map(number).transpose()?))
    } else if let Some(name) = key.strip_prefix(REPORT) {
        let report = value.map(serde_json::from_slice).transpose().map_err(damaged)?;
        Some(Said::Report(name.to_owned(), report))
    } else {
        match (key.strip_prefix(EXPIRY), value) {
            (Some(root), Some(value)) => Some(Said::Expiry(root.to_owned(), number(value)?)),
            (None, Some(value)) if key == STATE => Some(Said::State(serde_json::from_slice(value).map_err(damaged)?)),
            _ => None,
        }
    })
}

/// The record of roots and rotation as it lies in the store.
pub(super) fn state_of(records: &[(String, Vec<u8>)]) -> Option<Vec<u8>> {
    records.iter().find(|(key, _)| key == STATE).map(|(_, value)| value.clone())
}

/// Whether a record is the one of roots and rotation.
pub(super) fn is_state(key: &str) -> bool {
    key == STATE
}

/// Roots and rotation have to be written down as they were, or somebody else has changed them.
pub(super) fn same_state(value: Option<Vec<u8>>) -> RecordWrite {
    RecordWrite::Require(STATE.into(), value)
}

/// A token has to be written down as it was, or somebody else has used or revoked it.
pub(super) fn same_token(token: &Token) -> Result<RecordWrite, serde_json::Error> {
    Ok(RecordWrite::Require(format!("{TOKEN}{}", token.id), Some(serde_json::to_vec(token)?)))
}

/// Writes roots and rotation.
pub(super) fn state(state: &State) -> Result<RecordWrite, serde_json::Error> {
    Ok(RecordWrite::Set(STATE.into(), serde_json::to_vec(state)?))
}

/// Writes what a control plane says of its nodes.
pub(super) fn report(name: &str, report: &Report) -> Result<RecordWrite, serde_json::Error> {
    Ok(RecordWrite::Set(format!("{REPORT}{name}"), serde_json::to_vec(report)?))
}

/// Forgets what a control plane said.
pub(super) fn no_report(name: &str) -> RecordWrite {
    RecordWrite::Remove(format!("{REPORT}{name}"))
}

/// The ids of all tokens that are written down, and the roots and identities of those that live.
pub(super) fn names(records: &[(String, Vec<u8>)]) -> (BTreeSet<&str>, BTreeSet<(&str, &str)>) {
    let tokens = records.iter().filter_map(|(key, _)| key.strip_prefix(TOKEN)).collect();
    (tokens, records.iter().filter_map(|(key, _)| key.strip_prefix(LIVE)?.split_once('/')).collect())
}

/// Writes a token.
pub(super) fn token(token: &Token) -> Result<RecordWrite, serde_json::Error> {
    Ok(RecordWrite::Set(format!("{TOKEN}{}", token.id), serde_json::to_vec(token)?))
}

/// Forgets a token.
pub(super) fn no_token(id: &str) -> RecordWrite {
    RecordWrite::Remove(format!("{TOKEN}{id}"))
}

/// Notes until when a root and an identity are in use.
pub(super) fn live(root: &str, id: &str, until_ms: u64) -> [RecordWrite; 2] {
    [RecordWrite::Raise(format!("{EXPIRY}{root}"), until_ms), RecordWrite::Raise(format!("{LIVE}{root}/{id}"), until_ms)]
}

/// Forgets an identity that has expired, unless it was renewed.
pub(super) fn not_live(root: &str, id: &str, until_ms: u64) -> RecordWrite {
    RecordWrite::Withdraw(format!("{LIVE}{root}/{id}"), until_ms.to_be_bytes().to_vec())
}

/// Forgets until when a root is in use.
pub(super) fn no_expiry(root: &str) -> RecordWrite {
    RecordWrite::Remove(format!("{EXPIRY}{root}"))
}
