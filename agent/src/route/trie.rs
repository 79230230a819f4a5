//! Radix trees from literal prefixes to entries: grown one by one, then planted in a forest that is small and dense. They know not what entries mean.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::paths::Entry;

/// A radix tree while it grows.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// The root, of the empty prefix, is first; empty while nothing was added.
    nodes: Vec<Twig>,
}

#[derive(Debug, Default)]
struct Twig {
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
            self.nodes.push(Twig::default());
        }
        let mut at = 0;
        let mut rest = prefix;
        while let Some(&first) = rest.first() {
            let place = self.nodes[at].children.binary_search_by_key(&first, |(byte, _)| *byte);
            let child = match place {
                Ok(index) => self.nodes[at].children[index].1 as usize,
                Err(index) => {
                    let child = self.push(Twig { label: rest.into(), ..Twig::default() });
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

    fn push(&mut self, node: Twig) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Cuts the label of a node after `common` bytes; the node keeps the first part, a new child takes the rest and all that hung below.
    fn split(&mut self, node: usize, common: usize) {
        let upper = &mut self.nodes[node];
        let lower = Twig {
            label: upper.label[common..].into(),
            entries: std::mem::take(&mut upper.entries),
            children: std::mem::take(&mut upper.children),
        };
        let first = lower.label[0];
        upper.label = upper.label[..common].into();
        let lower = self.push(lower);
        self.nodes[node].children.push((first, lower as u32));
    }

    /// Every list of entries, to be sorted.
    pub(super) fn lists(&mut self) -> impl Iterator<Item = &mut Vec<Entry>> {
        self.nodes.iter_mut().map(|node| &mut node.entries)
    }
}

/// Radix trees that grow no more. With thousands of prefixes a walk meets cold memory, so that all of a node that most walks need lies in half a line of 64
/// bytes, and children beside each other.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// First byte of the label of each node: those of children are searched without touching the children.
    firsts: Vec<u8>,
    /// Labels that are too long for their node.
    labels: Vec<u8>,
    /// Entries behind the first of their node.
    more: Vec<Vec<Entry>>,
}

/// Bytes of a label that is kept in its node.
const SHORT: usize = 8;
/// The length of a label that is not.
const LONG: u8 = u8::MAX;
/// No place in `more`.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
struct Node {
    /// Place of the first child in `nodes`; they are sorted by their first byte.
    children: u32,
    children_count: u16,
    label_length: u8,
    has_entry: bool,
    /// The label, or where a longer one begins and ends in `labels`: four bytes each, little endian.
    label: [u8; SHORT],
    entry: Entry,
    /// Place of further entries, or [`NONE`].
    more: u32,
}

impl Node {
    fn label<'a>(&'a self, labels: &'a [u8]) -> &'a [u8] {
        self.label.get(..usize::from(self.label_length)).unwrap_or_else(|| {
            let [a, b, c, d, e, f, g, h] = self.label;
            let (start, end) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
            labels.get(start as usize..end as usize).unwrap_or_default()
        })
    }
}

impl Forest {
    /// Takes a tree in and says where its root is; `None` for a tree of nothing.
    pub(super) fn plant(&mut self, mut tree: Trie) -> Option<u32> {
        if tree.nodes.is_empty() {
            return None;
        }
        let root = self.reserve(0);
        let mut waiting = VecDeque::from([(0, root)]);
        while let Some((from, to)) = waiting.pop_front() {
            let twig = std::mem::take(&mut tree.nodes[from]);
            let (children, count) = (self.nodes.len() as u32, twig.children.len() as u16);
            for (first, child) in twig.children {
                waiting.push_back((child as usize, self.reserve(first)));
            }
            let (label_length, label) = self.label(&twig.label);
            let mut entries = twig.entries.into_iter();
            let entry = entries.next();
            let rest: Vec<Entry> = entries.collect();
            let node = &mut self.nodes[to];
            *node = Node { children, children_count: count, label_length, label, ..*node };
            if let Some(entry) = entry {
                (node.has_entry, node.entry) = (true, entry);
            }
            if !rest.is_empty() {
                node.more = self.more.len() as u32;
                self.more.push(rest);
            }
        }
        Some(root as u32)
    }

    fn reserve(&mut self, first: u8) -> usize {
        let (label, entry) = ([0; SHORT], Entry::default());
        self.nodes.push(Node { children: 0, children_count: 0, label_length: 0, has_entry: false, label, entry, more: NONE });
        self.firsts.push(first);
        self.nodes.len() - 1
    }

    /// How a node keeps a label.
    fn label(&mut self, text: &[u8]) -> (u8, [u8; SHORT]) {
        let mut label = [0; SHORT];
        if let Some(whole) = label.get_mut(..text.len()) {
            whole.copy_from_slice(text);
            return (text.len() as u8, label);
        }
        label[..4].copy_from_slice(&(self.labels.len() as u32).to_le_bytes());
        self.labels.extend_from_slice(text);
        label[4..].copy_from_slice(&(self.labels.len() as u32).to_le_bytes());
        (LONG, label)
    }

    /// Gives back memory that only growing has needed.
    pub(super) fn settle(&mut self) {
        self.nodes.shrink_to_fit();
        self.firsts.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.more.shrink_to_fit();
    }

    /// Visits the entries of every prefix of `path`, longest first, until one visit has a result.
    pub(super) fn longest_first<R>(&self, root: u32, path: &[u8], mut visit: impl FnMut(&Entry) -> Option<R>) -> Option<R> {
        let mut with_entries: SmallVec<[&Node; 16]> = SmallVec::new();
        let mut node = self.nodes.get(root as usize)?;
        let mut rest = path;
        loop {
            if node.has_entry {
                with_entries.push(node);
            }
            let Some(&first) = rest.first() else { break };
            let children = node.children as usize;
            let firsts = &self.firsts[children..children + usize::from(node.children_count)];
            let Some(index) = memchr::memchr(first, firsts) else { break };
            node = &self.nodes[children + index];
            match rest.strip_prefix(node.label(&self.labels)) {
                Some(after) => rest = after,
                None => break,
            }
        }
        with_entries.into_iter().rev().find_map(|node| {
            let more = self.more.get(node.more as usize).into_iter().flatten();
            std::iter::once(&node.entry).chain(more).find_map(&mut visit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_lies_in_half_a_line() {
        assert_eq!(size_of::<Node>(), 32);
    }
}
