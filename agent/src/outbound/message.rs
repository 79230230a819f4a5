//! What is asked and answered, what can go wrong, and one exchange over one connection. It opens no connections.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::http::h1::{
    BodyDecoder, BodyLength, HeadLimits, ParsedResponse, Persistence, RequestKind, ResponseParser, Step, WireLength,
    write_request_head,
};
use crate::http::{BodyError, Fields, Method, Name, RequestHead, ResponseHead};

/// A question.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Path and query, starting with `/`; the target of the remote's URL when empty.
    pub target: String,
    /// Fields. `Host` is taken from the URL unless it is here; framing and `Connection` are the client's own and are left out.
    pub fields: Fields,
    /// Content.
    pub body: Bytes,
}

/// An answer, whole. Redirects and errors are answers like all others: nothing is followed.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Status and fields, hop-by-hop fields still there as received.
    pub head: ResponseHead,
    /// Content; trailers are dropped.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CallError {
    /// As many calls as allowed are in flight to this server on this worker; nothing waits in line.
    #[error("{0} calls are in flight already")]
    Busy(usize),
    /// The whole call took longer than allowed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The name of the server has no address.
    #[error("{0}")]
    Dns(String),
    /// No connection.
    #[error("{0}")]
    Connect(String),
    /// No TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The server closed or reset before its answer was complete.
    #[error("the server closed the connection before its answer was complete")]
    Closed,
    /// What came is no answer, or what should go out is no request.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The content of the answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(u64),
}

/// A try that failed.
pub(super) struct Failed {
    pub(super) error: CallError,
    /// Not a byte of an answer had come: on a connection that had served before, that says nothing about the server.
    pub(super) silent: bool,
}

/// Bounds on the heads of answers: what a server may say around its content.
const HEAD: HeadLimits = HeadLimits {
    max_bytes: 64 * 1024,
    max_field: 32 * 1024,
    max_fields: 256,
    max_target: 0,
    connect: false,
    any_authority: false,
};
/// Most bytes of chunk extensions.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Most interim responses before the final one.
const MAX_INTERIM: usize = 16;
/// Content up to this size goes out in one write with its head.
const COPY_BELOW: usize = 16 * 1024;
/// Room made for one read.
const READ_ROOM: usize = 8 * 1024;

/// Asks on a connection. The flag says whether the connection may carry another call.
pub(super) async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    call: &Call,
    target: &str,
    authority: &str,
    max_body: u64,
) -> Result<(Reply, bool), Failed> {
    let (head, body) = written(call, target, authority);
    let (read, mut write) = tokio::io::split(stream);
    let sending = async {
        write.write_all(&head).await?;
        write.write_all(&body).await?;
        write.flush().await
    };
    let kind = if call.method == Method::Head { RequestKind::Head } else { RequestKind::Other };
    let receiving = receive(read, kind, max_body);
    tokio::pin!(sending, receiving);
    let mut sent: Option<io::Result<()>> = None;
    // The answer is listened for while the question is still going out: a server may refuse early, and then close.
    let received = loop {
        tokio::select! {
            biased;
            done = &mut sending, if sent.is_none() => sent = Some(done),
            received = &mut receiving => break received,
        }
    };
    received.map(|(reply, persists)| (reply, persists && matches!(sent, Some(Ok(())))))
}

/// The question as it goes out: its head, with the content behind it where that is short, and the content otherwise.
fn written(call: &Call, target: &str, authority: &str) -> (Vec<u8>, Bytes) {
    let mut fields = call.fields.clone();
    if fields.get("user-agent").is_none() {
        fields.append("user-agent", "heddle");
    }
    let host = fields.get_known(Name::Host).and_then(|host| std::str::from_utf8(host).ok()).unwrap_or(authority).to_owned();
    let length = match (&call.method, call.body.len() as u64) {
        (Method::Post | Method::Put | Method::Patch, bytes) => WireLength::Known(bytes),
        (_, 0) => WireLength::Absent,
        (_, bytes) => WireLength::Known(bytes),
    };
    let head = RequestHead { method: call.method.clone(), path: target.to_owned(), fields, ..RequestHead::default() };
    let mut out = Vec::with_capacity(512);
    write_request_head(&mut out, &head, &host, length, Persistence::Default);
    if call.body.len() > COPY_BELOW {
        return (out, call.body.clone());
    }
    out.extend_from_slice(&call.body);
    (out, Bytes::new())
}

/// Reads an answer, and says whether the connection may carry another one.
async fn receive(stream: impl AsyncRead + Unpin, kind: RequestKind, max_body: u64) -> Result<(Reply, bool), Failed> {
    let mut heard = false;
    let received = receive_all(stream, kind, max_body, &mut heard).await;
    received.map_err(|error| Failed { silent: !heard && error == CallError::Closed, error })
}

async fn receive_all(
    mut stream: impl AsyncRead + Unpin,
    kind: RequestKind,
    max_body: u64,
    heard: &mut bool,
) -> Result<(Reply, bool), CallError> {
    let mut input = BytesMut::new();
    for _ in 0..MAX_INTERIM {
        let (head, parsed) = receive_head(&mut stream, &mut input, kind, heard).await?;
        if head.status == 101 {
            return Err(CallError::Malformed("101 without having been asked to switch protocols".to_owned()));
        }
        if head.status >= 200 {
            let body = receive_body(&mut stream, &mut input, parsed.length, max_body).await?;
            return Ok((Reply { head, body }, parsed.persists && input.is_empty()));
        }
    }
    Err(CallError::Malformed("too many interim responses".to_owned()))
}

async fn receive_head(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    kind: RequestKind,
    heard: &mut bool,
) -> Result<(ResponseHead, ParsedResponse), CallError> {
    let mut parser = ResponseParser::new(HEAD, kind);
    let mut head = ResponseHead::default();
    loop {
        if let Some(parsed) = parser.advance(input, &mut head).map_err(|fault| CallError::Malformed(fault.to_string()))? {
            let _ = input.split_to(parsed.consumed);
            return Ok((head, parsed));
        }
        fill(stream, input).await?;
        *heard = true;
    }
}

async fn receive_body(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    length: BodyLength,
    max_body: u64,
) -> Result<Bytes, CallError> {
    if let BodyLength::Known(bytes) = length
        && bytes > max_body
    {
        return Err(CallError::TooLarge(max_body));
    }
    // For the decoder, zero is no limit.
    let mut decoder = BodyDecoder::new(length, &HEAD, max_body.max(1), MAX_EXTENSIONS);
    let (mut first, mut all) = (Bytes::new(), Vec::new());
    loop {
        match decoder.decode(input).map_err(fault)? {
            Step::Data(bytes) if first.is_empty() => first = bytes,
            Step::Data(bytes) => {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&bytes);
            }
            Step::Trailers(_) => {}
            Step::End => return Ok(if all.is_empty() { first } else { Bytes::from(all) }),
            Step::More => match fill(stream, input).await {
                Ok(()) => {}
                Err(CallError::Closed) => decoder.end_of_input().map_err(fault)?,
                Err(error) => return Err(error),
            },
        }
    }
}

fn fault(error: BodyError) -> CallError {
    match error {
        BodyError::TooLarge(limit) => CallError::TooLarge(limit),
        BodyError::Aborted => CallError::Closed,
        other => CallError::Malformed(other.to_string()),
    }
}

/// Reads on. The end of the stream and a reset are the same here: whoever can do without more knows it.
async fn fill(stream: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> Result<(), CallError> {
    if input.capacity() - input.len() < READ_ROOM / 4 {
        input.reserve(READ_ROOM);
    }
    match stream.read_buf(input).await {
        Ok(0) | Err(_) => Err(CallError::Closed),
        Ok(_) => Ok(()),
    }
}

/// Whether this can stand in a request line as its target.
pub(super) fn is_target(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}
