//! `store:`: how much history is kept, and the cluster that keeps it when several control planes share it.

use std::path::PathBuf;
use std::time::Duration;

use heddle_node::config::{Secret, Section};

use crate::seal::Seal;
use crate::store::{EtcdSettings, EtcdTls};

/// Changes that can be rolled back in any case.
const DEFAULT_KEEP_REVISIONS: u64 = 10_000;
/// Changes younger than this can be rolled back too: a long weekend and the week before.
const DEFAULT_KEEP_FOR: Duration = Duration::from_secs(14 * 24 * 3600);
/// What keys begin with when nothing is said.
const DEFAULT_PREFIX: &str = "/heddle/";
/// Etcd keeps at least this of its own history.
const SHORTEST_HISTORY: Duration = Duration::from_secs(60);
/// Members of a cluster.
const MOST_ENDPOINTS: usize = 16;
/// Bytes of a prefix.
const MOST_PREFIX: usize = 128;
/// Bytes of a password file.
const MOST_PASSWORD: u64 = 4_096;

/// How much history the store keeps (whatever satisfies one of these), and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// This many newest revisions.
    pub keep_revisions: u64,
    /// Everything younger than this.
    pub keep_for: Duration,
    /// `secrets_key`, `secrets_key_file`
    pub secrets_key: SecretsKey,
    /// `etcd:`; `None`: one file below `data_dir`, for one control plane.
    pub etcd: Option<EtcdSettings>,
}

/// Where the key is that encrypts secrets in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecretsKey {
    /// In a file below `data_dir`, which is made at the first start.
    #[default]
    Made,
    /// In this file, which somebody else has made.
    File(PathBuf),
    /// In the configuration, where it stands for a variable of the environment.
    Given(Secret),
}

impl StoreSettings {
    pub(super) fn read(section: &mut Section<'_>) -> StoreSettings {
        StoreSettings {
            keep_revisions: section.integer("keep_revisions", 1..=u64::MAX).unwrap_or(DEFAULT_KEEP_REVISIONS),
            keep_for: section.duration("keep_for").unwrap_or(DEFAULT_KEEP_FOR),
            secrets_key: secrets_key(section),
            etcd: section.optional("etcd", etcd),
        }
    }
}

fn secrets_key(section: &mut Section<'_>) -> SecretsKey {
    match (section.secret("secrets_key"), section.path("secrets_key_file")) {
        (Some(_), Some(_)) => {
            section.mistake("secrets_key", "expected either `secrets_key` or `secrets_key_file`");
            SecretsKey::Made
        }
        (Some(key), None) => {
            // The text itself is never shown.
            if let Err(why) = Seal::of_text(key.reveal()) {
                section.mistake("secrets_key", format!("{why}; make one with `openssl rand -base64 32`"));
            }
            SecretsKey::Given(key)
        }
        (None, Some(file)) => SecretsKey::File(file),
        (None, None) => SecretsKey::Made,
    }
}

fn etcd(section: &mut Section<'_>) -> EtcdSettings {
    let endpoints = endpoints(section);
    let prefix = prefix(section);
    let secure = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let tls = section.nested("tls", |tls| {
        if secure {
            tls.require("ca");
        }
        let (ca, certificate, key) = (tls.path("ca"), tls.path("certificate"), tls.path("key"));
        if certificate.is_some() != key.is_some() {
            tls.mistake("certificate", "expected both `certificate` and `key`, or neither");
        }
        EtcdTls { ca, client: certificate.zip(key) }
    });
    let compact = section.duration("compact");
    if compact.is_some_and(|every| every < SHORTEST_HISTORY) {
        section.mistake("compact", "expected at least 1m: backups and watches read that far back");
    }
    EtcdSettings { endpoints, prefix, login: login(section), tls, compact }
}

/// At least one, all alike.
fn endpoints(section: &mut Section<'_>) -> Vec<String> {
    let endpoints = section.require("endpoints").strings("endpoints").unwrap_or_default();
    if endpoints.is_empty() || endpoints.len() > MOST_ENDPOINTS {
        section.mistake("endpoints", format!("expected 1 to {MOST_ENDPOINTS} members"));
    }
    for endpoint in &endpoints {
        let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
        let port =
            rest.and_then(|rest| rest.trim_end_matches('/').rsplit_once(':')).and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            section.mistake("endpoints", format!("expected http://host:port or https://host:port, found `{endpoint}`"));
        }
    }
    endpoints
}

fn prefix(section: &mut Section<'_>) -> String {
    let prefix = section.name("prefix").unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
    let good = prefix.len() <= MOST_PREFIX && prefix.bytes().all(|byte| byte.is_ascii_graphic()) && !prefix.is_empty();
    if !good {
        section.mistake("prefix", format!("expected 1 to {MOST_PREFIX} visible ASCII characters, found `{prefix}`"));
    }
    if prefix.ends_with('/') { prefix } else { format!("{prefix}/") }
}

/// Name and password, the latter from a file.
fn login(section: &mut Section<'_>) -> Option<(String, Secret)> {
    let (name, file) = (section.name("username"), section.path("password_file"));
    match (name, file) {
        (Some(name), Some(file)) => match read(&file) {
            Ok(password) => Some((name, Secret::new(password.trim_end_matches(['\r', '\n']).to_owned()))),
            Err(error) => {
                section.mistake("password_file", format!("{}: {error}", file.display()));
                None
            }
        },
        (None, None) => None,
        _ => {
            section.mistake("username", "expected both `username` and `password_file`, or neither");
            None
        }
    }
}

fn read(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MOST_PASSWORD).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use heddle_node::config::{Document, Expansion, Format};

    use super::*;

    fn settings(text: &str) -> Result<StoreSettings, String> {
        let document = Document::parse("heddle.yaml", text, Format::Yaml, Expansion::Off).map_err(|m| m.to_string())?;
        document.read(StoreSettings::read).map_err(|m| m.to_string())
    }

    #[test]
    fn a_cluster_is_read_with_all_that_belongs_to_it() {
        assert_eq!(settings("").unwrap().etcd, None);
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "hush\n").unwrap();
        let text = format!(
            "etcd: {{ endpoints: [\"https://10.0.0.1:2379\", \"https://10.0.0.2:2379\"], prefix: /edge, username: heddle, password_file: {}, compact: 1h, \
             tls: {{ ca: ca.pem, certificate: c.pem, key: k.pem }} }}",
            password.display()
        );
        let read = settings(&text).unwrap();
        assert!(!format!("{read:?}").contains("hush"));
        let etcd = read.etcd.unwrap();
        assert_eq!((etcd.endpoints.len(), etcd.prefix.as_str()), (2, "/edge/"));
        assert_eq!(etcd.compact, Some(Duration::from_secs(3_600)));
        assert_eq!(etcd.login, Some(("heddle".to_owned(), Secret::new("hush".to_owned()))));
        assert_eq!(etcd.tls, EtcdTls { ca: Some("ca.pem".into()), client: Some(("c.pem".into(), "k.pem".into())) });
        let plain = settings("etcd: { endpoints: [\"http://127.0.0.1:2379\"] }").unwrap().etcd.unwrap();
        assert_eq!((plain.prefix.as_str(), plain.login, plain.tls), ("/heddle/", None, EtcdTls::default()));
    }

    #[test]
    fn the_key_of_secrets_comes_from_where_it_is_said() {
        let key = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";
        let read = settings(&format!("secrets_key: {key}")).unwrap();
        assert_eq!(read.secrets_key, SecretsKey::Given(Secret::new(key.to_owned())));
        assert!(!format!("{read:?}").contains(key));
        assert_eq!(
            settings("secrets_key_file: /run/secrets/heddle").unwrap().secrets_key,
            SecretsKey::File("/run/secrets/heddle".into())
        );
        assert_eq!(settings("").unwrap().secrets_key, SecretsKey::Made);
        let told = settings("secrets_key: hush-hush-hush").unwrap_err();
        assert!(!told.contains("hush"), "{told}");
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        for (text, expected) in [
            ("secrets_key: c2hvcnQ=", "expected 32 bytes in base64; make one with `openssl rand -base64 32`"),
            ("secrets_key: x\nsecrets_key_file: y", "expected either `secrets_key` or `secrets_key_file`"),
            ("etcd: {}", "the key `endpoints` is missing"),
            ("etcd: { endpoints: [] }", "expected 1 to 16 members"),
            ("etcd: { endpoints: [\"localhost\"] }", "expected http://host:port"),
            ("etcd: { endpoints: [\"https://a:1\"] }", "the key `ca` is missing"),
            ("etcd: { endpoints: [\"http://a:1\"], username: x }", "expected both `username` and `password_file`"),
            ("etcd: { endpoints: [\"http://a:1\"], username: x, password_file: /nowhere }", "/nowhere: "),
            ("etcd: { endpoints: [\"http://a:1\"], tls: { certificate: x } }", "expected both `certificate` and `key`"),
        ] {
            let told = settings(text).unwrap_err();
            assert!(told.contains(expected), "{expected} is not in:\n{told}");
        }
    }
}
