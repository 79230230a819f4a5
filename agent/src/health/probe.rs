//! One probe of one endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use heddle_node::sockets;
use heddle_xds::model::{ActiveCheck, CheckKind};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::Finding;
use crate::http::ResponseHead;
use crate::http::h1::{HeadLimits, RequestKind, ResponseParser};

/// Bounds on the head of an answer to a probe; its body is not read.
const LIMITS: HeadLimits = HeadLimits {
    max_bytes: 32 * 1024,
    max_field: 16 * 1024,
    max_fields: 128,
    max_target: 0,
    connect: false,
    any_authority: false,
};

/// What is probed.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Where, the port of the check applied.
    pub address: SocketAddr,
    /// Value of `Host`.
    pub host: Arc<str>,
    /// Name that the certificate is for.
    pub server_name: Option<ServerName<'static>>,
    /// TLS, for [`CheckKind::Https`].
    pub tls: Option<Arc<ClientConfig>>,
    /// How.
    pub check: Arc<ActiveCheck>,
}

impl Probe {
    /// Does it. Never takes longer than the check's timeout.
    pub async fn run(&self) -> Finding {
        let limit = if self.check.timeout.is_zero() { Duration::from_secs(1) } else { self.check.timeout };
        match tokio::time::timeout(limit, self.attempt()).await {
            Ok(Some(finding)) => finding,
            Ok(None) => Finding::Broken,
            Err(_) => Finding::TimedOut,
        }
    }

    async fn attempt(&self) -> Option<Finding> {
        let tcp = sockets::connect(self.address).await.ok()?;
        match self.check.kind {
            CheckKind::Tcp => Some(Finding::Connected),
            CheckKind::Http => self.ask(tcp).await,
            CheckKind::Https => {
                let connector = TlsConnector::from(self.tls.clone()?);
                self.ask(connector.connect(self.server_name.clone()?, tcp).await.ok()?).await
            }
        }
    }

    async fn ask(&self, mut io: impl AsyncRead + AsyncWrite + Unpin) -> Option<Finding> {
        io.write_all(self.request().as_bytes()).await.ok()?;
        let mut input = BytesMut::with_capacity(4096);
        let kind = if &*self.check.method == "HEAD" { RequestKind::Head } else { RequestKind::Other };
        loop {
            let mut parser = ResponseParser::new(LIMITS, kind);
            let mut head = ResponseHead::default();
            while let Some(parsed) = parser.advance(&input, &mut head).ok()? {
                if head.status >= 200 {
                    return Some(Finding::Status(head.status));
                }
                let _ = input.split_to(parsed.consumed);
                (parser, head) = (ResponseParser::new(LIMITS, kind), ResponseHead::default());
            }
            if io.read_buf(&mut input).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn request(&self) -> String {
        let check = &self.check;
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", check.method, check.path, self.host);
        let named = |wanted: &str| check.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if !named("user-agent") {
            text.push_str("user-agent: heddle-health\r\n");
        }
        if !check.body.is_empty() {
            text.push_str(&format!("content-length: {}\r\n", check.body.len()));
        }
        for (name, value) in &check.headers {
            let framing =
                ["host", "connection", "content-length", "transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own));
            if !framing {
                text.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        text.push_str("\r\n");
        text.push_str(&check.body);
        text
    }
}
