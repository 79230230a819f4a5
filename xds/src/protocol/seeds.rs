//! With whom an agent begins to gossip, in the header by which a control plane opens its side of a discovery stream. It knows no stream.
//!
//! A header, since it is no configuration: it has no version, is not kept, and other clients of xDS do not mind it.

use heddle_node::membership::gossip::{MAX_SEEDS, is_seed};
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::metadata::{MetadataMap, MetadataValue};

/// Its name: `host:port`, separated by commas.
const HEADER: &str = "heddle-gossip-seeds";
/// The cell of the agent, in its question; without it the control plane tells of its own cell.
const CELL: &str = "heddle-gossip-cell";
/// The cells of which the control plane is a member, separated by commas, when the agent's is none of them.
const CELLS: &str = "heddle-gossip-cells";
/// The longest name of a cell that is listened to, and the most cells.
const MAX_CELL: usize = 128;
const MAX_CELLS: usize = 16;

/// What a control plane knows to say to the members of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Begin with these (`host:port`); there may be none.
    Seeds(Vec<String>),
    /// It is no member of that cell, but of these.
    Elsewhere(Vec<String>),
}

/// The agent says of which cell it is.
pub(crate) fn ask(metadata: &mut MetadataMap, cell: &str) {
    // Names of cells are words; what is none goes unsaid.
    if let Ok(cell) = MetadataValue::try_from(cell) {
        metadata.insert(CELL, cell);
    }
}

/// Of which cell an agent says it is.
pub(crate) fn asked(headers: &HeaderMap) -> Option<&str> {
    headers.get(CELL).and_then(|cell| cell.to_str().ok()).filter(|cell| cell.len() <= MAX_CELL)
}

/// Says it in the headers of the answer.
pub(crate) fn write(advice: &Advice, headers: &mut HeaderMap) {
    let (name, words): (_, Vec<&str>) = match advice {
        Advice::Seeds(seeds) => (HEADER, seeds.iter().map(String::as_str).filter(|seed| is_seed(seed)).take(MAX_SEEDS).collect()),
        Advice::Elsewhere(cells) => (CELLS, cells.iter().map(String::as_str).take(MAX_CELLS).collect()),
    };
    if let Some(value) = HeaderValue::from_str(&words.join(",")).ok().filter(|_| !words.is_empty()) {
        headers.insert(name, value);
    }
}

/// Of which cells the control plane is a member, when it says that it is none of ours.
pub(crate) fn elsewhere(metadata: &MetadataMap) -> Option<Vec<String>> {
    let text = metadata.get(CELLS)?.to_str().ok()?;
    let cells = text.split(',').map(str::trim).filter(|cell| cell.len() <= MAX_CELL);
    Some(cells.take(MAX_CELLS).map(str::to_owned).collect())
}

/// The seeds of an answer. What is none is left out.
pub(crate) fn read(metadata: &MetadataMap) -> Vec<String> {
    let text = metadata.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').map(str::trim).filter(|seed| is_seed(seed)).take(MAX_SEEDS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn through(seeds: &[&str]) -> Vec<String> {
        let seeds: Vec<String> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
        let mut headers = HeaderMap::new();
        write(&Advice::Seeds(seeds), &mut headers);
        read(&MetadataMap::from_headers(headers))
    }

    #[test]
    fn the_cell_is_asked_for_and_who_is_no_member_of_it_says_so() {
        let mut question = MetadataMap::new();
        assert_eq!(asked(&question.clone().into_headers()), None);
        ask(&mut question, "eu-2");
        assert_eq!(asked(&question.clone().into_headers()), Some("eu-2"));
        ask(&mut question, &"x".repeat(MAX_CELL + 1));
        assert_eq!(asked(&question.into_headers()), None);
        let mut headers = HeaderMap::new();
        write(&Advice::Elsewhere(vec!["eu-1".into(), "us".into()]), &mut headers);
        let answer = MetadataMap::from_headers(headers);
        assert_eq!((elsewhere(&answer), read(&answer)), (Some(vec!["eu-1".to_owned(), "us".to_owned()]), Vec::new()));
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
