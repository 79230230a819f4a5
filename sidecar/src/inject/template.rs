//! One pod template with its sidecar put in or taken out. It knows neither the kind of the workload nor where the object came from.

use serde_json::{Map, Value};

use super::annotations::{self, BUNDLE, CONFIG, INJECT, INJECTED, SERVICE_PORTS, STATUS, Wishes, is_label, texts};
use super::configuration::{self, Service};
use super::fault::Faults;
use super::ports::{self, Services};
use super::settings::{Bundle, Capture, InjectSettings};
use super::status::{self, Before};
use super::{Way, parts, probes, refuse, workload};

/// What Kubernetes gives all annotations of an object together, in bytes.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// The service account of pods that have none of their own.
const NO_ACCOUNT: &str = "default";

/// What became of a template.
pub(super) enum Outcome {
    /// It does not want a sidecar.
    OptedOut,
    /// It stays.
    Same,
    /// It becomes this.
    New(Value),
}

impl Outcome {
    fn of(old: &Value, new: Value) -> Outcome {
        if *old == new { Outcome::Same } else { Outcome::New(new) }
    }
}

/// Takes the sidecar out.
pub(super) fn uninject(template: &Value, place: &str, faults: &mut Faults) -> Outcome {
    status::remove(template, place, faults).map_or(Outcome::Same, |before| Outcome::of(template, before))
}

/// Puts the sidecar in, after taking out one that is there.
pub(super) fn inject(
    template: &Value,
    way: &Way<'_>,
    settings: &InjectSettings,
    services: &Services,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
) -> Outcome {
    let place = way.template.as_str();
    refuse::misshapen(template, place, faults);
    if !wants(template, place, faults) {
        return Outcome::OptedOut;
    }
    let base = if status::is_injected(template) {
        let Some(base) = status::remove(template, place, faults) else { return Outcome::Same };
        base
    } else {
        template.clone()
    };
    refuse::impossible(&base, place, faults);
    let metadata_place = joined(place, "metadata");
    let notes = texts(base.get("metadata"), "annotations");
    let wishes = Wishes::read(&notes, &metadata_place, settings, faults, warnings);
    let spec = base.get("spec").cloned().unwrap_or_default();
    refuse::ports(&spec, &wishes, place, faults);
    let Some(name) = service(&base, &spec, &wishes, workload::name(way.object)) else {
        faults.push(format!("{metadata_place}.annotations[heddle.io/service]"), "expected the name of the service: neither the labels `app.kubernetes.io/name` and `app` nor the workload have a name that fits");
        return Outcome::Same;
    };
    let selecting = services.selecting(way.object, &base);
    let of_services = match texts(template.get("metadata"), "annotations").get(SERVICE_PORTS) {
        // Whoever injects again, as the webhook does with pods of an injected file, may not have what stood beside it.
        Some(kept) if selecting.is_empty() => ports::recalled(kept),
        _ => ports::of_services(&spec, &wishes, &selecting, warnings),
    };
    warnings.extend(ports::called_otherwise(&name, &selecting));
    let known = ports::known(&spec, &wishes, &of_services, warnings);
    let (port, protocol, further) = (known.main, known.protocol, known.further);
    let service = Service { name, port, protocol, further, of_services: ports::kept(&of_services) };
    let (account, name) = (account(&spec), &service.name);
    if account != name {
        warnings.push(format!(
            "the control plane takes the service account `{account}` for the service `{account}`; let it be `{name}` by identity.kubernetes.services, or give the pod a service account `{name}`"
        ));
    }
    let (protocol, port) = (wishes.protocol, wishes.port);
    if protocol.is_some() && service.port.is_none() && port.is_none() {
        warnings.push("heddle.io/protocol has no effect, as no container has a port; say heddle.io/port".to_owned());
    }
    match assembled(base, &service, &wishes, settings, faults, warnings, place) {
        // What was made of the same is left as it stands, with what the API server or others have added to our parts since.
        Some(new) if status::text(&new) == status::text(template) => Outcome::Same,
        Some(new) => Outcome::of(template, new),
        None => Outcome::Same,
    }
}

fn joined(place: &str, rest: &str) -> String {
    if place.is_empty() { rest.to_owned() } else { format!("{place}.{rest}") }
}

/// Label first, then annotation, then yes: a label is what the API server selects by, so that it decides before anybody reads annotations.
fn wants(template: &Value, place: &str, faults: &mut Faults) -> bool {
    for map in ["labels", "annotations"] {
        let Some(word) = texts(template.get("metadata"), map).get(INJECT).copied() else { continue };
        return match annotations::wanted(word) {
            Ok(wanted) => wanted,
            Err(message) => {
                faults.push(joined(place, &format!("metadata.{map}[{INJECT}]")), message);
                true
            }
        };
    }
    true
}

/// The service account of a pod, by which the control plane knows it.
fn account(spec: &Value) -> &str {
    spec.get("serviceAccountName").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or(NO_ACCOUNT)
}

/// The name of the service that a template is an instance of; `None` when nothing names it.
fn service(template: &Value, spec: &Value, wishes: &Wishes, workload: Option<String>) -> Option<String> {
    let labels = texts(template.get("metadata"), "labels");
    let label = |name: &str| labels.get(name).map(|label| (*label).to_owned());
    let account = Some(account(spec)).filter(|account| *account != NO_ACCOUNT).map(str::to_owned);
    let candidates = [wishes.service.clone(), account, label("app.kubernetes.io/name"), label("app"), workload];
    candidates.into_iter().flatten().find(|name| is_label(name))
}

/// The template with everything that belongs to a sidecar.
fn assembled(
    mut template: Value,
    service: &Service,
    wishes: &Wishes,
    settings: &InjectSettings,
    faults: &mut Faults,
    warnings: &mut Vec<String>,
    place: &str,
) -> Option<Value> {
    let mut before = Before::default();
    let spec = template.get_mut("spec")?;
    let mut checks = Vec::new();
    if wishes.capture != Capture::Off {
        probes::warn_of_hooks(spec, warnings);
        if wishes.rewrite_probes {
            let rewritten = probes::rewrite(spec, &joined(place, "spec."), faults);
            (checks, before.probes) = (rewritten.checks, rewritten.originals);
        }
    }
    let spec = spec.as_object_mut()?;
    let mut first = Vec::new();
    first.extend(configuration::capture(wishes, service).map(|arguments| parts::capture(&arguments, wishes, settings)));
    first.push(parts::sidecar(wishes, settings));
    if let Value::Array(containers) = before.child(spec, "initContainers", Value::Array(Vec::new())) {
        containers.splice(0..0, first);
    }
    if let Value::Array(volumes) = before.child(spec, "volumes", Value::Array(Vec::new())) {
        volumes.extend(parts::volumes(settings));
    }
    let whole = template.as_object_mut()?;
    let metadata = before.child(whole, "metadata", Value::Object(Map::new())).as_object_mut()?;
    before.child(metadata, "labels", Value::Object(Map::new())).as_object_mut()?.insert(INJECTED.to_owned(), "true".into());
    let notes = before.child(metadata, "annotations", Value::Object(Map::new())).as_object_mut()?;
    notes.insert(CONFIG.to_owned(), configuration::sidecar(service, wishes, settings, &checks).into());
    if !service.of_services.is_empty() {
        notes.insert(SERVICE_PORTS.to_owned(), service.of_services.as_str().into());
    }
    if let Bundle::Inline(pem) = &settings.bundle {
        notes.insert(BUNDLE.to_owned(), pem.as_str().into());
    }
    let text = before.to_text(&template);
    let notes = template.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
    notes.insert(STATUS.to_owned(), text.into());
    let size: usize = notes.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MOST_ANNOTATION_BYTES {
        let message = format!(
            "expected at most {MOST_ANNOTATION_BYTES} bytes of annotations, as Kubernetes takes, found {size}; are there so many probes, or roots?"
        );
        faults.push(joined(place, "metadata.annotations"), message);
    }
    Some(template)
}
