//! The sources of the workspace as rules look at them: by crate and module, code apart from comments, tests apart from the rest. It knows no rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::lexer::{self, is_word};

/// One Rust file.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) text: String,
    /// The text with comments, strings and tests blanked.
    pub(crate) code: String,
    /// The text with everything but comments blanked.
    pub(crate) comments: String,
    /// Exists for tests only.
    pub(crate) test: bool,
}

/// A function: its name and its first and last line.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// Every Rust file of the workspace but generated ones.
pub(crate) fn all() -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for member in members() {
        walk(&root.join(member), &mut paths);
    }
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let relative = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            Source::new(&relative, &fs::read_to_string(path).unwrap())
        })
        .collect();
    let test_only: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        source.test |= test_only
            .iter()
            .any(|module| source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/")));
    }
    assert!(sources.len() > 50, "the sources were not found below {}", root.display());
    sources
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folders of the crates.
pub(crate) fn members() -> [&'static str; 8] {
    ["proto", "node", "xds", "agent", "controlplane", "sidecar", "cli", "integration"]
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let generated = path.ends_with("proto/src/gen") || path.ends_with("target");
        if path.is_dir() && !generated {
            walk(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

impl Source {
    /// Reads the text of the file at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let split = lexer::split(text);
        let file = path.rsplit('/').next().unwrap_or_default();
        let test =
            path.contains("/tests/") || path.contains("/benches/") || file == "tests.rs" || path.starts_with("integration/");
        Source { path: path.to_owned(), text: text.to_owned(), code: without_tests(split.code), comments: split.comments, test }
    }

    /// The folder of its crate.
    pub(crate) fn member(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The top module of its crate that it belongs to; `None` for the crate root and for what is not in `src`.
    pub(crate) fn module(&self) -> Option<&str> {
        let inside = self.path.split_once("/src/")?.1;
        let top = inside.split('/').next()?.trim_end_matches(".rs");
        (top != "lib" && top != "main").then_some(top)
    }

    /// The line of a byte of the text, from one.
    pub(crate) fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
    }

    /// Where `wanted` stands in the code, not as a part of a longer word.
    pub(crate) fn find(&self, wanted: &str) -> Vec<usize> {
        let bytes = self.code.as_bytes();
        let alone = |at: usize| {
            let inner = |index: usize| bytes.get(index).is_some_and(|byte| is_word(*byte));
            let starts = !is_word(wanted.as_bytes()[0]) || at == 0 || !inner(at - 1);
            let end = at + wanted.len();
            starts && (!is_word(wanted.as_bytes()[wanted.len() - 1]) || !inner(end))
        };
        self.code.match_indices(wanted).map(|(at, _)| at).filter(|at| alone(*at)).collect()
    }

    /// Its functions, those inside others too.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let function = |at: usize| {
            let name = self.code[at + 2..].trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
            let open = body(bytes, at)?;
            let close = closing(bytes, open);
            (!name.is_empty()).then(|| Function { name: name.to_owned(), first: self.line(at), last: self.line(close) })
        };
        self.find("fn").into_iter().filter_map(function).collect()
    }

    /// The modules that it declares for tests only, as paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let code = lexer::split(&self.text).code;
        let folder = match self.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = |(at, _): (usize, &str)| {
            let item = code[at..].split_once(']')?.1;
            let name = item.split_once(';')?.0.trim().trim_start_matches("pub").trim_start_matches("(crate)").trim();
            let name = name.strip_prefix("mod ")?.trim();
            name.bytes().all(is_word).then(|| format!("{folder}/{name}"))
        };
        code.match_indices("#[cfg(test)]").filter_map(declared).collect()
    }
}

/// Blanks every item that is compiled for tests only.
fn without_tests(mut code: String) -> String {
    while let Some(at) = code.find("#[cfg(test)]") {
        let bytes = code.as_bytes();
        let end = (at..bytes.len()).find(|index| matches!(bytes[*index], b';' | b'{')).unwrap_or(bytes.len() - 1);
        let end = if bytes[end] == b'{' { closing(bytes, end) } else { end };
        let blank: String = code[at..=end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(at..=end, &blank);
    }
    code
}

/// Where the body of the function at `at` opens; `None` when it has none.
fn body(bytes: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0i32;
    for (index, byte) in bytes.iter().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(index),
            b';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

/// The brace that closes the one at `open`.
fn closing(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0;
    for (index, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    bytes.len() - 1
}
