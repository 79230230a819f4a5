//! Putting a sidecar into workloads and taking it out again: pure functions of objects and settings. It knows neither files nor the API server.

mod annotations;
mod configuration;
mod documents;
mod fault;
pub mod generate;
mod parts;
mod ports;
mod probes;
mod refuse;
mod settings;
mod status;
mod template;
mod workload;

#[cfg(test)]
mod tests;

use serde_json::Value;

pub use annotations::{INJECT, INJECTED, STATUS, check_settings, is_label, texts, wanted};
pub use configuration::DATA;
pub use documents::{Task, Work, transform};
pub use fault::{Fault, Faults, Refusal};
pub use ports::Services;
pub use settings::{Bundle, Capture, InjectSettings, PROBE_PORT, Resources, SIDECAR_UID, TOKEN_AUDIENCE, milli};
pub use status::is_injected;
pub use workload::{Place, name, place, title};

use template::Outcome;

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It is no workload, or a list without one.
    NotAWorkload,
    /// It says that it does not want a sidecar.
    OptedOut,
    /// It is as it should be.
    Unchanged,
    /// It was changed.
    Changed,
}

/// An object after an injection or its reverse.
#[derive(Debug, Clone, PartialEq)]
pub struct Injected {
    /// The object.
    pub object: Value,
    /// What became of it.
    pub change: Change,
    /// What its author should know.
    pub warnings: Vec<String>,
}

/// Puts the sidecar into a workload, or into all workloads of a list. What has one already gets the present one; other objects stay as they are.
///
/// # Errors
/// All reasons why it cannot be done. Then nothing is changed.
pub fn inject(object: &Value, settings: &InjectSettings) -> Result<Injected, Refusal> {
    inject_among(object, settings, &Services::of([object]))
}

/// The same for one of several objects: where a Service among them leads to a pod, its ports are known by the numbers that the Service gives them.
///
/// # Errors
/// All reasons why it cannot be done. Then nothing is changed.
pub fn inject_among(object: &Value, settings: &InjectSettings, services: &Services) -> Result<Injected, Refusal> {
    each(object, &|template, way, faults, warnings| template::inject(template, way, settings, services, faults, warnings))
}

/// Takes the sidecar out: the object is what it was before, with what was changed since.
///
/// # Errors
/// What the injection noted in the object is damaged.
pub fn uninject(object: &Value) -> Result<Injected, Refusal> {
    each(object, &|template, way, faults, _| template::uninject(template, &way.template, faults))
}

/// Where a template stands.
struct Way<'v> {
    object: &'v Value,
    /// `spec.template`; empty for a pod.
    template: String,
}

type Step<'s> = dyn Fn(&Value, &Way<'_>, &mut Faults, &mut Vec<String>) -> Outcome + 's;

fn each(object: &Value, step: &Step<'_>) -> Result<Injected, Refusal> {
    match place(object) {
        Place::Nowhere => Ok(Injected { object: object.clone(), change: Change::NotAWorkload, warnings: Vec::new() }),
        Place::List => of_list(object, step),
        Place::Template(path) => of_workload(object, path, step),
    }
}

fn of_workload(object: &Value, path: &[&str], step: &Step<'_>) -> Result<Injected, Refusal> {
    let title = title(object);
    let (mut faults, mut warnings) = (Faults::of(&title), Vec::new());
    let Some(template) = workload::at(object, path).filter(|template| template.is_object()) else {
        faults.push(path.join("."), "expected the template of a pod, found none");
        faults.none()?;
        return Ok(Injected { object: object.clone(), change: Change::Unchanged, warnings });
    };
    if !path.is_empty() {
        warn_of_misplaced(object, &mut warnings);
    }
    let outcome = step(template, &Way { object, template: path.join(".") }, &mut faults, &mut warnings);
    faults.none()?;
    let warnings = warnings.into_iter().map(|warning| format!("{title}: {warning}")).collect();
    let mut object = object.clone();
    let change = match outcome {
        Outcome::OptedOut => Change::OptedOut,
        Outcome::Same => Change::Unchanged,
        Outcome::New(template) => {
            if let Some(place) = workload::at_mut(&mut object, path) {
                *place = template;
            }
            Change::Changed
        }
    };
    Ok(Injected { object, change, warnings })
}

/// Annotations of ours have to stand where the pod gets them from.
fn warn_of_misplaced(object: &Value, warnings: &mut Vec<String>) {
    for name in texts(object.get("metadata"), "annotations").keys().filter(|name| name.starts_with(annotations::PREFIX)) {
        warnings.push(format!(
            "the annotation `{name}` has no effect on the workload itself; it belongs into the metadata of its pod template"
        ));
    }
}

fn of_list(list: &Value, step: &Step<'_>) -> Result<Injected, Refusal> {
    let mut out = Injected { object: list.clone(), change: Change::NotAWorkload, warnings: Vec::new() };
    let mut faults = Vec::new();
    let items = out.object.get_mut("items").and_then(Value::as_array_mut);
    for item in items.into_iter().flatten() {
        // A list in a list is none of ours: Kubernetes does not take it either, and this cannot go deep.
        if place(item) == Place::List {
            continue;
        }
        match each(item, step) {
            Ok(injected) => {
                out.change = out.change.max(injected.change);
                out.warnings.extend(injected.warnings);
                *item = injected.object;
            }
            Err(refusal) => faults.extend(refusal.faults),
        }
    }
    if faults.is_empty() { Ok(out) } else { Err(Refusal { faults }) }
}
