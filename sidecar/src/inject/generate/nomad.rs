//! Nomad jobs in their JSON form: a sidecar task in every group that has a service. It does not know whether Nomad runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::annotations::{INJECT, wanted};
use super::super::settings::{Capture, InjectSettings, SIDECAR_UID, milli};
use super::ServiceWishes;

/// The name of our task.
const TASK: &str = "heddle";
/// How a job that is written in HCL becomes one that can be read here.
const CONVERT: &str = "convert it first: `nomad job run -output job.hcl > job.json`; HCL has comments, variables and functions that cannot be written back as they were";

/// The job with sidecars.
///
/// # Errors
/// All reasons why a group gets none, one a line.
pub fn nomad(file: &str, text: &str, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<String, String> {
    each_group(file, text, &|job, group| {
        remove(group);
        add(job, group, wishes, settings)
    })
}

/// The job without sidecars.
///
/// # Errors
/// It is no job.
pub fn without_nomad(file: &str, text: &str) -> Result<String, String> {
    each_group(file, text, &|_, group| {
        remove(group);
        Ok(())
    })
}

type Step<'s> = dyn Fn(&str, &mut Map<String, Value>) -> Result<(), String> + 's;

fn each_group(file: &str, text: &str, step: &Step<'_>) -> Result<String, String> {
    if !text.trim_start().starts_with('{') {
        return Err(format!("{file}: expected a job as JSON, and this looks like HCL; {CONVERT}"));
    }
    let mut whole: Value = serde_json::from_str(text).map_err(|error| format!("{file}: expected JSON: {error}"))?;
    // `nomad job run -output` wraps the job as the API takes it.
    let wrapped = whole.get("Job").is_some();
    let Some(job) = (if wrapped { whole.get_mut("Job") } else { Some(&mut whole) }) else { return Ok(text.to_owned()) };
    let name = job.get("ID").or(job.get("Name")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(groups) = job.get_mut("TaskGroups").and_then(Value::as_array_mut) else {
        return Err(format!("{file}: expected a job with TaskGroups, in the JSON of Nomad's API; {CONVERT}"));
    };
    let mut faults = Vec::new();
    for (index, group) in groups.iter_mut().enumerate() {
        let title = group
            .get("Name")
            .and_then(Value::as_str)
            .map_or_else(|| format!("TaskGroups[{index}]"), |name| format!("group {name}"));
        let done = group.as_object_mut().ok_or("expected a map".to_owned()).and_then(|group| step(&name, group));
        if let Err(message) = done {
            faults.push(format!("{file}: job {name}: {title}: {message}"));
        }
    }
    if faults.is_empty() { Ok(format!("{whole:#}\n")) } else { Err(faults.join("\n")) }
}

fn is_ours(task: &Value) -> bool {
    task.pointer("/Meta/heddle.io~1status").is_some()
}

fn remove(group: &mut Map<String, Value>) {
    if let Some(tasks) = group.get_mut("Tasks").and_then(Value::as_array_mut) {
        tasks.retain(|task| !is_ours(task));
    }
}

fn add(job: &str, group: &mut Map<String, Value>, wishes: &ServiceWishes, settings: &InjectSettings) -> Result<(), String> {
    let meta = group.get("Meta").and_then(Value::as_object).cloned().unwrap_or_default();
    let meta: BTreeMap<&str, &str> = meta.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect();
    if let Some(word) = meta.get(INJECT)
        && !wanted(word).map_err(|message| format!("Meta[{INJECT}]: {message}"))?
    {
        return Ok(());
    }
    possible(group)?;
    let services = group.get("Services").and_then(Value::as_array).cloned().unwrap_or_default();
    let first = services.first();
    let named = first.and_then(|service| service.get("Name")?.as_str()).or(group.get("Name").and_then(Value::as_str));
    let port = match meta.get("heddle.io/port") {
        Some(text) => Some(
            text.parse()
                .ok()
                .filter(|port: &u16| *port > 0)
                .ok_or(format!("Meta[heddle.io/port]: expected 1 to 65535, found `{text}`"))?,
        ),
        None => first.and_then(|service| port_of(group, service.get("PortLabel")?.as_str()?)),
    };
    let mut wishes = wishes.clone();
    wishes.protocol = wishes.protocol.or(meta.get("heddle.io/protocol").map(|text| (*text).to_owned()));
    if let Some(listed) = meta.get("heddle.io/outbound").filter(|_| wishes.outbound.is_empty()) {
        wishes.outbound = listed.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect();
    }
    let known = wishes.known(meta.get("heddle.io/service").copied().or(named), port)?;
    let settings = InjectSettings { capture: Capture::Off, ..settings.clone() };
    let configuration = known.configuration(
        &settings,
        "${NOMAD_ALLOC_ID}",
        "${NOMAD_SECRETS_DIR}/token",
        "${NOMAD_TASK_DIR}/root.pem",
        "${NOMAD_ALLOC_DIR}/data/heddle",
    );
    let task = task(job, &known.name, &configuration, &settings);
    if let Some(tasks) = group.get_mut("Tasks").and_then(Value::as_array_mut) {
        tasks.insert(0, task);
    }
    Ok(())
}

fn possible(group: &Map<String, Value>) -> Result<(), String> {
    let tasks = group.get("Tasks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if tasks.is_empty() {
        return Err("expected tasks, found none".to_owned());
    }
    if tasks.iter().any(|task| task.get("Name").and_then(Value::as_str) == Some(TASK)) {
        return Err(format!("a task is called `{TASK}`, as the sidecar would be; rename it"));
    }
    let networks = group.get("Networks").and_then(Value::as_array);
    let mode = networks.and_then(|networks| networks.first()?.get("Mode")?.as_str()).unwrap_or("host");
    if mode != "bridge" && !mode.starts_with("cni/") {
        return Err(format!(
            "expected a network of mode `bridge`, in which the tasks share a loopback, found `{mode}`; say network {{ mode = \"bridge\" }}"
        ));
    }
    let connect = group
        .get("Services")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|service| service.get("Connect").is_some_and(|connect| !connect.is_null()));
    if connect.is_some() {
        return Err("a service has a `connect` block: it is in Consul's own mesh, and two meshes cannot both have its traffic; remove the block".to_owned());
    }
    Ok(())
}

/// Where a labelled port is inside of the group's network.
fn port_of(group: &Map<String, Value>, label: &str) -> Option<u16> {
    let networks = group.get("Networks")?.as_array()?;
    let ports = networks.iter().flat_map(|network| {
        ["ReservedPorts", "DynamicPorts"].into_iter().filter_map(|list| network.get(list)?.as_array()).flatten()
    });
    let port = ports.into_iter().find(|port| port.get("Label").and_then(Value::as_str) == Some(label))?;
    let inside = ["To", "Value"].iter().find_map(|key| port.get(*key)?.as_u64().filter(|port| *port > 0));
    inside.or(label.parse().ok()).and_then(|port| u16::try_from(port).ok())
}

fn task(job: &str, service: &str, configuration: &str, settings: &InjectSettings) -> Value {
    let template =
        |path: &str, text: String| json!({ "DestPath": path, "EmbeddedTmpl": text, "ChangeMode": "restart", "Perms": "0444" });
    // A join token and the roots are variables of the job (`nomad var put nomad/jobs/web heddle_token=… heddle_bundle=@root.pem`).
    let variable = |name: &str| format!("{{{{ with nomadVar \"nomad/jobs/{job}\" }}}}{{{{ .{name} }}}}{{{{ end }}}}");
    let memory = |text: &str| milli(text).map_or(64, |milli| (milli / 1_048_576e3).ceil() as u64).max(10);
    let limit = settings.resources.memory_limit.as_deref().map(memory);
    let request = memory(&settings.resources.memory_request);
    let mut resources = json!({ "CPU": 100, "MemoryMB": request });
    if let Some(limit) = limit.filter(|limit| *limit > request) {
        resources["MemoryMaxMB"] = limit.into();
    }
    json!({
        "Name": TASK,
        "Driver": "docker",
        "User": SIDECAR_UID.to_string(),
        "Lifecycle": { "Hook": "prestart", "Sidecar": true },
        "Config": { "image": settings.image, "args": ["agent", "-c", "${NOMAD_TASK_DIR}/sidecar.yaml"], "cap_drop": ["all"], "readonly_rootfs": true },
        "Templates": [
            template("local/sidecar.yaml", configuration.to_owned()),
            template("local/root.pem", variable("heddle_bundle")),
            template("secrets/token", variable("heddle_token")),
        ],
        "Resources": resources,
        "KillTimeout": 45_000_000_000_u64,
        "Meta": { "heddle.io/status": json!({ "version": env!("CARGO_PKG_VERSION"), "service": service }).to_string() },
    })
}
