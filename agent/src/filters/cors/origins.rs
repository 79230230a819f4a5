//! Which origins are allowed, and what the browser is told about it. It knows no requests.

use regex::Regex;

/// Which origins are allowed.
#[derive(Debug)]
pub(super) struct Origins {
    list: List,
    patterns: Vec<Regex>,
    /// From the plugin's metadata.
    further: Vec<Box<str>>,
}

#[derive(Debug)]
enum List {
    /// `*`: all, and the browser is told so.
    All,
    /// `**`: all, each is told its own name.
    Each,
    /// One; the browser is told its name whoever asks.
    One(Box<str>),
    /// Several; the one that asks is told its name.
    Several(Vec<Box<str>>),
    /// Only patterns and metadata.
    Nothing,
}

impl Origins {
    pub(super) fn new(list: Option<&str>, patterns: Vec<Regex>, further: Vec<Box<str>>) -> Origins {
        let list = match list {
            None => List::Nothing,
            Some("*") => List::All,
            Some("**") => List::Each,
            Some(list) if list.contains(',') => List::Several(list.split(',').map(|origin| origin.trim().into()).collect()),
            Some(one) => List::One(one.into()),
        };
        Origins { list, patterns, further }
    }

    /// Whether the answer depends on who asks, so that caches must keep answers apart.
    pub(super) fn depends_on_origin(&self) -> bool {
        !matches!(self.list, List::All)
    }

    /// What every browser is told, whoever asks; `None` where that differs.
    pub(super) fn always(&self) -> Option<&str> {
        match &self.list {
            List::All => Some("*"),
            List::One(one) if self.patterns.is_empty() && self.further.is_empty() => Some(one),
            _ => None,
        }
    }

    /// The number of an origin that is written out, among others or in metadata; [`Origins::written`] gives it back.
    pub(super) fn place(&self, asking: &str) -> Option<usize> {
        self.all().position(|origin| **origin == *asking)
    }

    /// The origin with this number.
    pub(super) fn written(&self, place: usize) -> Option<&str> {
        self.all().nth(place).map(|origin| &**origin)
    }

    fn all(&self) -> impl Iterator<Item = &Box<str>> {
        let listed = match &self.list {
            List::Several(list) => list.as_slice(),
            List::One(one) => std::slice::from_ref(one),
            List::All | List::Each | List::Nothing => &[],
        };
        listed.iter().chain(&self.further)
    }

    /// What the browser is told, `None` for nothing.
    pub(super) fn allowed<'a>(&'a self, asking: Option<&'a str>) -> Option<&'a str> {
        let listed = match &self.list {
            List::All => Some("*"),
            List::Each => Some(asking.unwrap_or("*")),
            List::One(one) => Some(&**one),
            List::Several(list) => asking.filter(|asking| list.iter().any(|origin| **origin == **asking)),
            List::Nothing => None,
        };
        let certain = listed.is_some_and(|listed| listed == "*" || Some(listed) == asking);
        if certain {
            return listed;
        }
        let named = asking.filter(|asking| {
            self.patterns.iter().any(|pattern| pattern.is_match(asking)) || self.further.iter().any(|origin| **origin == **asking)
        });
        named.or(listed)
    }
}
