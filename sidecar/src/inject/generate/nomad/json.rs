//! Nomad jobs in the JSON of its API: groups are read from it and tasks are put into it. What a task is like is not decided here.

use serde_json::{Map, Value, json};

use super::{CPU, Group, INBOUND_PORT, KILL_TIMEOUT, Plan, STATUS, Service, Sidecar, TASK};

pub(super) fn inject(file: &str, text: &str, plan: &Plan<'_>) -> Result<String, String> {
    each_group(file, text, &|job, group| {
        remove(group);
        if let Some(sidecar) = plan(job, &read(group))? {
            add(group, &sidecar);
        }
        Ok(())
    })
}

pub(super) fn uninject(file: &str, text: &str) -> Result<String, String> {
    each_group(file, text, &|_, group| {
        remove(group);
        Ok(())
    })
}

type Step<'s> = dyn Fn(&str, &mut Map<String, Value>) -> Result<(), String> + 's;

fn each_group(file: &str, text: &str, step: &Step<'_>) -> Result<String, String> {
    let mut whole: Value = serde_json::from_str(text).map_err(|error| format!("{file}: expected JSON: {error}"))?;
    // `nomad job run -output` wraps the job as the API takes it.
    let wrapped = whole.get("Job").is_some();
    let Some(job) = (if wrapped { whole.get_mut("Job") } else { Some(&mut whole) }) else { return Ok(text.to_owned()) };
    let name = job.get("ID").or(job.get("Name")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(groups) = job.get_mut("TaskGroups").and_then(Value::as_array_mut) else {
        return Err(format!("{file}: expected a job with TaskGroups, in the JSON of Nomad's API, or a job in HCL"));
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
    task.get("Meta").is_some_and(|meta| meta.get(STATUS).is_some())
}

fn remove(group: &mut Map<String, Value>) {
    let Some(tasks) = group.get_mut("Tasks").and_then(Value::as_array_mut) else { return };
    let before = tasks.len();
    tasks.retain(|task| !is_ours(task));
    if tasks.len() == before {
        return;
    }
    for network in group.get_mut("Networks").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(network) = network.as_object_mut() else { continue };
        let Some(ports) = network.get_mut("DynamicPorts").and_then(Value::as_array_mut) else { continue };
        ports.retain(|port| port.get("Label").and_then(Value::as_str) != Some(TASK));
        if ports.is_empty() {
            network.shift_remove("DynamicPorts");
        }
    }
}

fn add(group: &mut Map<String, Value>, sidecar: &Sidecar) {
    if let Some(tasks) = group.get_mut("Tasks").and_then(Value::as_array_mut) {
        tasks.insert(0, task(sidecar));
    }
    let network = group.get_mut("Networks").and_then(|networks| networks.get_mut(0)?.as_object_mut());
    if let Some(network) = network.filter(|_| sidecar.callable) {
        let ports = network.entry("DynamicPorts").or_insert(Value::Null);
        if !ports.is_array() {
            *ports = json!([]);
        }
        if let Some(ports) = ports.as_array_mut() {
            ports.push(json!({ "Label": TASK, "To": INBOUND_PORT }));
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

fn read(group: &Map<String, Value>) -> Group {
    let listed = |key: &str| group.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let meta = group.get("Meta").and_then(Value::as_object).into_iter().flatten();
    let networks = listed("Networks");
    let ports = networks.iter().flat_map(|network| {
        ["ReservedPorts", "DynamicPorts"].into_iter().filter_map(|list| network.get(list)?.as_array()).flatten()
    });
    Group {
        name: group.get("Name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        meta: meta.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        mode: networks.first().and_then(|network| text(network, "Mode")),
        ports: ports.filter_map(|port| Some((text(port, "Label")?, inside(port)))).collect(),
        services: listed("Services").iter().map(service).collect(),
        tasks: listed("Tasks").iter().map(|task| text(task, "Name").unwrap_or_default()).collect(),
    }
}

/// Where a port is inside of the group's network.
fn inside(port: &Value) -> Option<u16> {
    let number = ["To", "Value"].iter().find_map(|key| port.get(*key)?.as_u64().filter(|port| *port > 0))?;
    u16::try_from(number).ok()
}

fn service(service: &Value) -> Service {
    Service {
        name: text(service, "Name"),
        port: text(service, "PortLabel"),
        connect: service.get("Connect").is_some_and(|connect| !connect.is_null()),
    }
}

fn task(sidecar: &Sidecar) -> Value {
    let template = |(path, text): &(&str, String)| json!({ "DestPath": path, "EmbeddedTmpl": text, "ChangeMode": "restart", "Perms": "0444" });
    let mut resources = json!({ "CPU": CPU, "MemoryMB": sidecar.memory });
    if let Some(limit) = sidecar.memory_max {
        resources["MemoryMaxMB"] = limit.into();
    }
    json!({
        "Name": TASK,
        "Driver": "docker",
        "User": sidecar.user,
        "Lifecycle": { "Hook": "prestart", "Sidecar": true },
        "Config": { "image": sidecar.image, "args": ["agent", "-c", "${NOMAD_TASK_DIR}/sidecar.yaml"], "cap_drop": ["all"], "readonly_rootfs": true },
        "Templates": sidecar.templates.iter().map(template).collect::<Vec<_>>(),
        "Resources": resources,
        "KillTimeout": KILL_TIMEOUT.as_nanos() as u64,
        "Meta": { STATUS: sidecar.status },
    })
}
