//! The command line: a kind and `key=value` pairs. It does not know which kinds there are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub struct Options {
    pub kind: String,
    values: BTreeMap<String, String>,
}

impl Options {
    pub fn read(arguments: &[String]) -> Result<Options, String> {
        let (kind, pairs) = arguments.split_first().ok_or("usage: load KIND key=value …")?;
        let pair = |text: &String| {
            let (key, value) = text.split_once('=').ok_or(format!("`{text}`: expected key=value"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        Ok(Options { kind: kind.clone(), values: pairs.iter().map(pair).collect::<Result<_, String>>()? })
    }

    /// `to=ADDRESS`.
    pub fn address(&self) -> Result<SocketAddr, String> {
        let text = self.text("to").ok_or("to=ADDRESS is missing")?;
        text.parse().map_err(|_| format!("to={text}: expected an address such as 127.0.0.1:8080"))
    }

    /// `seconds=N`, with fractions.
    pub fn duration(&self) -> Result<Duration, String> {
        let text = self.text("seconds").unwrap_or("2");
        let seconds: f64 = text.parse().map_err(|_| format!("seconds={text}: expected a number"))?;
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("seconds={text}: {error}"))
    }

    pub fn number(&self, key: &str, default: u32) -> Result<u32, String> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.parse().map_err(|_| format!("{key}={text}: expected a number"))
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }
}
