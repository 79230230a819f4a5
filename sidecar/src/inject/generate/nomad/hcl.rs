//! Nomad jobs in HCL: groups are read from what the parser finds, and tasks are put between the lines, so that every comment, variable and function
//! stays as its author wrote it. What a task is like is not decided here.

use std::collections::BTreeMap;
use std::ops::Range;

use hcl_edit::Span;
use hcl_edit::expr::{Expression, ObjectKey};
use hcl_edit::parser::parse_body;
use hcl_edit::structure::{Block, Body};

use super::{CPU, Group, INBOUND_PORT, KILL_TIMEOUT, Plan, STATUS, Service, Sidecar, TASK};

/// One step of indentation, as `nomad fmt` writes it.
const STEP: &str = "  ";

/// What takes the place of a range of bytes.
type Edit = (Range<usize>, String);

pub(super) fn inject(file: &str, text: &str, plan: &Plan<'_>) -> Result<String, String> {
    let text = uninject(file, text)?;
    each_group(file, &text, &|job, group| {
        let Some(sidecar) = plan(job, &read(group)?)? else { return Ok(Vec::new()) };
        let mut edits = vec![at_the_end(&text, group, &task(&sidecar))?];
        if let Some(network) = group.body.get_blocks("network").next().filter(|_| sidecar.callable) {
            edits.push(at_the_end(&text, network, &format!("port \"{TASK}\" {{\n{STEP}to = {INBOUND_PORT}\n}}\n"))?);
        }
        Ok(edits)
    })
}

pub(super) fn uninject(file: &str, text: &str) -> Result<String, String> {
    each_group(file, text, &|_, group| {
        let ours: Vec<&Block> = group.body.get_blocks("task").filter(|task| is_ours(task)).collect();
        if ours.is_empty() {
            return Ok(Vec::new());
        }
        let networks = group.body.get_blocks("network");
        let ports = networks.flat_map(|network| network.body.get_blocks("port")).filter(|port| port.has_labels(&[TASK]));
        Ok(ours.into_iter().chain(ports).filter_map(|block| Some((lines(text, block.span()?), String::new()))).collect())
    })
}

type Step<'s> = dyn Fn(&str, &Block) -> Result<Vec<Edit>, String> + 's;

fn each_group(file: &str, text: &str, step: &Step<'_>) -> Result<String, String> {
    let body =
        parse_body(text).map_err(|error| format!("{file}: expected a job, as HCL or as the JSON of Nomad's API: {error}"))?;
    let jobs: Vec<&Block> = body.get_blocks("job").collect();
    if jobs.is_empty() {
        return Err(format!("{file}: expected a `job` block, found none"));
    }
    let (mut edits, mut faults) = (Vec::new(), Vec::new());
    for job in jobs {
        let name = label(job);
        if job.body.has_blocks("task") {
            faults.push(format!(
                "{file}: job {name}: a task stands outside of a group; put it into a group with a network of mode `bridge`"
            ));
        }
        for group in job.body.get_blocks("group") {
            match step(name, group) {
                Ok(more) => edits.extend(more),
                Err(message) => faults.push(format!("{file}: job {name}: group {}: {message}", label(group))),
            }
        }
    }
    if faults.is_empty() { Ok(edited(text, edits)) } else { Err(faults.join("\n")) }
}

/// The text with all edits, which do not overlap.
fn edited(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut text = text.to_owned();
    for (range, new) in edits {
        text.replace_range(range, &new);
    }
    text
}

fn label(block: &Block) -> &str {
    block.labels.first().map_or("", |label| label.as_str())
}

/// Whole lines, from where the block begins to where it ends.
fn lines(text: &str, block: Range<usize>) -> Range<usize> {
    let start = text[..block.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[block.end..].find('\n').map_or(text.len(), |at| block.end + at + 1);
    start..end
}

/// Puts lines before the brace that closes a block. A block of one line is opened for it.
fn at_the_end(text: &str, block: &Block, new: &str) -> Result<Edit, String> {
    let unclear =
        || format!("the closing brace of `{}` stands behind something else; give it a line of its own", block.ident.as_str());
    let span = block.span().ok_or_else(unclear)?;
    let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let indent: String = text[line..].chars().take_while(|c| *c == ' ' || *c == '\t').collect();
    let inner = format!("{indent}{STEP}");
    let brace = span.end - 1;
    let new = indented(new, &inner);
    let before = text[..brace].trim_end_matches([' ', '\t']);
    if before.ends_with('\n') {
        return Ok((before.len()..before.len(), new));
    }
    let opened = text[span.clone()].find('{').map(|at| span.start + at + 1).ok_or_else(unclear)?;
    let content = text[opened..brace].trim();
    if content.contains('\n') {
        return Err(unclear());
    }
    let content = if content.is_empty() { String::new() } else { format!("{inner}{content}\n") };
    Ok((opened..brace, format!("\n{content}{new}{indent}")))
}

/// Each line further in. What a here-document holds goes in with its lines: its end mark is the one that takes them out again (`<<-`).
fn indented(text: &str, indent: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("{indent}{line}\n") }).collect()
}

fn is_ours(task: &Block) -> bool {
    map(&task.body, "meta").is_ok_and(|meta| meta.contains_key(STATUS))
}

fn read(group: &Block) -> Result<Group, String> {
    let network = group.body.get_blocks("network").next();
    let mut ports = BTreeMap::new();
    for port in network.iter().flat_map(|network| network.body.get_blocks("port")) {
        let number = ["to", "static"].into_iter().find_map(|key| port.body.get_attribute(key));
        let inside = number.and_then(|number| number.value.as_number()?.as_u64()).filter(|port| *port > 0);
        ports.insert(label(port).to_owned(), inside.and_then(|port| u16::try_from(port).ok()));
    }
    Ok(Group {
        name: label(group).to_owned(),
        meta: map(&group.body, "meta")?,
        mode: network.map(|network| literal(&network.body, "mode")).transpose()?.flatten(),
        ports,
        services: group.body.get_blocks("service").map(service).collect(),
        tasks: group.body.get_blocks("task").map(|task| label(task).to_owned()).collect(),
    })
}

/// A service. What is computed is taken as not said: then the group's name or `--service` counts.
fn service(service: &Block) -> Service {
    Service {
        name: literal(&service.body, "name").ok().flatten(),
        port: literal(&service.body, "port").ok().flatten(),
        connect: service.body.has_blocks("connect"),
    }
}

fn literal(body: &Body, key: &str) -> Result<Option<String>, String> {
    let Some(attribute) = body.get_attribute(key) else { return Ok(None) };
    plain(&attribute.value).map(Some).ok_or(format!("{key}: expected a literal, found an expression that only Nomad can compute"))
}

fn plain(value: &Expression) -> Option<String> {
    let number = || value.as_number().map(ToString::to_string);
    value.as_str().map(str::to_owned).or_else(number).or_else(|| value.as_bool().map(|flag| flag.to_string()))
}

/// A map of words: a block (`meta { a = "b" }`) or an attribute (`meta = { "a.b" = "c" }`). What is computed is left out, unless it is for us.
fn map(body: &Body, name: &str) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    let mut put = |key: &str, value: &Expression| match plain(value) {
        Some(word) => {
            map.insert(key.to_owned(), word);
            Ok(())
        }
        None if key.starts_with("heddle.io/") => {
            Err(format!("{name} {key}: expected a literal, found an expression that only Nomad can compute"))
        }
        None => Ok(()),
    };
    for attribute in body.get_blocks(name).flat_map(|block| block.body.attributes()) {
        put(attribute.key.as_str(), &attribute.value)?;
    }
    for (key, value) in
        body.get_attribute(name).and_then(|attribute| attribute.value.as_object()).into_iter().flat_map(|map| map.iter())
    {
        match key {
            ObjectKey::Ident(ident) => put(ident.as_str(), value.expr())?,
            ObjectKey::Expression(key) => put(key.as_str().unwrap_or_default(), value.expr())?,
        }
    }
    Ok(map)
}

/// A quoted string; what Nomad's runtime or its templates are to see is kept from HCL's own templates.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(&text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")))
}

fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

fn task(sidecar: &Sidecar) -> String {
    let mut lines = format!(
        "task \"{TASK}\" {{\n  driver       = \"docker\"\n  user         = \"{}\"\n  kill_timeout = \"{}s\"\n  meta         = {{ \"{STATUS}\" = {} }}\n\n",
        sidecar.user,
        KILL_TIMEOUT.as_secs(),
        quoted(&sidecar.status)
    );
    lines += "  lifecycle {\n    hook    = \"prestart\"\n    sidecar = true\n  }\n\n";
    lines += &format!(
        "  config {{\n    image           = {}\n    args            = [\"agent\", \"-c\", {}]\n    cap_drop        = [\"all\"]\n    readonly_rootfs = true\n  }}\n",
        quoted(&sidecar.image),
        quoted("${NOMAD_TASK_DIR}/sidecar.yaml")
    );
    for (path, text) in &sidecar.templates {
        let data = match text.strip_suffix('\n') {
            Some(text) => format!("<<-HEDDLE\n{}    HEDDLE", indented(&escaped(text), "      ")),
            None => quoted(text),
        };
        lines += &format!(
            "\n  template {{\n    destination = {}\n    change_mode = \"restart\"\n    perms       = \"0444\"\n    data        = {data}\n  }}\n",
            quoted(path)
        );
    }
    let most = sidecar.memory_max.map(|most| format!("    memory_max = {most}\n")).unwrap_or_default();
    lines + &format!("\n  resources {{\n    cpu        = {CPU}\n    memory     = {}\n{most}  }}\n}}\n", sidecar.memory)
}
