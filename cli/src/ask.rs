//! Asking a node's own HTTP endpoint one thing. It knows neither the question nor what is made of the answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use heddle_node::token;

/// How long a node may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// A question.
#[derive(Debug)]
pub struct Question<'a> {
    /// Who is asked.
    pub at: SocketAddr,
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Admin key, which a control plane wants.
    pub key: Option<&'a str>,
    /// The token of the node's folder.
    pub token: Option<&'a str>,
    /// How long the answer may take.
    pub patience: Duration,
    /// Most bytes of the answer.
    pub most: u64,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status, 0 where there was none.
    pub status: u16,
    /// Its body.
    pub body: String,
}

impl Question<'_> {
    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask(&self) -> std::io::Result<Answer> {
        if self.key.is_some_and(|key| key.contains(|c: char| c.is_control())) {
            return Err(std::io::Error::other("the key has control characters in it"));
        }
        let mut stream = TcpStream::connect_timeout(&self.at, CONNECT)?;
        stream.set_read_timeout(Some(self.patience))?;
        let key = self.key.map(|key| format!("x-api-key: {key}\r\n")).unwrap_or_default();
        let token = self.token.map(|token| format!("{}: {token}\r\n", token::FIELD)).unwrap_or_default();
        // HTTP/1.0, so that the answer comes in one piece and ends with the connection.
        let Question { method, target, at, .. } = self;
        let request =
            format!("{method} {target} HTTP/1.0\r\nhost: {at}\r\n{key}{token}content-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(self.most).read_to_end(&mut answer)?;
        Ok(Answer::read(&String::from_utf8_lossy(&answer)))
    }
}

impl Answer {
    fn read(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Answer { status, body: body.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = Answer::read("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n");
        assert_eq!((answer.status, answer.body.as_str()), (503, "no\n"));
        assert_eq!(Answer::read("what?").status, 0);
    }
}
