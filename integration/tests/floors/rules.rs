//! The house rules as functions of sources: each gives its violations as `file:line: what is wrong, what to do`.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::is_word;
use super::source::Source;

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 60;
const FULLEST_FOLDER: usize = 12;

/// The one way to leave a test out: it is the body of a process that other tests start, and runs with them.
const CHILD: &str = "#[ignore = \"started by the other tests\"]";

fn say(source: &Source, at: usize, message: &str) -> String {
    format!("{}:{}: {message}", source.path, source.line(at))
}

/// Crates that a crate must not depend on, from its manifest.
pub(crate) fn floors(member: &str, manifest: &str, allowed: &[&str]) -> Vec<String> {
    let dependency = |line: &str| -> Option<String> {
        let name = line.trim().strip_prefix("heddle-")?;
        Some(name.split(|c: char| !c.is_alphanumeric() && c != '-').next()?.to_owned())
    };
    let lines = manifest.lines().enumerate();
    let found = lines.filter_map(|(number, line)| Some((number + 1, dependency(line)?)));
    found
        .filter(|(_, name)| !allowed.contains(&name.as_str()))
        .map(|(number, name)| format!("{member}/Cargo.toml:{number}: floors: {member} must not see {name}"))
        .collect()
}

/// The modules of its own crate that a file names after `crate::`, with the place.
pub(crate) fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    for at in source.find("crate::") {
        let rest = &source.code[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            out.extend(heads(list).into_iter().map(|name| (at, name)));
        } else {
            out.push((at, rest.bytes().take_while(|byte| is_word(*byte)).map(char::from).collect()));
        }
    }
    out
}

/// The first words of the entries of an import list, up to its closing brace.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut heads, mut fresh) = (0, vec![String::new()], true);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(String::new());
                fresh = true;
            }
            ':' if depth == 0 => fresh = false,
            c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => heads.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    heads
}

/// Imports that look up in the order of the modules of a crate, and modules without a place in it.
pub(crate) fn order(sources: &[Source], member: &str, order: &[&[&str]]) -> Vec<String> {
    let rank: BTreeMap<&str, usize> =
        order.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect();
    let mut out = Vec::new();
    for source in sources.iter().filter(|source| source.member() == member && !source.test) {
        let Some(module) = source.module() else { continue };
        let Some(own) = rank.get(module) else {
            out.push(format!(
                "{}:1: module order: `{module}` has no place; give it one in integration/tests/floors.rs",
                source.path
            ));
            continue;
        };
        for (at, name) in imports(source) {
            if rank.get(name.as_str()).is_some_and(|other| other > own) {
                out.push(say(source, at, &format!("module order: `{module}` must not look up to `{name}`")));
            }
        }
    }
    out
}

/// Cycles among the modules of a crate.
pub(crate) fn cycles(sources: &[Source], member: &str) -> Vec<String> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.member() == member && !source.test) {
        let Some(module) = source.module() else { continue };
        let edges = graph.entry(module.to_owned()).or_default();
        edges.extend(imports(source).into_iter().map(|(_, name)| name).filter(|name| name != module));
    }
    let reaches_itself = |start: &String| {
        let mut pending: Vec<&String> = graph[start].iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(next) = pending.pop() {
            if seen.insert(next) {
                pending.extend(graph.get(next).into_iter().flatten());
            }
        }
        seen.contains(start)
    };
    let cyclic: Vec<&str> = graph.keys().filter(|module| reaches_itself(module)).map(String::as_str).collect();
    if cyclic.is_empty() {
        Vec::new()
    } else {
        vec![format!("{member}/src/lib.rs:1: import cycle among the modules {}", cyclic.join(", "))]
    }
}

/// Files without a first sentence, long files and functions, full folders.
pub(crate) fn sizes(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        let (folder, _) = source.path.rsplit_once('/').unwrap_or_default();
        *folders.entry(folder).or_default() += usize::from(!source.test);
        if !source.text.starts_with("//! ") {
            out.push(format!("{}:1: first line: open the file with `//!` and what lives here", source.path));
        }
        if source.test {
            continue;
        }
        let lines = source.code.trim_end().lines().count();
        if lines > LONGEST_FILE {
            out.push(format!("{}:{lines}: file length: {lines} lines before tests, at most {LONGEST_FILE}", source.path));
        }
        for function in source.functions() {
            let lines = function.last - function.first + 1;
            if lines > LONGEST_FUNCTION {
                let what = format!("function length: `{}` has {lines} lines, at most {LONGEST_FUNCTION}", function.name);
                out.push(format!("{}:{}: {what}", source.path, function.first));
            }
        }
    }
    let full = folders.into_iter().filter(|(_, files)| *files > FULLEST_FOLDER);
    out.extend(
        full.map(|(folder, files)| format!("{folder}:1: folder: {files} files, at most {FULLEST_FOLDER}; make a sub-folder")),
    );
    out
}

/// Words that may stand only in files whose path starts with one of `allowed`.
pub(crate) fn confined(sources: &[Source], words: &[&str], allowed: &[&str], message: &str) -> Vec<String> {
    let outside = |source: &&Source| !source.test && !allowed.iter().any(|prefix| source.path.starts_with(prefix));
    let found = sources.iter().filter(outside).flat_map(|source| {
        words
            .iter()
            .flat_map(move |word| source.find(word).into_iter().map(move |at| say(source, at, &format!("`{word}`: {message}"))))
    });
    found.collect()
}

/// Calls that panic without a lint expectation that gives the reason, in or right before the same function.
pub(crate) fn panics(sources: &[Source]) -> Vec<String> {
    let calls = [
        (".unwrap()", "clippy::unwrap_used"),
        (".expect(\"", "clippy::expect_used"),
        ("panic!(", "clippy::panic"),
        ("todo!(", "clippy::todo"),
        ("unimplemented!(", "clippy::unimplemented"),
    ];
    let mut out = Vec::new();
    for source in sources.iter().filter(|source| !source.test) {
        let lines: Vec<&str> = source.text.lines().collect();
        let functions = source.functions();
        for (call, lint) in calls {
            let code = call.trim_end_matches('"');
            for at in source.find(code).into_iter().filter(|at| source.text[*at..].starts_with(call)) {
                let line = source.line(at);
                let around = functions.iter().filter(|function| (function.first..=function.last).contains(&line));
                let first = around.map(|function| function.first).max().unwrap_or(line);
                let reasoned = lines[first.saturating_sub(6)..line].iter().any(|line| line.contains(lint));
                if !reasoned {
                    out.push(say(source, at, &format!("panics: `{code}` outside tests without #[expect({lint}, reason = …)]")));
                }
            }
        }
    }
    out
}

/// `unsafe` without its proof.
pub(crate) fn proofs(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for source in sources {
        let comments: Vec<&str> = source.comments.lines().collect();
        for at in source.find("unsafe") {
            let line = source.line(at);
            if !comments[line.saturating_sub(6)..line].iter().any(|comment| comment.contains("SAFETY:")) {
                out.push(say(source, at, "unsafe: no `// SAFETY:` that proves it right above"));
            }
        }
    }
    out
}

/// What should not be left behind: promises, switched-off tests, switches for tests, code that nobody uses.
pub(crate) fn leftovers(sources: &[Source]) -> Vec<String> {
    let mut out = Vec::new();
    for source in sources {
        for word in ["TODO", "FIXME", "XXX"] {
            let promises = source.comments.match_indices(word);
            out.extend(promises.map(|(at, _)| say(source, at, &format!("`{word}`: file an issue instead"))));
        }
        let code = super::lexer::split(&source.text).code;
        for (wanted, message) in [
            ("#[ignore", "a test that does not run proves nothing"),
            ("allow(dead_code)", "delete it; history remembers"),
            ("expect(dead_code", "delete it; history remembers"),
        ] {
            let found = code.match_indices(wanted).filter(|(at, _)| !source.text[*at..].starts_with(CHILD));
            out.extend(found.map(|(at, _)| say(source, at, &format!("`{wanted}`: {message}"))));
        }
        let switches = code.match_indices("feature = ").filter(|(at, _)| source.text[*at..].starts_with("feature = \"test"));
        out.extend(switches.map(|(at, _)| say(source, at, "test switch: inject a dependency instead")));
    }
    out
}
