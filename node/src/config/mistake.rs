//! Mistakes in configuration, with their place and what was expected. It does not know how they are found.

use std::fmt;
use std::sync::Arc;

use super::tree::Position;

/// How many mistakes of one document are kept; the rest is counted.
const MAX_MISTAKES: usize = 200;

/// One mistake. Reads as `file:line:column: path: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// Where in it.
    pub at: Position,
    /// Dotted path of the value (`admin.keys[0].role`), empty for the whole document.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.at.line, self.at.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All mistakes of a document, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mistakes {
    list: Vec<Mistake>,
    more: usize,
}

impl Mistakes {
    /// Only this one.
    #[must_use]
    pub fn one(mistake: Mistake) -> Mistakes {
        Mistakes { list: vec![mistake], more: 0 }
    }

    /// Adds one.
    pub fn push(&mut self, mistake: Mistake) {
        if self.list.len() < MAX_MISTAKES { self.list.push(mistake) } else { self.more += 1 }
    }

    /// Adds those of another reader.
    pub fn append(&mut self, other: Mistakes) {
        self.more += other.more;
        other.list.into_iter().for_each(|mistake| self.push(mistake));
    }

    /// Whether this one is among them already.
    #[must_use]
    pub fn contains(&self, mistake: &Mistake) -> bool {
        self.list.contains(mistake)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found, those beyond what is kept included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// Those that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.list.iter()
    }

    /// `value`, or the mistakes sorted by place when there are any.
    ///
    /// # Errors
    /// Itself, when it is not empty.
    pub fn or<T>(self, value: T) -> Result<T, Mistakes> {
        if self.list.is_empty() { Ok(value) } else { Err(self.sorted()) }
    }

    /// The same by file and place.
    #[must_use]
    pub fn sorted(mut self) -> Mistakes {
        self.list.sort_by(|a, b| (&a.file, a.at).cmp(&(&b.file, b.at)));
        self
    }
}

impl fmt::Display for Mistakes {
    /// One mistake per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.list.iter().enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{mistake}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// The beginning of what was found, on one line, for messages.
#[must_use]
pub(super) fn excerpt(text: &str) -> String {
    const LENGTH: usize = 60;
    let mut short: String = text.chars().take(LENGTH).flat_map(char::escape_debug).collect();
    if text.chars().nth(LENGTH).is_some() {
        short.push('…');
    }
    short
}

/// The known name that `wrong` was probably meant to be: at most a third of its letters differ (Damerau-Levenshtein, adjacent swaps count one).
#[must_use]
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a name of this length; the bound keeps the comparison cheap.
    const LONGEST: usize = 64;
    let letters: Vec<char> = wrong.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if letters.len() > LONGEST {
        return None;
    }
    let allowed = (letters.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|name| (distance(&letters, &name.chars().collect::<Vec<_>>()), name))
        .filter(|(far, name)| *far <= allowed && *far < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// Optimal string alignment distance, by three rows.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(older[j - 2] + 1);
            }
        }
        older = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}
