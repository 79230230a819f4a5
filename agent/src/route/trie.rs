//! A radix tree from literal prefixes to entries. It knows not what entries mean.

use smallvec::SmallVec;

use super::paths::Entry;

/// A radix tree from literal prefixes to entries.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// The root, of the empty prefix, is first; empty while nothing was added.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The text that leads here from the parent.
    label: Box<[u8]>,
    entries: Vec<Entry>,
    /// First byte of the child's label and its number, sorted.
    children: Vec<(u8, u32)>,
}

impl Trie {
    /// Adds an entry behind those that the prefix has already.
    pub(super) fn add(&mut self, prefix: &[u8], entry: Entry) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut at = 0;
        let mut rest = prefix;
        while let Some(&first) = rest.first() {
            let place = self.nodes[at].children.binary_search_by_key(&first, |(byte, _)| *byte);
            let child = match place {
                Ok(index) => self.nodes[at].children[index].1 as usize,
                Err(index) => {
                    let child = self.push(Node { label: rest.into(), ..Node::default() });
                    self.nodes[at].children.insert(index, (first, child as u32));
                    child
                }
            };
            let common = self.nodes[child].label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            if common < self.nodes[child].label.len() {
                self.split(child, common);
            }
            rest = &rest[common..];
            at = child;
        }
        self.nodes[at].entries.push(entry);
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Cuts the label of a node after `common` bytes; the node keeps the first part, a new child takes the rest and all that hung below.
    fn split(&mut self, node: usize, common: usize) {
        let upper = &mut self.nodes[node];
        let lower = Node {
            label: upper.label[common..].into(),
            entries: std::mem::take(&mut upper.entries),
            children: std::mem::take(&mut upper.children),
        };
        let first = lower.label[0];
        upper.label = upper.label[..common].into();
        let lower = self.push(lower);
        self.nodes[node].children.push((first, lower as u32));
    }

    /// Visits the entries of every prefix of `path`, longest first, until one visit has a result.
    pub(super) fn longest_first<'a, R>(&'a self, path: &[u8], visit: impl FnMut(&'a [Entry]) -> Option<R>) -> Option<R> {
        let mut with_entries: SmallVec<[&'a [Entry]; 16]> = SmallVec::new();
        let mut node = self.nodes.first()?;
        let mut rest = path;
        loop {
            if !node.entries.is_empty() {
                with_entries.push(&node.entries);
            }
            let Some(first) = rest.first() else { break };
            let Ok(index) = node.children.binary_search_by_key(first, |(byte, _)| *byte) else { break };
            node = &self.nodes[node.children[index].1 as usize];
            match rest.strip_prefix(&*node.label) {
                Some(after) => rest = after,
                None => break,
            }
        }
        with_entries.into_iter().rev().find_map(visit)
    }

    /// Every list of entries, to be sorted.
    pub(super) fn lists(&mut self) -> impl Iterator<Item = &mut Vec<Entry>> {
        self.nodes.iter_mut().map(|node| &mut node.entries)
    }
}
