//! What a provider says of itself (OpenID Connect Discovery section 3). It opens no connections.

use serde::Deserialize;

use crate::filters::jose::Algorithm;
use crate::outbound::Url;

/// A discovery document, as far as it is of use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Metadata {
    /// Who it is.
    pub issuer: String,
    /// Where people log in.
    pub authorization_endpoint: Option<String>,
    /// Where codes become tokens.
    pub token_endpoint: Option<String>,
    /// Where its keys are.
    pub jwks_uri: Option<String>,
    /// Where it says who the user is.
    pub userinfo_endpoint: Option<String>,
    /// Where it says whether a token is good.
    pub introspection_endpoint: Option<String>,
    /// Where people log out.
    pub end_session_endpoint: Option<String>,
    /// Where tokens are revoked.
    pub revocation_endpoint: Option<String>,
    /// Where the parameters of a login are pushed to.
    pub pushed_authorization_request_endpoint: Option<String>,
    /// How it signs ID tokens.
    #[serde(default)]
    id_token_signing_alg_values_supported: Vec<String>,
    /// Whether its answers to browsers name it (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Metadata {
    /// Reads what was fetched from `discovery`.
    ///
    /// # Errors
    /// In words: it is no such document, or an endpoint is less safe than the document itself.
    pub(crate) fn parse(json: &[u8], discovery: &str) -> Result<Metadata, String> {
        let read: Metadata = serde_json::from_slice(json).map_err(|error| format!("it is no discovery document: {error}"))?;
        if read.issuer.is_empty() {
            return Err("it names no issuer".to_owned());
        }
        let https = discovery.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
        for (name, url) in read.endpoints() {
            let url = Url::parse(url).map_err(|error| format!("{name}: {error}"))?;
            if https && !url.https {
                return Err(format!("{name} is not https, though the document came over https"));
            }
        }
        Ok(read)
    }

    /// The algorithms by which it may sign ID tokens: those it names that need no shared secret, or RS256 (OpenID Connect Core section 15.1).
    pub(crate) fn id_token_algorithms(&self) -> Vec<Algorithm> {
        let named = self.id_token_signing_alg_values_supported.iter().filter_map(|name| Algorithm::of_name(name));
        let named: Vec<_> = named.filter(|algorithm| !algorithm.is_symmetric()).collect();
        if named.is_empty() { vec![Algorithm::RS256] } else { named }
    }

    fn endpoints(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("jwks_uri", &self.jwks_uri),
            ("userinfo_endpoint", &self.userinfo_endpoint),
            ("introspection_endpoint", &self.introspection_endpoint),
            ("end_session_endpoint", &self.end_session_endpoint),
            ("revocation_endpoint", &self.revocation_endpoint),
            ("pushed_authorization_request_endpoint", &self.pushed_authorization_request_endpoint),
        ]
        .into_iter()
        .filter_map(|(name, url)| Some((name, url.as_deref()?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_document_is_read_as_far_as_it_is_of_use() {
        let json = br#"{"issuer":"https://p","token_endpoint":"https://p/t","id_token_signing_alg_values_supported":["none","HS256","ES256","X"],"more":1}"#;
        let metadata = Metadata::parse(json, "https://p/.well-known/openid-configuration").unwrap();
        assert_eq!((metadata.issuer.as_str(), metadata.token_endpoint.as_deref()), ("https://p", Some("https://p/t")));
        assert_eq!(metadata.id_token_algorithms(), [Algorithm::ES256]);
        let bare =
            Metadata::parse(br#"{"issuer":"https://p","id_token_signing_alg_values_supported":["none"]}"#, "http://p").unwrap();
        assert_eq!(bare.id_token_algorithms(), [Algorithm::RS256]);
    }

    #[test]
    fn what_is_no_document_or_unsafe_is_refused() {
        let wrong = |json: &str, from| Metadata::parse(json.as_bytes(), from).unwrap_err();
        assert!(wrong("<html>", "https://p").contains("no discovery document"));
        assert!(wrong("{}", "https://p").contains("issuer"));
        assert!(wrong(r#"{"issuer":""}"#, "https://p").contains("issuer"));
        let plain = r#"{"issuer":"https://p","token_endpoint":"http://p/t"}"#;
        assert!(wrong(plain, "HTTPS://p").contains("token_endpoint is not https"));
        assert!(Metadata::parse(plain.as_bytes(), "http://p").is_ok());
        assert!(
            wrong(r#"{"issuer":"x","authorization_endpoint":"javascript:alert(1)"}"#, "http://p")
                .contains("authorization_endpoint")
        );
    }
}
