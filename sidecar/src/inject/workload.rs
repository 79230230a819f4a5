//! Where the pod template of each kind of workload is, and what a workload is called. It does not know what is put into a template.

use serde_json::Value;

/// Where an object keeps its pod template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A list of objects.
    List,
    /// A workload, with the way to its template; a pod is its own.
    Template(&'static [&'static str]),
    /// Something else.
    Nowhere,
}

const OF_TEMPLATE: &[&str] = &["spec", "template"];
const OF_CRON_JOB: &[&str] = &["spec", "jobTemplate", "spec", "template"];

/// Where this object keeps its template, by `apiVersion` and `kind`.
#[must_use]
pub fn place(object: &Value) -> Place {
    let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
    match (group, text("kind")) {
        ("", "List") => Place::List,
        ("", "Pod") => Place::Template(&[]),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => Place::Template(OF_TEMPLATE),
        ("batch", "CronJob") => Place::Template(OF_CRON_JOB),
        _ => Place::Nowhere,
    }
}

/// The value at the end of a way.
#[must_use]
pub fn at<'v>(object: &'v Value, way: &[&str]) -> Option<&'v Value> {
    way.iter().try_fold(object, |value, key| value.get(key))
}

/// The value at the end of a way, to be changed.
pub fn at_mut<'v>(object: &'v mut Value, way: &[&str]) -> Option<&'v mut Value> {
    way.iter().try_fold(object, |value, key| value.get_mut(key))
}

/// `Deployment shop/web`, for messages.
#[must_use]
pub fn title(object: &Value) -> String {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("object");
    let of = |key| object.pointer(&format!("/metadata/{key}")).and_then(Value::as_str);
    let name = of("name").or(of("generateName")).unwrap_or("without a name");
    of("namespace").map_or_else(|| format!("{kind} {name}"), |namespace| format!("{kind} {namespace}/{name}"))
}

/// What the workload behind an object is called: a pod bears the name of its controller, and a ReplicaSet that of its Deployment.
#[must_use]
pub fn name(object: &Value) -> Option<String> {
    let metadata = object.get("metadata")?;
    let owners = metadata.get("ownerReferences").and_then(Value::as_array);
    let owner = owners.into_iter().flatten().find(|owner| owner.get("controller").and_then(Value::as_bool) == Some(true));
    let hash = metadata.pointer("/labels/pod-template-hash").and_then(Value::as_str);
    if let Some(owner) = owner
        && let Some(name) = owner.get("name").and_then(Value::as_str)
    {
        let of_deployment = hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-'));
        let kind = owner.get("kind").and_then(Value::as_str).unwrap_or_default();
        return Some(match (kind, of_deployment) {
            ("ReplicaSet" | "Deployment", Some(deployment)) => deployment.to_owned(),
            ("Job" | "CronJob", _) => of_cron_job(name).to_owned(),
            _ => name.to_owned(),
        });
    }
    let own = metadata.get("name").and_then(Value::as_str);
    let generated = metadata.get("generateName").and_then(Value::as_str).map(|start| start.trim_end_matches('-'));
    own.or(generated).map(str::to_owned)
}

/// A CronJob names its jobs by their minute since 1970.
fn of_cron_job(job: &str) -> &str {
    match job.rsplit_once('-') {
        Some((name, minute)) if minute.len() >= 8 && minute.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => job,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_bears_the_name_of_what_made_it() {
        let pod = |owner: &str, kind: &str, hash: &str| {
            json!({ "kind": "Pod", "metadata": { "generateName": "x-", "labels": { "pod-template-hash": hash },
                "ownerReferences": [ { "kind": kind, "name": owner, "controller": true } ] } })
        };
        assert_eq!(name(&pod("web-5d8f", "ReplicaSet", "5d8f")).as_deref(), Some("web"));
        assert_eq!(name(&pod("db", "StatefulSet", "")).as_deref(), Some("db"));
        assert_eq!(name(&pod("report-29012345", "Job", "")).as_deref(), Some("report"));
        assert_eq!(name(&pod("once-7", "Job", "")).as_deref(), Some("once-7"));
        assert_eq!(name(&json!({ "metadata": { "generateName": "web-" } })).as_deref(), Some("web"));
        assert_eq!(name(&json!({ "metadata": {} })), None);
    }

    #[test]
    fn kinds_of_other_groups_are_not_ours() {
        assert_eq!(place(&json!({ "apiVersion": "apps/v1", "kind": "Deployment" })), Place::Template(OF_TEMPLATE));
        assert_eq!(place(&json!({ "apiVersion": "example.com/v1", "kind": "Deployment" })), Place::Nowhere);
        assert_eq!(place(&json!({ "apiVersion": "v1", "kind": "Service" })), Place::Nowhere);
        assert_eq!(place(&json!("text")), Place::Nowhere);
    }
}
