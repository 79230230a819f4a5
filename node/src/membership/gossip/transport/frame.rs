//! Frames of a gossip stream: a length, a kind, and that many bytes. Bounded in size; it knows neither TLS nor chitchat.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::doorman::Refusal;
use super::super::wire::MAX_MESSAGE_BYTES;

/// Version of these frames, said in the first one.
const VERSION: &str = "heddle-gossip 1";
/// The longest hello.
const MAX_HELLO: usize = 1_024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Who opened the stream.
    Hello(Hello),
    /// A message of chitchat.
    Message(Bytes),
    /// Why nothing will come of this stream.
    Refused(Refusal),
}

/// What the one that opens a stream says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    /// Where its gossip is reached.
    pub(super) address: SocketAddr,
    /// Which fleet, and which cell of it.
    pub(super) cluster: String,
}

impl Frame {
    fn encode(&self) -> (u8, Bytes) {
        match self {
            Frame::Hello(hello) => (1, format!("{VERSION}\n{}\n{}", hello.address, hello.cluster).into()),
            Frame::Message(bytes) => (2, bytes.clone()),
            Frame::Refused(Refusal::Full) => (3, Bytes::from_static(b"full")),
            Frame::Refused(Refusal::Cluster) => (3, Bytes::from_static(b"cluster")),
        }
    }

    fn decode(kind: u8, bytes: Vec<u8>) -> Option<Frame> {
        match (kind, &*bytes) {
            (1, _) if bytes.len() <= MAX_HELLO => {
                let text = String::from_utf8(bytes).ok()?;
                let mut lines = text.splitn(3, '\n');
                let (version, address, cluster) = (lines.next()?, lines.next()?, lines.next()?);
                let address = address.parse().ok().filter(|_| version == VERSION)?;
                Some(Frame::Hello(Hello { address, cluster: cluster.to_owned() }))
            }
            (2, _) => Some(Frame::Message(bytes.into())),
            (3, b"full") => Some(Frame::Refused(Refusal::Full)),
            (3, b"cluster") => Some(Frame::Refused(Refusal::Cluster)),
            _ => None,
        }
    }
}

/// Reads the length of the next frame; the end of the stream between frames is `None`.
pub(super) async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>> {
    let mut first = [0; 4];
    match stream.read_exact(&mut first).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(first) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes; at most {MAX_MESSAGE_BYTES}")));
    }
    Ok(Some(length))
}

/// Reads the frame whose length has been read.
pub(super) async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Frame> {
    let kind = stream.read_u8().await?;
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Frame::decode(kind, bytes).ok_or_else(|| Error::new(ErrorKind::InvalidData, "no frame of gossip"))
}

/// Writes a frame.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<()> {
    let (kind, bytes) = frame.encode();
    let length = u32::try_from(bytes.len()).map_err(|_| Error::new(ErrorKind::InvalidInput, "a frame too long"))?;
    let mut head = [0; 5];
    head[..4].copy_from_slice(&length.to_be_bytes());
    head[4] = kind;
    stream.write_all(&head).await?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn there_and_back(frame: &Frame) -> Frame {
        let mut bytes = Vec::new();
        write(&mut bytes, frame).await.unwrap();
        let mut stream = &bytes[..];
        let length = read_length(&mut stream).await.unwrap().unwrap();
        let read = read_body(&mut stream, length).await.unwrap();
        assert_eq!(read_length(&mut stream).await.unwrap(), None);
        read
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let hello = Hello { address: "[::1]:7946".parse().unwrap(), cluster: "default/eu-1".into() };
        let message = Frame::Message(Bytes::from_static(b"hi"));
        for frame in [Frame::Hello(hello), message, Frame::Refused(Refusal::Full), Frame::Refused(Refusal::Cluster)] {
            assert_eq!(there_and_back(&frame).await, frame);
        }
    }

    #[tokio::test]
    async fn nonsense_is_refused() {
        let huge = u32::MAX.to_be_bytes();
        assert!(read_length(&mut &huge[..]).await.is_err());
        let hello = [&[1][..], b"heddle-gossip 2\n1.1.1.1:1\nx"].concat();
        assert!(read_body(&mut &hello[..], hello.len() - 1).await.is_err());
        assert!(read_body(&mut &[9, 1][..], 1).await.is_err());
    }
}
