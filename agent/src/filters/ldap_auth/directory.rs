//! A directory server: where it is, and the proof of a password by a bind (RFC 4511 section 4.2). It knows no requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heddle_node::sockets;
use ldap3::{LdapConnAsync, LdapConnSettings, StdStream, dn_escape};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use tokio::task::JoinHandle;

use super::config::Config;
use crate::net::{self, SystemRoots};
use crate::outbound::Url;

/// Where a directory server is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Host and port, an IPv6 address in brackets.
    authority: String,
    /// Name or address to connect to, and the port where one is named.
    host: String,
    port: Option<u16>,
    tls: bool,
}

impl Location {
    /// Reads the location of a server.
    ///
    /// # Errors
    /// In words.
    pub(super) fn parse(text: &str) -> Result<Location, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("ldap", rest)) => (false, rest),
            Some(("ldaps", rest)) => (true, rest),
            Some(_) => return Err(format!("`{text}` is no directory server: the scheme is neither ldap nor ldaps")),
            None => (false, text),
        };
        // Hosts and ports are written as in any URL.
        let url = Url::parse(&format!("http://{rest}")).map_err(|_| {
            format!("`{text}` is no directory server: expected host, host:port, ldap://host:port or ldaps://host:port")
        })?;
        if url.target != "/" {
            return Err(format!("`{text}` is no directory server: nothing may follow the port"));
        }
        let named = rest.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let (host, port) = (url.host, named.then_some(url.port));
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = port.map_or(shown.clone(), |port| format!("{shown}:{port}"));
        Ok(Location { authority, host, port, tls })
    }
}

/// What a server says about a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Right,
    Wrong,
}

/// A directory server to ask.
pub(super) struct Directory {
    url: String,
    host: String,
    port: u16,
    settings: LdapConnSettings,
    timeout: Duration,
    uid: String,
    base_dn: String,
    max_connections: usize,
    connections: Arc<AtomicUsize>,
}

/// A place among the connections.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What drives a connection; it ends with whoever asked.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Directory {
    /// The server of a configuration that has passed its check. `connections` counts those to it.
    ///
    /// # Errors
    /// Why TLS is not possible.
    pub(super) fn new(config: &Config, connections: Arc<AtomicUsize>) -> Result<Directory, String> {
        let location = Location::parse(&config.ldap_uri)?;
        let tls = location.tls || config.use_tls;
        let timeout = Duration::from_millis(config.timeout);
        let mut settings = LdapConnSettings::new().set_conn_timeout(timeout);
        if tls || config.use_starttls {
            settings = settings.set_starttls(config.use_starttls).set_config(client_config(config)?);
        }
        Ok(Directory {
            url: format!("{}://{}", if tls { "ldaps" } else { "ldap" }, location.authority),
            host: location.host,
            port: location.port.unwrap_or(if tls { 636 } else { 389 }),
            settings,
            timeout,
            uid: config.uid.clone(),
            base_dn: config.base_dn.clone(),
            max_connections: config.max_connections,
            connections,
        })
    }

    /// Name of a user's entry; what the user calls itself cannot reach beyond its own part (RFC 4514 section 2.4).
    pub(super) fn dn(&self, name: &str) -> String {
        format!("{}={},{}", self.uid, dn_escape(name), self.base_dn)
    }

    /// Where it is.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Proves a password, which must not be empty.
    ///
    /// # Errors
    /// In words: why there is no answer.
    pub(super) async fn prove(&self, dn: &str, password: &str) -> Result<Proof, String> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let _place = Place(self.connections.clone());
        if before >= self.max_connections {
            return Err(format!("{} connections are open already", self.max_connections));
        }
        let answered = tokio::time::timeout(self.timeout, self.bind(dn, password)).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout)))
    }

    async fn bind(&self, dn: &str, password: &str) -> Result<Proof, String> {
        let stream = sockets::connect_to(&self.host, self.port).await.map_err(|error| error.to_string())?;
        let stream = stream.into_std().map_err(|error| error.to_string())?;
        let settings = self.settings.clone().set_std_stream(StdStream::Tcp(stream));
        let opened = LdapConnAsync::with_settings(settings, &self.url).await;
        let (connection, mut ldap) = opened.map_err(|error| error.to_string())?;
        let _driver = Driver(tokio::spawn(async move { drop(connection.drive().await) }));
        let result = ldap.simple_bind(dn, password).await.map_err(|error| error.to_string())?;
        // The answer is here; whether the server hears the good-bye makes no difference.
        let _ = ldap.unbind().await;
        match result.rc {
            0 => Ok(Proof::Right),
            // noSuchObject, invalidDNSyntax, inappropriateAuthentication, invalidCredentials, insufficientAccessRights, unwillingToPerform
            32 | 34 | 48 | 49 | 50 | 53 => Ok(Proof::Wrong),
            code => Err(format!("result code {code}")),
        }
    }
}

fn client_config(config: &Config) -> Result<Arc<ClientConfig>, String> {
    let roots = match (&config.ca, config.tls_verify) {
        (_, false) => None,
        (Some(pem), true) => Some(Arc::new(net::roots_of_pem(pem)?)),
        (None, true) => Some(SystemRoots::default().get()?),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    net::client_config(&provider, roots, None, &[]).map(Arc::new)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn servers_are_named_in_several_ways() {
        let is = |authority: &str, host: &str, port, tls| {
            Ok(Location { authority: authority.to_owned(), host: host.to_owned(), port, tls })
        };
        assert_eq!(Location::parse("ldap.example"), is("ldap.example", "ldap.example", None, false));
        assert_eq!(Location::parse("localhost:1389"), is("localhost:1389", "localhost", Some(1389), false));
        assert_eq!(Location::parse("host:80"), is("host:80", "host", Some(80), false));
        assert_eq!(Location::parse("ldap://[::1]:389/"), is("[::1]:389", "::1", Some(389), false));
        assert_eq!(Location::parse("ldap://[::1]"), is("[::1]", "::1", None, false));
        assert_eq!(Location::parse("ldaps://h"), is("h", "h", None, true));
        for wrong in ["", "http://h", "ldap://", "h:x", "ldap://h/dc=x", "h h", "ldap://u:p@h"] {
            assert!(Location::parse(wrong).unwrap_err().contains("no directory server"), "{wrong}");
        }
    }
}
