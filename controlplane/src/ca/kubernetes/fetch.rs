//! One small GET over HTTP/1.1, with TLS to given roots. It knows nothing of what it brings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ca::authority::read;

/// For all of it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const MAX_BODY: usize = 256 * 1024;
/// API servers serve their keys as nothing but the first, and refuse (406) who asks for JSON alone; other servers of key sets say the second.
const KINDS: &str = "application/jwk-set+json, application/json";

/// The body of what lies at `url`, or in words why there is none.
pub(super) async fn get(url: &str, ca_file: Option<&Path>, token_file: Option<&Path>) -> Result<String, String> {
    let asked = tokio::time::timeout(PATIENCE, ask(url, ca_file, token_file)).await;
    asked.unwrap_or_else(|_| Err("no answer in time".into())).map_err(|why| format!("{url}: {why}"))
}

async fn ask(url: &str, ca_file: Option<&Path>, token_file: Option<&Path>) -> Result<String, String> {
    let uri: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
    let host = uri.host().ok_or("it has no host")?.to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let name = host.trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((name.as_str(), port)).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(header::HOST, format!("{host}:{port}")).header(header::ACCEPT, KINDS);
    if let Some(file) = token_file {
        let token = read(file).map_err(|error| error.to_string())?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let request = request.body(Body::empty()).map_err(|error| error.to_string())?;
    if !secure {
        return exchange(stream, request).await;
    }
    let mut roots = RootCertStore::empty();
    let pem = ca_file.map(read).transpose().map_err(|error| error.to_string())?.unwrap_or_default();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, stream).await.map_err(|error| error.to_string())?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let body = match answer {
        Ok(answer) if answer.status() != 200 => Err(format!("answered with {}", answer.status())),
        Ok(answer) => axum::body::to_bytes(Body::new(answer.into_body()), MAX_BODY).await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    connection.abort();
    String::from_utf8(body?.to_vec()).map_err(|_| "the answer is no text".to_owned())
}
