//! Questions as API servers sent them, word for word (spaces and line ends apart), and what is answered. `integration/kubernetes/record.py` has written
//! them down: with kube-apiserver 1.36.2 (as MicroShift carries it, hence its `openshift-service-ca.crt`) and 1.20.2 (Debian's source package), etcd 3.4.

use std::collections::BTreeMap;

use base64::Engine;
use serde_json::{Value, json};

use super::super::review::{Answered, Policy, Scope, Verdict, answer};
use crate::inject::{InjectSettings, is_injected};

const CREATE: &str = include_str!("reviews/v1.36/create.json");
/// The same pod when the API server had put defaults into what it was answered, and an account's token into all containers.
const AGAIN: &str = include_str!("reviews/v1.36/again.json");
/// A pod with its sidecar to which another webhook added a container.
const REINVOKED: &str = include_str!("reviews/v1.36/reinvoked.json");
/// All that were written down, where they were asked, and what they come to.
const RECORDED: [(&str, Scope, Verdict); 13] = [
    (CREATE, Scope::Namespace, Verdict::Injected),
    (include_str!("reviews/v1.36/dry-run.json"), Scope::Namespace, Verdict::Injected),
    (include_str!("reviews/v1.36/opts-out.json"), Scope::Namespace, Verdict::Passed),
    (include_str!("reviews/v1.36/asks.json"), Scope::Asked, Verdict::Injected),
    (include_str!("reviews/v1.36/host-network.json"), Scope::Namespace, Verdict::Warned),
    (include_str!("reviews/v1.36/update.json"), Scope::Namespace, Verdict::Passed),
    (AGAIN, Scope::Namespace, Verdict::Injected),
    (REINVOKED, Scope::Namespace, Verdict::Injected),
    (include_str!("reviews/v1.20/create.json"), Scope::Namespace, Verdict::Injected),
    (include_str!("reviews/v1.20/dry-run.json"), Scope::Namespace, Verdict::Injected),
    (include_str!("reviews/v1.20/host-network.json"), Scope::Namespace, Verdict::Warned),
    (include_str!("reviews/v1.20/system-namespace.json"), Scope::Asked, Verdict::Passed),
    (include_str!("reviews/v1.20/update.json"), Scope::Namespace, Verdict::Passed),
];

fn policy() -> Policy {
    Policy { settings: InjectSettings::default(), strict: false, exclude_namespaces: vec!["kube-system".into()], too_old: None }
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

/// Whatever says nothing: `null`, and fields that API servers of one release send empty and those of another leave out.
fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, without_nothing(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nothing).collect(),
        other => other,
    }
}

#[test]
fn every_question_that_was_written_down_is_answered_and_what_comes_of_it_is_a_pod_to_the_api() {
    for (text, scope, verdict) in RECORDED {
        let (answered, response) = ask(text, scope);
        let pod = &answered.pod;
        assert_eq!((answered.verdict, &response["allowed"]), (verdict, &json!(true)), "{pod}");
        let request: Value = serde_json::from_str(text).unwrap();
        assert_eq!(answered.dry_run, request["request"]["dryRun"] == true, "{pod}");
        assert_eq!(response["patch"].is_string(), verdict == Verdict::Injected, "{pod}");
        if verdict == Verdict::Injected {
            let patched = without_nothing(patched(text, &response));
            assert!(is_injected(&patched), "{pod}");
            let typed: k8s_openapi::api::core::v1::Pod = serde_json::from_value(patched.clone()).unwrap();
            assert_eq!(without_nothing(serde_json::to_value(&typed).unwrap()), patched, "{pod}");
        }
    }
}

/// What an API server adds to what we answered: fields that we left out, with what it gave them when these questions were written down.
fn add_defaults(ours: &mut Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in theirs {
                add_defaults(ours.entry(key.clone()).or_insert_with(|| value.clone()), value);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            let key = |value: &Value| ["mountPath", "name", "path"].iter().find_map(|key| Some(value.get(key)?.to_string()));
            let known: BTreeMap<_, _> =
                theirs.iter().enumerate().map(|(at, value)| (key(value).unwrap_or(at.to_string()), value)).collect();
            for (at, one) in ours.iter_mut().enumerate() {
                if let Some(value) = known.get(&key(one).unwrap_or(at.to_string())) {
                    add_defaults(one, value);
                }
            }
            // The API's token is mounted behind what we mount.
            let missing =
                theirs.iter().filter(|one| one.get("mountPath").is_some() && !ours.iter().any(|have| key(have) == key(one)));
            let missing: Vec<Value> = missing.cloned().collect();
            ours.extend(missing);
        }
        _ => {}
    }
}

#[test]
fn asked_again_it_has_nothing_to_add() {
    let (_, response) = ask(CREATE, Scope::Namespace);
    let mut pod = patched(CREATE, &response);
    let theirs: Value = serde_json::from_str(AGAIN).unwrap();
    for list in ["initContainers", "containers"] {
        let place = format!("/request/object/spec/{list}");
        add_defaults(&mut pod["spec"][list], theirs.pointer(&place).unwrap());
    }
    let sidecar = pod["spec"]["initContainers"][1].clone();
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!((&sidecar["imagePullPolicy"], &sidecar["volumeMounts"][2]["mountPath"]), (&json!("IfNotPresent"), &json!(token)));
    assert_eq!(sidecar["startupProbe"]["successThreshold"], 1);
    let again = changed(CREATE, |object| *object = pod);
    let (answered, response) = ask(&again, Scope::Namespace);
    assert_eq!(answered.verdict, Verdict::Unchanged);
    assert!(response.get("patch").is_none());
}

#[test]
fn a_container_that_another_webhook_adds_stays_and_the_sidecar_is_still_one() {
    let (_, response) = ask(REINVOKED, Scope::Namespace);
    let pod = patched(REINVOKED, &response);
    let names = |list: &str| -> Vec<String> {
        pod["spec"][list].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (names("initContainers").join(" "), names("containers").join(" ")),
        ("heddle-capture heddle".into(), "web logger".into())
    );
    let (answered, _) = ask(&changed(REINVOKED, |object| *object = pod), Scope::Namespace);
    assert_eq!(answered.verdict, Verdict::Unchanged);
}

#[test]
fn an_api_server_that_would_refuse_the_sidecar_is_not_given_one() {
    let old = Policy { too_old: Some("v1.20.2".into()), ..policy() };
    let asked = |text: &str, policy: &Policy| answer(text.as_bytes(), Scope::Namespace, policy).unwrap();
    for (text, _, verdict) in RECORDED.into_iter().filter(|(_, scope, _)| *scope == Scope::Namespace) {
        let expected = if verdict == Verdict::Injected { Verdict::Warned } else { verdict };
        assert_eq!(asked(text, &old).verdict, expected);
    }
    let denied = asked(CREATE, &Policy { strict: true, ..old });
    let told = serde_json::to_value(&denied.review).unwrap()["response"]["status"]["message"].to_string();
    assert!(
        denied.verdict == Verdict::Denied && told.contains("expected Kubernetes 1.29") && told.contains("found v1.20.2"),
        "{told}"
    );
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
