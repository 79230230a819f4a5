//! Radix trees from literal prefixes to entries: grown one by one, then planted in a forest that is small and dense. They know not what entries mean.

use std::collections::VecDeque;
use std::ops::Range;

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

/// Radix trees that grow no more. With thousands of prefixes a walk meets cold memory, so that nodes are small and children lie beside each other.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    /// First byte of the label of each node: those of children are searched without touching the children.
    firsts: Vec<u8>,
    labels: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    label: Span,
    entries: Span,
    /// Places of the children in `nodes`, sorted by their first byte.
    children: Span,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn new(start: usize, length: usize) -> Span {
        Span { start: start as u32, length: length as u32 }
    }

    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.length as usize
    }
}

impl Forest {
    /// Takes a tree in and says where its root is; `None` for a tree of nothing.
    pub(super) fn plant(&mut self, mut tree: Trie) -> Option<u32> {
        if tree.nodes.is_empty() {
            return None;
        }
        let root = self.nodes.len();
        let mut waiting = VecDeque::from([(0, self.reserve(0))]);
        while let Some((from, to)) = waiting.pop_front() {
            let twig = std::mem::take(&mut tree.nodes[from]);
            let children = Span::new(self.nodes.len(), twig.children.len());
            for (first, child) in twig.children {
                waiting.push_back((child as usize, self.reserve(first)));
            }
            let label = Span::new(self.labels.len(), twig.label.len());
            let entries = Span::new(self.entries.len(), twig.entries.len());
            self.labels.extend_from_slice(&twig.label);
            self.entries.extend_from_slice(&twig.entries);
            self.nodes[to] = Node { label, entries, children };
        }
        Some(root as u32)
    }

    fn reserve(&mut self, first: u8) -> usize {
        self.nodes.push(Node::default());
        self.firsts.push(first);
        self.nodes.len() - 1
    }

    /// Gives back memory that only growing has needed.
    pub(super) fn settle(&mut self) {
        self.nodes.shrink_to_fit();
        self.firsts.shrink_to_fit();
        self.labels.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Visits the entries of every prefix of `path`, longest first, until one visit has a result.
    pub(super) fn longest_first<R>(&self, root: u32, path: &[u8], visit: impl FnMut(&[Entry]) -> Option<R>) -> Option<R> {
        let mut with_entries: SmallVec<[Span; 16]> = SmallVec::new();
        let mut node = self.nodes.get(root as usize)?;
        let mut rest = path;
        loop {
            if node.entries.length > 0 {
                with_entries.push(node.entries);
            }
            let Some(&first) = rest.first() else { break };
            let children = node.children.range();
            let Some(index) = memchr::memchr(first, &self.firsts[children.clone()]) else { break };
            node = &self.nodes[children.start + index];
            match rest.strip_prefix(&self.labels[node.label.range()]) {
                Some(after) => rest = after,
                None => break,
            }
        }
        with_entries.into_iter().rev().map(|span| &self.entries[span.range()]).find_map(visit)
    }
}
