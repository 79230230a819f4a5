//! Reading one HTTP/1 answer of known length and judging it. It does not know what carries the bytes.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head that is looked at; no proxy of a benchmark sends more.
const LONGEST_HEAD: usize = 16 * 1024;

/// Tells whether these bytes are a whole answer: status 200 and a body of exactly `length` bytes. `None`: more must come.
pub fn judge(bytes: &[u8], length: usize) -> Option<Result<(), String>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (bytes.len() > LONGEST_HEAD).then(|| Err("the head does not end".to_owned()));
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 200") {
        return Some(Err(format!("answer: {}", head.lines().next().unwrap_or_default())));
    }
    let said = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    if said != Some(length) {
        return Some(Err(format!("content-length {said:?}, expected {length}")));
    }
    match (bytes.len() - end - 4).cmp(&length) {
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(Ok(())),
        std::cmp::Ordering::Greater => Some(Err("more bytes than the answer has".to_owned())),
    }
}

/// Reads one answer.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>, length: usize) -> Result<(), String> {
    buffer.clear();
    loop {
        let read = stream.read_buf(buffer).await.map_err(|error| format!("read: {error}"))?;
        if let Some(judged) = judge(buffer, length) {
            return judged;
        }
        if read == 0 {
            return Err(format!("closed after {} bytes of an answer", buffer.len()));
        }
    }
}

/// A request for `/`.
pub fn request(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
}
