//! The pages of the documentation, held to what they show: their `console` blocks are run as a reader would run them.

mod shell;
pub mod story;
pub mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use heddle_xds::catalog::Catalog;
use serde_json::{Value, json};

use crate::client;
use crate::heddle::{Heddle, Setup, binary};
use crate::place::Place;
use crate::process::{Process, until};
use shell::Shell;
use story::Step;

/// The page that lists all others.
const INDEX: &str = "README";

/// The folder of the pages of plugins.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/plugins")
}

/// The names of the plugins that have a page.
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(".md")?.to_owned())).filter(|name| !is_guide(name)).collect();
    names.sort_unstable();
    names
}

/// Pages that are about no single plugin.
fn is_guide(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_uppercase())
}

pub fn text(name: &str) -> String {
    let path = folder().join(format!("{name}.md"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}; every plugin has its page", path.display()))
}

/// The files whose tables differ from what the schemas say, with what they should hold.
///
/// # Errors
/// The first page that has no place for its table.
pub fn outdated(catalog: &dyn Catalog) -> Result<Vec<(PathBuf, String)>, String> {
    let mut list = Vec::new();
    for descriptor in catalog.descriptors() {
        let page = text(descriptor.name);
        let now =
            table::with_fields(&page, catalog, descriptor).map_err(|why| format!("docs/plugins/{}.md {why}", descriptor.name))?;
        if now != page {
            list.push((folder().join(format!("{}.md", descriptor.name)), now));
        }
    }
    let index = text(INDEX);
    let now = table::with_index(&index, catalog, text).map_err(|why| format!("docs/plugins/{INDEX}.md {why}"))?;
    if now != index {
        list.push((folder().join(format!("{INDEX}.md")), now));
    }
    Ok(list)
}

/// Runs the commands of one page on a Heddle of its own, with `heddle echo` behind it.
///
/// # Errors
/// The first command whose output is not what the page shows.
pub fn run(page: &str) -> Result<(), String> {
    let mut scene = Scene::set();
    let text = scene.rewritten(page);
    for step in story::steps(&text) {
        scene.act(&step)?;
    }
    Ok(())
}

/// What a reader has: a gateway, the service behind it and a shell.
struct Scene {
    heddle: Heddle,
    _echo: Process,
    shell: Shell,
    /// The ports that pages name, and what stands for them here.
    ports: BTreeMap<u16, SocketAddr>,
    /// Marks that were waited for.
    marks: usize,
}

impl Scene {
    fn set() -> Scene {
        let heddle = Heddle::run_with(Setup::default());
        let place = &heddle.place;
        let [blue, green] = [(); 2].map(|()| place.address());
        let mut command = Command::new(binary());
        command.arg("echo").args([blue.to_string(), green.to_string()]);
        let echo = Process::start(command, place.path("echo.log"));
        until("the service", || client::get(green, "/").ok());
        let ports = BTreeMap::from([
            (8080, blue),
            (8081, green),
            (9080, heddle.http),
            (9443, heddle.https),
            (9180, heddle.admin),
            (15000, heddle.agent),
            (18000, heddle.xds),
        ]);
        let shell = Shell::open(&heddle);
        Scene { heddle, _echo: echo, shell, ports, marks: 0 }
    }

    /// The page with the addresses of this scene; a port that is not known gets an address that is free.
    fn rewritten(&mut self, page: &str) -> String {
        const HOST: &str = "127.0.0.1:";
        let mut parts = page.split(HOST);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            match part[..digits].parse::<u16>() {
                Ok(port) => {
                    let place: &Place = &self.heddle.place;
                    text.push_str(&self.ports.entry(port).or_insert_with(|| place.address()).to_string());
                    text.push_str(&part[digits..]);
                }
                Err(_) => text.extend([HOST, part]),
            }
        }
        text
    }

    fn act(&mut self, step: &Step) -> Result<(), String> {
        let changes = step.command.contains(&self.heddle.admin.to_string()) || step.command.contains("heddle ");
        let got = self.shell.run(&step.command);
        let refused = changes && step.output.is_empty() && got.output.contains("\"error_msg\"");
        if refused || !(step.output.is_empty() || story::matches(&step.output, &got.output)) {
            return Err(format!(
                "$ {}\n---- expected\n{}\n---- got (exit code {})\n{}\n{}",
                step.command,
                step.output.join("\n"),
                got.code,
                got.output.trim_end(),
                self.shell.errors()
            ));
        }
        if changes {
            // What is removed goes out last, so the second mark tells that all of the first round has arrived.
            self.mark();
            self.mark();
        }
        Ok(())
    }

    /// Puts a route and waits until the agent has it, and all that was put before.
    fn mark(&mut self) {
        self.marks += 1;
        let uri = format!("/mark-{}", self.marks);
        self.heddle.put("/routes/mark", json!({ "uri": uri, "priority": -1, "plugins": { "redirect": { "uri": "/mark" } } }));
        until("the change", || {
            let dump = client::get(self.heddle.agent, "/config_dump").ok()?.json();
            let holds = |route: &Value| route["matches"]["uris"][0] == *uri;
            dump["routes"].as_array()?.iter().any(holds).then_some(())
        });
        let gone = self.heddle.admin("DELETE", "/routes/mark", Value::Null);
        assert_eq!(gone.status, 200, "{}", gone.text());
    }
}
