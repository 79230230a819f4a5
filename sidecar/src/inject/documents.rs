//! Files of Kubernetes objects: YAML of several documents or JSON, in the order of the file. A document that is not changed is printed as it was written. It does not know what happens to an object.

use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{Change, InjectSettings, Injected, Services, inject_among, title, uninject};

/// Largest file in bytes: more than ten times what etcd takes as one object, for files of many.
const MOST_BYTES: usize = 32 << 20;
/// Most documents of a file.
const MOST_DOCUMENTS: usize = 10_000;

/// What is done with the objects.
#[derive(Debug, Clone, Copy)]
pub enum Task<'s> {
    /// The sidecar is put in.
    Inject(&'s InjectSettings),
    /// It is taken out.
    Uninject,
}

/// A file that was worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The file as it is now.
    pub text: String,
    /// Workloads that were changed, lists counted once.
    pub changed: usize,
    /// Workloads that are as they should be.
    pub unchanged: usize,
    /// Workloads that do not want a sidecar, by title.
    pub opted_out: Vec<String>,
    /// What their author should know, one a line.
    pub warnings: Vec<String>,
}

/// A document of a file.
struct Part<'t> {
    /// The line in the file at which `text` begins, counted from 0.
    line: u64,
    /// `---` with what stands on its line, and directives before it; empty for a first document without.
    head: &'t str,
    text: &'t str,
}

/// Works through all documents of a file.
///
/// # Errors
/// All mistakes, one a line, each with file, document, object and place. Nothing is half done.
pub fn transform(file: &str, text: &str, task: Task<'_>) -> Result<Work, Vec<String>> {
    if text.len() > MOST_BYTES {
        return Err(vec![format!("{file}: expected at most {MOST_BYTES} bytes, found {}", text.len())]);
    }
    let parts = split(text);
    if parts.len() > MOST_DOCUMENTS {
        return Err(vec![format!("{file}: expected at most {MOST_DOCUMENTS} documents, found {}", parts.len())]);
    }
    let mut work =
        Work { text: String::with_capacity(text.len()), changed: 0, unchanged: 0, opted_out: Vec::new(), warnings: Vec::new() };
    let mut mistakes = Vec::new();
    let read: Vec<Result<Value, String>> = parts.iter().map(read).collect();
    let services = Services::of(read.iter().flatten());
    for (index, (part, object)) in parts.iter().zip(read).enumerate() {
        let place = format!("{file}: document {}", index + 1);
        match of_document(object, task, &services) {
            Ok(Some(injected)) => take(&mut work, part, injected, &place, &mut mistakes),
            Ok(None) => work.text.push_str(&format!("{}{}", part.head, part.text)),
            Err(messages) => mistakes.extend(messages.into_iter().map(|message| format!("{place}: {message}"))),
        }
    }
    if mistakes.is_empty() { Ok(work) } else { Err(mistakes) }
}

fn take(work: &mut Work, part: &Part<'_>, injected: Injected, place: &str, mistakes: &mut Vec<String>) {
    work.warnings.extend(injected.warnings.into_iter().map(|warning| format!("{place}: {warning}")));
    match injected.change {
        Change::Changed => match print(&injected.object, part.text) {
            Ok(text) => {
                work.changed += 1;
                work.text.push_str(if part.head.is_empty() || part.head.ends_with('\n') { part.head } else { "---\n" });
                work.text.push_str(&text);
                return;
            }
            Err(message) => mistakes.push(format!("{place}: {message}")),
        },
        Change::Unchanged => work.unchanged += 1,
        Change::OptedOut => work.opted_out.push(title(&injected.object)),
        Change::NotAWorkload => {}
    }
    work.text.push_str(part.head);
    work.text.push_str(part.text);
}

fn of_document(object: Result<Value, String>, task: Task<'_>, services: &Services) -> Result<Option<Injected>, Vec<String>> {
    let object = object.map_err(|message| vec![message])?;
    if object.is_null() {
        return Ok(None);
    }
    let done = match task {
        Task::Inject(settings) => inject_among(&object, settings, services),
        Task::Uninject => uninject(&object),
    };
    done.map(Some).map_err(|refusal| refusal.faults.iter().map(ToString::to_string).collect())
}

/// Reads a document as Kubernetes' tools do, which follow YAML 1.1 where it matters: `0644` is octal, `yes` is true.
fn read(part: &Part<'_>) -> Result<Value, String> {
    // What stands behind `---` on its line belongs to the document; in front of it are no more than directives.
    let head = part.head.rsplit_once("---").map_or("", |(_, rest)| rest);
    let options = serde_saphyr::options! { legacy_octal_numbers: true, duplicate_keys: DuplicateKeyPolicy::Error };
    serde_saphyr::from_str_with_options(&format!("{head}{}", part.text), options).map_err(|error| {
        let before = part.line - u64::from(head.contains('\n'));
        let line = error.location().map_or(0, |location| location.line().saturating_sub(1));
        let message = error.to_string();
        format!("line {}: expected YAML or JSON: {}", before + line + 1, message.lines().next().unwrap_or_default())
    })
}

/// Prints an object in the manner of the document that it came from.
fn print(object: &Value, as_was: &str) -> Result<String, String> {
    if as_was.trim_start().starts_with('{') {
        return Ok(format!("{object:#}\n"));
    }
    let mut text = serde_saphyr::to_string(object).map_err(|error| format!("cannot be written as YAML: {error}"))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Cuts a stream at its document markers (YAML 1.2.2 section 9.1.2: `---` at the start of a line is nothing else, not even inside of a block of text).
fn split(text: &str) -> Vec<Part<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = Vec::new();
    let (mut line, mut head, mut head_end, mut begin) = (0_u64, 0_usize, 0_usize, 0_u64);
    let (mut at, mut only_blank, mut fresh) = (0, true, true);
    for piece in text.split_inclusive('\n') {
        let end = at + piece.len();
        line += 1;
        let marker = piece.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']));
        if marker {
            // Comments and directives before the first marker belong to the document behind it.
            if !(fresh && only_blank) {
                parts.push(Part { line: begin, head: &text[head..head_end], text: &text[head_end..at] });
                head = at;
            }
            let bare = piece[3..].trim().is_empty() || piece[3..].trim_start().starts_with('#');
            head_end = if bare { end } else { at + 3 };
            begin = if bare { line } else { line - 1 };
            (only_blank, fresh) = (true, false);
        } else {
            let content = piece.trim();
            only_blank &= content.is_empty() || content.starts_with(['#', '%']);
        }
        at = end;
    }
    if at > head {
        parts.push(Part { line: begin, head: &text[head..head_end], text: &text[head_end..at] });
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn texts(stream: &str) -> Vec<(u64, &str, &str)> {
        split(stream).into_iter().map(|part| (part.line, part.head, part.text)).collect()
    }

    #[test]
    fn a_stream_is_cut_at_its_markers_and_nowhere_else() {
        assert_eq!(texts("a: 1\n---\nb: 2\n"), [(0, "", "a: 1\n"), (2, "---\n", "b: 2\n")]);
        assert_eq!(texts("# first\n---\na: 1\n"), [(2, "# first\n---\n", "a: 1\n")]);
        assert_eq!(texts("a: |\n  ---\n  x\n"), [(0, "", "a: |\n  ---\n  x\n")]);
        assert_eq!(texts("--- {a: 1}\n--- # next\nb: 1"), [(0, "---", " {a: 1}\n"), (2, "--- # next\n", "b: 1")]);
        assert_eq!(texts("---\n---\n"), [(1, "---\n", ""), (2, "---\n", "")]);
        assert!(texts("").is_empty());
    }

    #[test]
    fn numbers_and_words_mean_what_they_mean_to_kubernetes() {
        let read = |text: &str| read(&split(text)[0]).unwrap();
        assert_eq!(read("mode: 0644\nyes: x\non: \"on\"\nflag: yes\n")["mode"], 420);
        assert_eq!(read("flag: yes\n")["flag"], true);
        let printed = print(&read("a: \"yes\"\nb: \"0644\"\nc: \"1_000\"\nd: \"12:30\"\ne: \"null\"\nf: \"1e3\"\n"), "").unwrap();
        for word in ["yes", "0644", "1_000", "12:30", "null", "1e3"] {
            assert!(printed.contains(&format!("\"{word}\"")) || printed.contains(&format!("'{word}'")), "{printed}");
        }
    }

    #[test]
    fn mistakes_name_the_document_and_the_line_of_the_file() {
        let told = transform("x.yaml", "a: 1\n---\nb: [1\nc: 2\n", Task::Uninject).unwrap_err().join("\n");
        assert!(told.starts_with("x.yaml: document 2: line "), "{told}");
        let line: u64 = told.split("line ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
        assert!((3..=5).contains(&line), "{told}");
        let twice = transform("x.yaml", "a: 1\na: 2\n", Task::Uninject).unwrap_err().join("\n");
        assert!(twice.contains("line 2"), "{twice}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_when_a_stream_is_cut(lines in proptest::collection::vec("(---|--- x|# c|%Y|a: 1|  ---|\\.\\.\\.|)\r?\n", 0..12)) {
            let stream = lines.concat();
            let whole: String = split(&stream).iter().map(|part| format!("{}{}", part.head, part.text)).collect();
            prop_assert_eq!(whole, stream);
        }
    }
}
