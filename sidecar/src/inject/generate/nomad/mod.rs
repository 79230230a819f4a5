//! Nomad jobs: a sidecar task in every group that has a service. It does not know whether Nomad runs.

mod hcl;
mod json;

use std::collections::BTreeMap;

use super::super::annotations::{INJECT, wanted};
use super::super::settings::{Capture, InjectSettings, SIDECAR_UID, milli};
use super::{INBOUND_PORT, ServiceWishes, Spots};

/// The name of our task, and the label of the port by which the sidecar is reached from other hosts.
const TASK: &str = "heddle";
/// The entry of our task's meta that says it is ours.
const STATUS: &str = "heddle.io/status";
/// How long a stop may take: the drain and some.
const KILL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(45);
/// What a task may use of a core at rest, in MHz.
const CPU: u64 = 100;

/// The job with sidecars, in the form in which it came.
///
/// # Errors
/// All reasons why a group gets none, one a line.
pub fn nomad(file: &str, text: &str, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<String, String> {
    let plan = |job: &str, group: &Group| Sidecar::of(job, group, wishes, settings);
    if is_json(text) { json::inject(file, text, &plan) } else { hcl::inject(file, text, &plan) }
}

/// The job without sidecars.
///
/// # Errors
/// It is no job.
pub fn without_nomad(file: &str, text: &str) -> Result<String, String> {
    if is_json(text) { json::uninject(file, text) } else { hcl::uninject(file, text) }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// What a group gets; nothing where it wants nothing.
type Plan<'p> = dyn Fn(&str, &Group) -> Result<Option<Sidecar>, String> + 'p;

/// What a job says of a group, in whichever form it is written.
#[derive(Debug, Default)]
struct Group {
    name: String,
    meta: BTreeMap<String, String>,
    /// Mode of its network.
    mode: Option<String>,
    /// Ports of its network by label, with where they are inside of it.
    ports: BTreeMap<String, Option<u16>>,
    services: Vec<Service>,
    /// Names of its tasks.
    tasks: Vec<String>,
}

#[derive(Debug, Default)]
struct Service {
    name: Option<String>,
    port: Option<String>,
    /// Whether it is in Consul's own mesh.
    connect: bool,
}

/// The task that a group gets.
#[derive(Debug)]
struct Sidecar {
    image: String,
    user: String,
    /// Path in the task's directory, and what is in the file.
    templates: [(&'static str, String); 3],
    /// MiB.
    memory: u64,
    memory_max: Option<u64>,
    /// What the entry [`STATUS`] says.
    status: String,
    /// Whether others call it, and the group needs the port [`TASK`].
    callable: bool,
}

impl Sidecar {
    fn of(job: &str, group: &Group, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<Option<Sidecar>, String> {
        let meta = |name: &str| group.meta.get(name).map(String::as_str);
        if let Some(word) = meta(INJECT)
            && !wanted(word).map_err(|message| format!("meta {INJECT}: {message}"))?
        {
            return Ok(None);
        }
        group.possible()?;
        let mut wishes = wishes.clone();
        wishes.protocol = wishes.protocol.or(meta("heddle.io/protocol").map(str::to_owned));
        if let Some(listed) = meta("heddle.io/outbound").filter(|_| wishes.outbound.is_empty()) {
            wishes.outbound = listed.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
        }
        let known = wishes.known(group.service(), group.port()?)?;
        let settings = InjectSettings { capture: Capture::Off, ..settings.clone() };
        let configuration = known.configuration(
            &settings,
            Spots {
                node: "${NOMAD_ALLOC_ID}",
                proof: "${NOMAD_SECRETS_DIR}/token",
                bundle: "${NOMAD_TASK_DIR}/root.pem",
                data: "${NOMAD_TASK_DIR}/heddle",
                // The network of a group is behind its host's: others come by the port that Nomad has mapped.
                advertise: Some("${NOMAD_ADDR_heddle}"),
                spared: None,
            },
        );
        // A variable that the task alone may read. A join token is good once, so each allocation has its own.
        let variable = format!("nomad/jobs/{job}/{}/{TASK}", group.name);
        let bundle = format!("{{{{ with nomadVar \"{variable}\" }}}}{{{{ .bundle }}}}{{{{ end }}}}");
        let token = format!(
            "{{{{ with nomadVar \"{variable}\" }}}}{{{{ index . (printf \"token_%s\" (env \"NOMAD_ALLOC_INDEX\")) }}}}{{{{ end }}}}"
        );
        let memory = |text: &str| milli(text).map_or(64, |milli| (milli / 1_048_576e3).ceil() as u64).max(10);
        let request = memory(&settings.resources.memory_request);
        let limit = settings.resources.memory_limit.as_deref().map(memory);
        Ok(Some(Sidecar {
            image: settings.image.clone(),
            user: SIDECAR_UID.to_string(),
            templates: [("local/sidecar.yaml", configuration), ("local/root.pem", bundle), ("secrets/token", token)],
            memory: request,
            memory_max: limit.filter(|limit| *limit > request),
            status: serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "service": known.name }).to_string(),
            callable: known.port.is_some(),
        }))
    }
}

impl Group {
    /// Why it cannot have a sidecar.
    fn possible(&self) -> Result<(), String> {
        if self.tasks.is_empty() {
            return Err("expected tasks, found none".to_owned());
        }
        if self.tasks.iter().any(|task| task == TASK) {
            return Err(format!("a task is called `{TASK}`, as the sidecar would be; rename it"));
        }
        if self.ports.contains_key(TASK) {
            return Err(format!("a port is labelled `{TASK}`, as the sidecar's would be; rename it"));
        }
        let mode = self.mode.as_deref().unwrap_or("host");
        if mode != "bridge" && !mode.starts_with("cni/") {
            return Err(format!(
                "expected a network of mode `bridge`, in which the tasks share a loopback, found `{mode}`; say network {{ mode = \"bridge\" }}"
            ));
        }
        if self.services.iter().any(|service| service.connect) {
            return Err(
                "a service has a `connect` block: it is in Consul's own mesh, and two meshes cannot both have its traffic; remove the block".to_owned()
            );
        }
        Ok(())
    }

    /// What its service is called: after the group, where nothing says more.
    fn service(&self) -> Option<&str> {
        let named = self.services.first().and_then(|service| service.name.as_deref());
        self.meta.get("heddle.io/service").map(String::as_str).or(named).or(Some(self.name.as_str()))
    }

    /// Where the application listens, inside of the group's network.
    fn port(&self) -> Result<Option<u16>, String> {
        if let Some(text) = self.meta.get("heddle.io/port") {
            let port = text.parse().ok().filter(|port: &u16| *port > 0);
            return port.map(Some).ok_or(format!("meta heddle.io/port: expected 1 to 65535, found `{text}`"));
        }
        let Some(label) = self.services.first().and_then(|service| service.port.as_deref()) else { return Ok(None) };
        Ok(self.ports.get(label).copied().flatten().or(label.parse().ok()))
    }
}
