//! Connections to the members of an etcd cluster: where they are, TLS, keepalive. It knows no request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heddle_node::config::Secret;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::store::StoreError;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A member that is silent this long is asked whether it is there, and given up after [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a PEM file.
const MAX_PEM: u64 = 1 << 20;

/// Where the cluster is and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port` of each member.
    pub endpoints: Vec<String>,
    /// What all keys begin with; ends with `/`.
    pub prefix: String,
    /// Name and password, where the cluster asks for them.
    pub login: Option<(String, Secret)>,
    /// What TLS trusts and shows.
    pub tls: EtcdTls,
    /// How often the leader lets etcd forget its own history before the time before; `None`: that is left to etcd.
    pub compact: Option<Duration>,
}

/// TLS towards the members, for `https` endpoints. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Roots of the members' certificates.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A channel to each member. Nothing is connected yet; each connects when it is used, and again when it was lost.
pub(super) fn channels(settings: &EtcdSettings) -> Result<Vec<Channel>, StoreError> {
    let secure = settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let config = secure.then(|| client_config(&settings.tls)).transpose()?;
    let channels: Result<Vec<Channel>, StoreError> =
        settings.endpoints.iter().map(|address| channel(address, config.clone())).collect();
    let channels = channels?;
    if channels.is_empty() {
        return Err(StoreError::Unusable("store.etcd.endpoints: expected at least one endpoint".into()));
    }
    Ok(channels)
}

fn channel(address: &str, config: Option<Arc<ClientConfig>>) -> Result<Channel, StoreError> {
    let bad = || {
        StoreError::Unusable(format!("store.etcd.endpoints: expected http://host:port or https://host:port, found `{address}`"))
    };
    let uri: Uri = address.parse().map_err(|_| bad())?;
    let (Some(host), Some(port), Some(scheme)) = (uri.host(), uri.port_u16(), uri.scheme_str()) else { return Err(bad()) };
    let endpoint = Endpoint::from(uri.clone())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match (scheme, config) {
        ("http", _) => Ok(endpoint.connect_lazy()),
        ("https", Some(config)) => {
            let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
            let connector = service_fn(move |_: Uri| {
                let (host, name, tls) = (host.clone(), name.clone(), TlsConnector::from(config.clone()));
                async move {
                    let stream = TcpStream::connect((host.as_str(), port)).await?;
                    stream.set_nodelay(true)?;
                    Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
                }
            });
            Ok(endpoint.connect_with_connector_lazy(connector))
        }
        _ => Err(bad()),
    }
}

fn client_config(tls: &EtcdTls) -> Result<Arc<ClientConfig>, StoreError> {
    let Some(ca) = &tls.ca else {
        return Err(StoreError::Unusable(
            "store.etcd.tls.ca: expected a PEM file with the roots of the members' certificates".into(),
        ));
    };
    let fault =
        |path: &PathBuf, why: &dyn std::fmt::Display| StoreError::Unusable(format!("store.etcd.tls: {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(ca)?) {
        roots.add(certificate.map_err(|error| fault(ca, &error))?).map_err(|error| fault(ca, &error))?;
    }
    if roots.is_empty() {
        return Err(fault(ca, &"no certificate in it"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Unusable(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(&read(certificate)?).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| fault(certificate, &error))?;
            let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| fault(key, &error))?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| fault(certificate, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, StoreError> {
    use std::io::Read;
    let fault = |error: std::io::Error| StoreError::Unusable(format!("store.etcd.tls: {}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(fault)?.take(MAX_PEM).read_to_end(&mut bytes).map_err(fault)?;
    Ok(bytes)
}
