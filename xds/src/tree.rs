//! An ordered map whose copies share what they have in common: a copy costs nothing, a change costs the way to it. It knows nothing of what it holds.
//!
//! A weight-balanced tree (Adams 1993) with the parameters that Hirai and Yamamoto proved sound ("Balancing weight-balanced trees",
//! JFP 2011). A change copies the nodes on the way to it that somebody else shares too, about `log2 n` of them.
//!
//! ```
//! use heddle_xds::tree::Tree;
//!
//! let mut now: Tree<&str, u32> = Tree::new();
//! now.insert("a", 1);
//! let then = now.clone();
//! now.insert("a", 2);
//! assert_eq!((then.get("a"), now.get("a")), (Some(&1), Some(&2)));
//! ```

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A side may weigh this many times the other.
const DELTA: usize = 3;
/// A single rotation is enough when the inner grandchild weighs less than this many times the outer one.
const GAMMA: usize = 2;

/// The map.
pub struct Tree<K, V> {
    root: Link<K, V>,
}

type Link<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
struct Node<K, V> {
    key: K,
    value: V,
    size: usize,
    left: Link<K, V>,
    right: Link<K, V>,
}

impl<K, V> Tree<K, V> {
    /// Holds nothing.
    pub const fn new() -> Tree<K, V> {
        Tree { root: None }
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        size(&self.root)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether both are copies of one another with nothing changed since. Equal trees that came about apart are not.
    pub fn same(&self, other: &Tree<K, V>) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// All entries in the order of their keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { pending: Vec::new() };
        iter.descend(self.root.as_deref());
        iter
    }
}

impl<K: Ord, V> Tree<K, V> {
    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut at = self.root.as_deref();
        while let Some(node) = at {
            at = match key.cmp(node.key.borrow()) {
                Ordering::Less => node.left.as_deref(),
                Ordering::Greater => node.right.as_deref(),
                Ordering::Equal => return Some(&node.value),
            };
        }
        None
    }

    /// Whether there is a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Entries whose keys are `from` or greater, in order.
    pub fn from<Q: Ord + ?Sized>(&self, from: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut iter = Iter { pending: Vec::new() };
        let mut at = self.root.as_deref();
        while let Some(node) = at {
            at = if node.key.borrow() < from {
                node.right.as_deref()
            } else {
                iter.pending.push(node);
                node.left.as_deref()
            };
        }
        iter
    }
}

impl<K: Ord + Clone, V: Clone> Tree<K, V> {
    /// Adds or replaces; what was there before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        insert(&mut self.root, key, value)
    }

    /// Removes; what was there before.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Looked for first, so that nothing is copied for a key that is not there.
        self.contains_key(key).then(|| remove(&mut self.root, key)).flatten()
    }
}

fn size<K, V>(link: &Link<K, V>) -> usize {
    link.as_ref().map_or(0, |node| node.size)
}

fn weight<K, V>(link: &Link<K, V>) -> usize {
    size(link) + 1
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn leaf(key: K, value: V) -> Arc<Node<K, V>> {
        Arc::new(Node { key, value, size: 1, left: None, right: None })
    }

    fn count(&mut self) {
        self.size = size(&self.left) + size(&self.right) + 1;
    }
}

fn insert<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>, key: K, value: V) -> Option<V> {
    let Some(shared) = link else {
        *link = Some(Node::leaf(key, value));
        return None;
    };
    let node = Arc::make_mut(shared);
    let before = match key.cmp(&node.key) {
        Ordering::Less => insert(&mut node.left, key, value),
        Ordering::Greater => insert(&mut node.right, key, value),
        Ordering::Equal => Some(std::mem::replace(&mut node.value, value)),
    };
    if before.is_none() {
        balance(shared);
    }
    before
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(link: &mut Link<K, V>, key: &Q) -> Option<V> {
    let shared = link.as_mut()?;
    let node = Arc::make_mut(shared);
    let before = match key.cmp(node.key.borrow()) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => {
            let (left, mut right) = (node.left.take(), node.right.take());
            let value = node.value.clone();
            *link = match (left, first(&mut right)) {
                (left, None) => left,
                (left, Some((key, value))) => {
                    let mut joined = Arc::new(Node { key, value, size: 0, left, right });
                    balance(&mut joined);
                    Some(joined)
                }
            };
            return Some(value);
        }
    };
    balance(shared);
    before
}

/// Takes the first entry out.
fn first<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>) -> Option<(K, V)> {
    let shared = link.as_mut()?;
    let node = Arc::make_mut(shared);
    if node.left.is_none() {
        let entry = (node.key.clone(), node.value.clone());
        let right = node.right.take();
        *link = right;
        return Some(entry);
    }
    let entry = first(&mut node.left);
    balance(shared);
    entry
}

/// Restores count and balance of a node one of whose sides gained or lost one entry.
fn balance<K: Ord + Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    node.count();
    let (left, right) = (weight(&node.left), weight(&node.right));
    if right > DELTA * left {
        if let Some(child) = &mut node.right
            && weight(&child.left) >= GAMMA * weight(&child.right)
        {
            rotate_right(child);
        }
        rotate_left(shared);
    } else if left > DELTA * right {
        if let Some(child) = &mut node.left
            && weight(&child.right) >= GAMMA * weight(&child.left)
        {
            rotate_left(child);
        }
        rotate_right(shared);
    }
}

/// The right child takes the place of its parent.
fn rotate_left<K: Ord + Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    let Some(mut other) = node.right.take() else { return };
    node.right = Arc::make_mut(&mut other).left.take();
    node.count();
    std::mem::swap(shared, &mut other);
    let top = Arc::make_mut(shared);
    top.left = Some(other);
    top.count();
}

/// The left child takes the place of its parent.
fn rotate_right<K: Ord + Clone, V: Clone>(shared: &mut Arc<Node<K, V>>) {
    let node = Arc::make_mut(shared);
    let Some(mut other) = node.left.take() else { return };
    node.left = Arc::make_mut(&mut other).right.take();
    node.count();
    std::mem::swap(shared, &mut other);
    let top = Arc::make_mut(shared);
    top.right = Some(other);
    top.count();
}

impl<K, V> Clone for Tree<K, V> {
    fn clone(&self) -> Self {
        Tree { root: self.root.clone() }
    }
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Tree::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a Tree<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

/// Entries in the order of their keys.
pub struct Iter<'a, K, V> {
    /// Nodes whose left side was shown already, the next one last.
    pending: Vec<&'a Node<K, V>>,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn descend(&mut self, mut at: Option<&'a Node<K, V>>) {
        while let Some(node) = at {
            self.pending.push(node);
            at = node.left.as_deref();
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<(&'a K, &'a V)> {
        let node = self.pending.pop()?;
        self.descend(node.right.as_deref());
        Some((&node.key, &node.value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The height, when every node is counted and balanced.
    fn sound<K, V>(link: &Link<K, V>) -> usize {
        let Some(node) = link else { return 0 };
        assert_eq!(node.size, size(&node.left) + size(&node.right) + 1);
        let (left, right) = (weight(&node.left), weight(&node.right));
        assert!(left <= DELTA * right && right <= DELTA * left, "{left} beside {right}");
        sound(&node.left).max(sound(&node.right)) + 1
    }

    fn fill(tree: &mut Tree<u32, ()>) {
        (0..10_000).for_each(|n| assert!(tree.insert(n, ()).is_none()));
    }

    #[test]
    fn a_sorted_load_stays_flat() {
        let mut tree = Tree::new();
        fill(&mut tree);
        assert!(sound(&tree.root) <= 25, "{}", sound(&tree.root));
        (0..9_990).for_each(|n| assert!(tree.remove(&n).is_some()));
        assert!(sound(&tree.root) <= 6 && tree.len() == 10);
    }

    #[test]
    fn a_change_copies_only_the_way_to_it() {
        let mut tree = Tree::new();
        fill(&mut tree);
        let before = tree.clone();
        assert!(tree.same(&before));
        tree.remove(&77_777);
        assert!(tree.same(&before), "nothing was removed");
        tree.insert(5_000, ());
        fn shared<K, V>(one: &Link<K, V>, other: &Link<K, V>) -> usize {
            match (one, other) {
                (Some(one), Some(other)) if Arc::ptr_eq(one, other) => one.size,
                (Some(one), Some(other)) => shared(&one.left, &other.left) + shared(&one.right, &other.right),
                _ => 0,
            }
        }
        assert!(!tree.same(&before) && shared(&tree.root, &before.root) > 9_970);
    }

    proptest! {
        /// Whatever is done, it holds what the standard map holds, and copies keep what they held.
        #[test]
        fn it_is_the_ordered_map(steps in proptest::collection::vec((0u8..40, 0u8..3, any::<bool>()), 0..200), from in 0u8..40) {
            let (mut tree, mut map) = (Tree::new(), BTreeMap::new());
            let mut copies = Vec::new();
            for (key, value, copy) in steps {
                if copy {
                    copies.push((tree.clone(), map.clone()));
                }
                match value {
                    0 => prop_assert_eq!(tree.remove(&key), map.remove(&key)),
                    value => prop_assert_eq!(tree.insert(key, value), map.insert(key, value)),
                }
                sound(&tree.root);
            }
            copies.push((tree, map));
            for (tree, map) in copies {
                prop_assert_eq!(tree.len(), map.len());
                prop_assert_eq!(tree.iter().collect::<Vec<_>>(), map.iter().collect::<Vec<_>>());
                prop_assert_eq!(tree.from(&from).collect::<Vec<_>>(), map.range(from..).collect::<Vec<_>>());
                prop_assert_eq!(tree.get(&from), map.get(&from));
            }
        }
    }
}
