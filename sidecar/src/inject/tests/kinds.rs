//! All kinds, each read back through the types of the Kubernetes API: what they do not know they would lose.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

/// An object, read and written by the API's own type, is what it was.
fn is_known<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), *object);
}

pub(super) fn known_to_the_api(object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Pod" => is_known::<Pod>(object),
        "Deployment" => is_known::<Deployment>(object),
        "StatefulSet" => is_known::<StatefulSet>(object),
        "DaemonSet" => is_known::<DaemonSet>(object),
        "ReplicaSet" => is_known::<ReplicaSet>(object),
        "Job" => is_known::<Job>(object),
        "CronJob" => is_known::<CronJob>(object),
        other => panic!("{other}"),
    }
}

pub(super) const KINDS: [&str; 7] = ["Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];

/// A workload of a kind around a template.
pub(super) fn workload(kind: &str, template: Value) -> Value {
    let metadata = json!({ "name": "web", "namespace": "shop" });
    let selector = json!({ "matchLabels": { "app": "web" } });
    match kind {
        "Pod" => {
            let mut pod = template;
            pod["apiVersion"] = "v1".into();
            pod["kind"] = "Pod".into();
            pod
        }
        "Job" => json!({ "apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": { "template": template } }),
        "CronJob" => json!({ "apiVersion": "batch/v1", "kind": kind, "metadata": metadata,
            "spec": { "schedule": "* * * * *", "jobTemplate": { "spec": { "template": template } } } }),
        "StatefulSet" => json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": metadata,
            "spec": { "selector": selector, "serviceName": "web", "template": template } }),
        _ => {
            json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": { "selector": selector, "template": template } })
        }
    }
}

#[test]
fn every_kind_gets_the_same_sidecar_and_nothing_that_the_api_does_not_know() {
    let mut bundled = InjectSettings { image_pull_policy: Some("IfNotPresent".into()), ..InjectSettings::default() };
    bundled.bundle = Bundle::Inline("-----BEGIN CERTIFICATE-----\n".into());
    bundled.resources.cpu_limit = Some("1".into());
    for settings in [InjectSettings::default(), bundled] {
        for kind in KINDS {
            let object = workload(kind, template());
            let done = inject(&object, &settings).unwrap();
            assert_eq!(done.change, Change::Changed);
            known_to_the_api(&done.object);
            let Place::Template(path) = place(&done.object) else { panic!("{kind}") };
            let names = |list: &str| -> Vec<String> {
                let spec = workload::at(&done.object, path).unwrap()["spec"][list].as_array().unwrap().clone();
                spec.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
            };
            assert_eq!(names("initContainers"), ["heddle-capture", "heddle"], "{kind}");
            assert_eq!(
                (names("containers"), names("volumes")),
                (vec!["web".into()], vec!["heddle-files".into(), "heddle-data".into()])
            );
            assert_eq!(uninject(&done.object).unwrap().object, object, "{kind}");
        }
    }
}

#[test]
fn lists_are_worked_through_and_tell_all_faults_at_once() {
    let mut list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" } }, workload("Deployment", template()), pod(),
    ] });
    let done = injected(&list);
    assert_eq!(done["items"][0], list["items"][0]);
    assert!(done["items"][1].pointer("/spec/template/metadata/annotations/heddle.io~1status").is_some());
    assert_eq!(uninject(&done).unwrap().object, list);
    list["items"][1]["spec"]["template"]["spec"]["hostNetwork"] = true.into();
    list["items"][2]["metadata"]["annotations"] = json!({ "heddle.io/port": "0" });
    let told = refused(&list);
    assert!(
        told.contains("Deployment shop/web: spec.template.spec.hostNetwork: ")
            && told.contains("Pod web-1: metadata.annotations[heddle.io/port]: "),
        "{told}"
    );
}

#[test]
fn documents_keep_their_order_and_others_their_text() {
    let stream = "# a service\napiVersion: v1\nkind: Service\nmetadata: { name: web }   # as it was\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  selector: {}\n  template:\n    spec:\n      volumes:\n      - name: v\n        secret: { secretName: s, defaultMode: 0400 }\n      containers:\n      - name: web\n        image: web:1\n        env: [ { name: A, value: \"yes\" } ]\n---\n# nothing here\n---\napiVersion: v1\nkind: ConfigMap\ndata: { a: 'x' }\n";
    let settings = InjectSettings::default();
    let done = transform("k8s.yaml", stream, Task::Inject(&settings)).unwrap();
    assert_eq!((done.changed, done.unchanged), (1, 0));
    assert!(
        done.text.starts_with("# a service\napiVersion: v1\nkind: Service\nmetadata: { name: web }   # as it was\n---\n"),
        "{}",
        done.text
    );
    assert!(
        done.text.ends_with("---\n# nothing here\n---\napiVersion: v1\nkind: ConfigMap\ndata: { a: 'x' }\n"),
        "{}",
        done.text
    );
    assert!(done.text.contains("defaultMode: 256") && done.text.contains("value: \"yes\""), "{}", done.text);
    let again = transform("k8s.yaml", &done.text, Task::Inject(&settings)).unwrap();
    assert_eq!((again.text.as_str(), again.changed, again.unchanged), (done.text.as_str(), 0, 1));
    let back = transform("k8s.yaml", &done.text, Task::Uninject).unwrap();
    let plain = transform("k8s.yaml", &back.text, Task::Inject(&settings)).unwrap();
    assert_eq!((back.changed, plain.text), (1, done.text));
    assert!(!back.text.contains("heddle"), "{}", back.text);
}

#[test]
fn json_stays_json() {
    let text = workload("Deployment", template()).to_string();
    let done = transform("-", &text, Task::Inject(&InjectSettings::default())).unwrap();
    let object: Value = serde_json::from_str(&done.text).unwrap();
    assert_eq!(object, injected(&workload("Deployment", template())));
}
