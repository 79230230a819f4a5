//! Questions as API servers send them, and what is answered.

use base64::Engine;
use serde_json::{Value, json};

use super::super::review::{Answered, Policy, Scope, Verdict, answer};
use crate::inject::{InjectSettings, is_injected};

const CREATE: &str = include_str!("reviews/create.json");
const DRY_RUN: &str = include_str!("reviews/dry-run.json");
const UPDATE: &str = include_str!("reviews/update.json");
const SYSTEM: &str = include_str!("reviews/system-namespace.json");

fn policy() -> Policy {
    Policy { settings: InjectSettings::default(), strict: false, exclude_namespaces: vec!["kube-system".into()] }
}

fn ask(text: &str, scope: Scope) -> (Answered, Value) {
    let answered = answer(text.as_bytes(), scope, &policy()).unwrap();
    let value = serde_json::to_value(&answered.review).unwrap();
    let request: Value = serde_json::from_str(text).unwrap();
    assert_eq!((&value["apiVersion"], &value["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(value["response"]["uid"], request["request"]["uid"]);
    assert!(value.get("request").is_none());
    (answered, value["response"].clone())
}

fn changed(text: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    change(&mut value["request"]["object"]);
    value.to_string()
}

/// The pod as the API server has it after the answer.
fn patched(text: &str, response: &Value) -> Value {
    let request: Value = serde_json::from_str(text).unwrap();
    let mut pod = request["request"]["object"].clone();
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    json_patch::patch(&mut pod, &serde_json::from_slice::<json_patch::Patch>(&bytes).unwrap()).unwrap();
    pod
}

#[test]
fn a_pod_of_a_replica_set_gets_its_sidecar_by_patch() {
    let (answered, response) = ask(CREATE, Scope::Namespace);
    assert_eq!((answered.verdict, answered.dry_run, answered.pod.as_str()), (Verdict::Injected, false, "shop/web-6d4cf56db6-"));
    assert_eq!(response["allowed"], true);
    let pod = patched(CREATE, &response);
    assert!(is_injected(&pod));
    let names: Vec<&str> =
        pod["spec"]["initContainers"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["heddle-capture", "heddle"]);
    let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod.clone()).unwrap();
    assert_eq!(typed.spec.unwrap().volumes.unwrap().len(), 3);
    assert!(pod["metadata"]["annotations"]["heddle.io/config"].as_str().unwrap().contains("name: web\n"));
}

#[test]
fn asked_again_it_has_nothing_to_add() {
    let (_, response) = ask(CREATE, Scope::Namespace);
    let mut pod = patched(CREATE, &response);
    pod["spec"]["initContainers"][1]["terminationMessagePath"] = "/dev/termination-log".into();
    let again = changed(CREATE, |object| *object = pod);
    let (answered, response) = ask(&again, Scope::Namespace);
    assert_eq!(answered.verdict, Verdict::Unchanged);
    assert!(response.get("patch").is_none());
}

#[test]
fn a_dry_run_is_answered_alike_and_told_apart() {
    let (answered, response) = ask(DRY_RUN, Scope::Namespace);
    assert_eq!((answered.verdict, answered.dry_run), (Verdict::Injected, true));
    assert!(is_injected(&patched(DRY_RUN, &response)));
}

#[test]
fn updates_and_excluded_namespaces_pass() {
    for text in [UPDATE, SYSTEM] {
        let (answered, response) = ask(text, Scope::Asked);
        assert_eq!(answered.verdict, Verdict::Passed);
        let (answered, same) = ask(text, Scope::Namespace);
        assert_eq!((answered.verdict, &same), (Verdict::Passed, &response));
        assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None));
    }
}

#[test]
fn who_decides_is_the_label_then_the_annotation_then_the_namespace() {
    let verdict = |label: Option<&str>, annotation: Option<&str>, scope| {
        let text = changed(CREATE, |pod| {
            for (map, word) in [("labels", label), ("annotations", annotation)] {
                if let Some(word) = word {
                    pod["metadata"][map]["heddle.io/inject"] = word.into();
                }
            }
        });
        ask(&text, scope).0.verdict
    };
    let (yes, no) = (Some("true"), Some("false"));
    for (label, annotation, in_namespace, elsewhere) in [
        (None, None, Verdict::Injected, Verdict::Passed),
        (None, yes, Verdict::Injected, Verdict::Injected),
        (None, no, Verdict::Passed, Verdict::Passed),
        (yes, None, Verdict::Injected, Verdict::Injected),
        (yes, no, Verdict::Injected, Verdict::Injected),
        (no, None, Verdict::Passed, Verdict::Passed),
        (no, yes, Verdict::Passed, Verdict::Passed),
    ] {
        assert_eq!(verdict(label, annotation, Scope::Namespace), in_namespace, "{label:?} {annotation:?}");
        assert_eq!(verdict(label, annotation, Scope::Asked), elsewhere, "{label:?} {annotation:?}");
    }
}

#[test]
fn what_cannot_be_injected_runs_with_a_warning_or_not_at_all() {
    let text = changed(CREATE, |pod| pod["spec"]["hostNetwork"] = true.into());
    let (answered, response) = ask(&text, Scope::Namespace);
    assert_eq!((answered.verdict, &response["allowed"]), (Verdict::Warned, &json!(true)));
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("runs without a sidecar: Pod shop/web-6d4cf56db6-: spec.hostNetwork") && warning.chars().count() <= 256,
        "{warning}"
    );
    let strict = Policy { strict: true, ..policy() };
    let answered = answer(text.as_bytes(), Scope::Namespace, &strict).unwrap();
    let response = serde_json::to_value(&answered.review).unwrap()["response"].clone();
    assert_eq!(
        (answered.verdict, &response["allowed"], &response["status"]["code"]),
        (Verdict::Denied, &json!(false), &json!(422))
    );
    assert!(response["status"]["message"].as_str().unwrap().contains("spec.hostNetwork"));
}

#[test]
fn what_is_no_question_is_refused() {
    for text in [
        "",
        "[]",
        "{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\"}",
        &CREATE.replace("io/v1\"", "io/v1beta1\""),
    ] {
        assert!(answer(text.as_bytes(), Scope::Namespace, &policy()).is_err(), "{text}");
    }
}
