//! An AdmissionReview and its answer (admission.k8s.io/v1), as a function of the two. It knows neither sockets nor the time.

use base64::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::inject::{Change, Faults, INJECT, InjectSettings, Injected, Refusal, inject, texts, title, wanted};

/// Longest warning: what API servers show of one.
const MOST_WARNING_CHARS: usize = 256;
/// Most warnings of an answer.
const MOST_WARNINGS: usize = 16;

/// A question of the API server, or our answer.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<Response>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    kind: GroupVersionKind,
    operation: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    patch_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Whom the API server asks about; each has a path of its own, since a question does not carry the labels of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Pods of a namespace that opted in: injected unless they opt out.
    Namespace,
    /// Pods elsewhere: injected when they ask for it.
    Asked,
}

/// How questions are answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What is injected.
    pub settings: InjectSettings,
    /// Whether a pod that cannot be injected is refused, instead of running without a sidecar.
    pub strict: bool,
    /// Namespaces whose pods are never injected.
    pub exclude_namespaces: Vec<String>,
    /// The release of the API server, when it is known to be one that would refuse every sidecar.
    pub too_old: Option<String>,
}

/// What became of a question, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The pod gets a sidecar.
    Injected,
    /// The pod has the right one.
    Unchanged,
    /// It is none of ours, or wants none.
    Passed,
    /// It cannot be injected, and runs without.
    Warned,
    /// It cannot be injected, and does not run.
    Denied,
}

/// What the answer is, and what it amounts to.
#[derive(Debug)]
pub struct Answered {
    /// To be sent.
    pub review: Review,
    /// For counters.
    pub verdict: Verdict,
    /// Whether nothing comes of it.
    pub dry_run: bool,
    /// `shop/web-`, for the log.
    pub pod: String,
}

/// Answers a question.
///
/// # Errors
/// The body is no question of `admission.k8s.io/v1`.
pub fn answer(body: &[u8], scope: Scope, policy: &Policy) -> Result<Answered, String> {
    let review: Review = serde_json::from_slice(body).map_err(|error| format!("expected an AdmissionReview: {error}"))?;
    if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
        let found = format!("{} of {}", review.kind, review.api_version);
        return Err(format!(
            "expected an AdmissionReview of admission.k8s.io/v1, found {found}; set admissionReviewVersions: [v1]"
        ));
    }
    let Some(request) = review.request else { return Err("expected a request in the AdmissionReview, found none".to_owned()) };
    let (verdict, response) = judge(&request, scope, policy);
    let of = |key: &str| request.object.pointer(key).and_then(Value::as_str);
    let name = of("/metadata/name").or(of("/metadata/generateName")).unwrap_or_default();
    Ok(Answered {
        verdict,
        dry_run: request.dry_run == Some(true),
        pod: format!("{}/{name}", request.namespace.as_deref().unwrap_or_default()),
        review: Review { api_version: review.api_version, kind: review.kind, request: None, response: Some(response) },
    })
}

fn judge(request: &Request, scope: Scope, policy: &Policy) -> (Verdict, Response) {
    let pass = |verdict| (verdict, allowed(request, Vec::new()));
    let kind = &request.kind;
    let is_pod = kind.group.is_empty()
        && kind.version == "v1"
        && kind.kind == "Pod"
        && request.sub_resource.as_deref().is_none_or(str::is_empty);
    // The containers of a pod cannot be changed once it exists.
    if !is_pod || request.operation != "CREATE" {
        return pass(Verdict::Passed);
    }
    if request.namespace.as_ref().is_some_and(|namespace| policy.exclude_namespaces.contains(namespace)) {
        return pass(Verdict::Passed);
    }
    if scope == Scope::Asked && !asks(&request.object) {
        return pass(Verdict::Passed);
    }
    let mut object = request.object.clone();
    // Questions name the kind beside the object; the object may do without.
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert("v1".into());
        fields.entry("kind").or_insert("Pod".into());
    }
    match inject(&object, &policy.settings).and_then(|injected| taken(injected, &object, policy)) {
        Ok(injected) => match injected.change {
            Change::Changed => {
                let mut response = allowed(request, injected.warnings);
                let patch = json_patch::diff(&object, &injected.object);
                let text = serde_json::to_string(&patch).unwrap_or_default();
                response.patch_type = Some("JSONPatch".to_owned());
                response.patch = Some(base64::engine::general_purpose::STANDARD.encode(text));
                (Verdict::Injected, response)
            }
            Change::Unchanged => (Verdict::Unchanged, allowed(request, injected.warnings)),
            Change::OptedOut | Change::NotAWorkload => pass(Verdict::Passed),
        },
        Err(refusal) if policy.strict => {
            let message = format!("heddle cannot inject a sidecar: {refusal}");
            let status = json!({ "code": 422, "reason": "Invalid", "message": message });
            (Verdict::Denied, Response { allowed: false, status: Some(status), ..allowed(request, Vec::new()) })
        }
        Err(refusal) => {
            let warnings = refusal.faults.iter().map(|fault| format!("runs without a sidecar: {fault}")).collect();
            (Verdict::Warned, allowed(request, warnings))
        }
    }
}

/// What was injected, when the API server is one that takes it. Otherwise it would refuse the pod with words that help nobody.
fn taken(injected: Injected, object: &Value, policy: &Policy) -> Result<Injected, Refusal> {
    let mut faults = Faults::of(title(object));
    if let (Change::Changed, Some(release)) = (injected.change, &policy.too_old) {
        let what = "the sidecar is an init container with restartPolicy: Always";
        faults.push("", format!("{what}; expected Kubernetes 1.29, or 1.28 with SidecarContainers, found {release}"));
    }
    faults.none().map(|()| injected)
}

/// Whether a pod says by itself that it wants a sidecar; a word that means nothing is judged by the injection.
fn asks(pod: &Value) -> bool {
    ["labels", "annotations"]
        .iter()
        .find_map(|map| texts(pod.get("metadata"), map).get(INJECT).copied())
        .is_some_and(|word| wanted(word) != Ok(false))
}

fn allowed(request: &Request, warnings: Vec<String>) -> Response {
    let short = |text: String| format!("heddle: {text}").chars().take(MOST_WARNING_CHARS).collect();
    let warnings = warnings.into_iter().take(MOST_WARNINGS).map(short).collect();
    Response { uid: request.uid.clone(), allowed: true, status: None, patch_type: None, patch: None, warnings }
}
