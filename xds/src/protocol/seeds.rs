//! With whom an agent begins to gossip, in the header by which a control plane opens its side of a discovery stream. It knows no stream.
//!
//! A header, since it is no configuration: it has no version, is not kept, and other clients of xDS do not mind it.

use heddle_node::membership::gossip::{MAX_SEEDS, is_seed};
use tonic::codegen::http::HeaderValue;
use tonic::metadata::MetadataMap;

/// Its name: `host:port`, separated by commas.
pub(crate) const HEADER: &str = "heddle-gossip-seeds";

/// Seeds as a value of the header; `None` when there are none.
pub(crate) fn write(seeds: &[String]) -> Option<HeaderValue> {
    let usable: Vec<&str> = seeds.iter().map(String::as_str).filter(|seed| is_seed(seed)).take(MAX_SEEDS).collect();
    if usable.is_empty() { None } else { HeaderValue::from_str(&usable.join(",")).ok() }
}

/// The seeds of an answer. What is none is left out.
pub(crate) fn read(metadata: &MetadataMap) -> Vec<String> {
    let text = metadata.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').map(str::trim).filter(|seed| is_seed(seed)).take(MAX_SEEDS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tonic::codegen::http::HeaderMap;

    use super::*;

    fn through(seeds: &[&str]) -> Vec<String> {
        let seeds: Vec<String> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
        let headers = HeaderMap::from_iter(write(&seeds).map(|value| (HEADER.parse().unwrap(), value)));
        read(&MetadataMap::from_headers(headers))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(
            through(&["10.0.0.1:7946", "[::1]:1", "gw-1.example:7946"]),
            ["10.0.0.1:7946", "[::1]:1", "gw-1.example:7946"]
        );
        assert!(through(&[]).is_empty());
    }

    #[test]
    fn nonsense_is_left_out() {
        assert_eq!(through(&["nowhere", "a\nb:1", "10.0.0.1:7946"]), ["10.0.0.1:7946"]);
        let many: Vec<String> = (1..200).map(|port| format!("10.0.0.1:{port}")).collect();
        assert_eq!(through(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MAX_SEEDS);
    }
}
