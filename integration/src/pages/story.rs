//! The format of `console` blocks: commands after `$ `, then the output that they have, where `…` stands for what may differ. It runs nothing.

/// A command and the lines that it prints; no lines when the page does not show them.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    pub output: Vec<String>,
}

/// The steps of all `console` blocks of a page.
pub fn steps(page: &str) -> Vec<Step> {
    blocks(page).iter().flat_map(|lines| of_block(lines)).collect()
}

fn blocks(page: &str) -> Vec<Vec<&str>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while lines.any(|line| line.trim_end() == "```console") {
        blocks.push(lines.by_ref().take_while(|line| line.trim_end() != "```").collect());
    }
    blocks
}

/// A command goes on on the next line after a backslash, and within single quotes.
fn of_block(lines: &[&str]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut open = false;
    for line in lines {
        match (steps.last_mut(), line.strip_prefix("$ ")) {
            (Some(step), _) if open => {
                step.command.push('\n');
                step.command.push_str(line);
                open = is_open(&step.command);
            }
            (_, Some(command)) => {
                open = is_open(command);
                steps.push(Step { command: command.to_owned(), output: Vec::new() });
            }
            (Some(step), None) => step.output.push(line.trim_end().to_owned()),
            (None, None) => panic!("a console block begins with `$ `, not with {line:?}"),
        }
    }
    for step in &mut steps {
        let end = step.output.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
        step.output.truncate(end);
    }
    steps
}

/// Whether a shell would wait for more.
fn is_open(command: &str) -> bool {
    let (mut single, mut double, mut escaped) = (false, false, false);
    for c in command.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if !single => escaped = true,
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            _ => {}
        }
    }
    single || double || escaped
}

/// Whether the output is as shown. A line `…` stands for any number of lines, `…` within a line for anything.
pub fn matches(shown: &[String], output: &str) -> bool {
    let got: Vec<&str> = output.trim_end().lines().map(str::trim_end).collect();
    // `reached[n]`: the lines shown so far can stand for the first n lines that came.
    let mut reached = vec![false; got.len() + 1];
    reached[0] = true;
    for line in shown {
        let mut next = vec![false; got.len() + 1];
        if line.trim() == "…" {
            let first = reached.iter().position(|yes| *yes).unwrap_or(next.len());
            next[first..].fill(true);
        } else {
            for at in (0..got.len()).filter(|at| reached[*at]) {
                next[at + 1] = line_matches(line, got[at]);
            }
        }
        reached = next;
    }
    reached[got.len()]
}

fn line_matches(shown: &str, got: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = parts.next().and_then(|first| got.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_span_lines_and_output_follows() {
        let page = "text\n```sh\n$ no\n```\n```console\n$ a \\\n  b\n1\n\n2\n\n$ c '{\n  \"x\": 1\n}' -s\n$ d\n3\n```\nmore\n```console\n$ e\n```\n";
        let step = |command: &str, output: &[&str]| Step {
            command: command.to_owned(),
            output: output.iter().map(|line| (*line).to_owned()).collect(),
        };
        let wanted =
            [step("a \\\n  b", &["1", "", "2"]), step("c '{\n  \"x\": 1\n}' -s", &[]), step("d", &["3"]), step("e", &[])];
        assert_eq!(steps(page), wanted);
    }

    #[test]
    fn dots_stand_for_what_differs() {
        let shown = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert!(matches(&shown(&["HTTP/1.1 200 OK", "…", "x: …", "", "{"]), "HTTP/1.1 200 OK\r\na: 1\r\nx: 2\r\n\r\n{\n"));
        assert!(matches(&shown(&["…", "a…c…", "…"]), "abc\n"));
        assert!(matches(&shown(&["…"]), ""));
        assert!(!matches(&shown(&["a"]), "a\nb\n"));
        assert!(!matches(&shown(&["a", "b"]), "a\n"));
        assert!(!matches(&shown(&["a…c"]), "ab\n"));
        assert!(!matches(&shown(&["ab…b"]), "ab\n"));
    }
}
