//! The ports of a pod as the mesh calls them: which is the one that is meant where nobody names any, which are others, and where the application listens for
//! each. It does not know how that is written down for the sidecar.

mod services;

use serde_json::Value;

pub use services::Services;
use services::{Service, Target};

use super::annotations::{Protocol, Wishes, led_of};

/// The most further ports that a sidecar takes.
const MOST_FURTHER: usize = 64;
/// The most ports of Services that are kept: all that there are numbers for would fill the annotations of a pod.
const MOST_KEPT: usize = 1_024;

/// A port that leads to one of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Further {
    /// By which it is called.
    pub port: u16,
    /// Where the application listens for it.
    pub application: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// The ports of a pod.
pub(super) struct Known {
    /// Where the application listens where nobody names a port; none for workloads that only call others.
    pub main: Option<u16>,
    /// What it speaks there.
    pub protocol: Protocol,
    /// Its further ports.
    pub further: Vec<Further>,
}

/// A TCP port that a container declares.
struct Declared<'v> {
    number: u16,
    name: &'v str,
}

impl Declared<'_> {
    fn protocol(&self) -> Protocol {
        Protocol::of_port_name(self.name)
    }
}

/// The ports of a pod: as its annotations say, the Services that lead to it, and its containers, in this order.
pub(super) fn known(spec: &Value, wishes: &Wishes, of_services: &[Further], warnings: &mut Vec<String>) -> Known {
    let declared = declared(spec);
    let of_wish = |(port, application, protocol): &(u16, u16, Option<Protocol>)| {
        let protocol = protocol.or_else(|| spoken(&declared, *application)).unwrap_or(Protocol::Auto);
        Further { port: *port, application: *application, protocol }
    };
    let mut led: Vec<Further> = wishes.ports.iter().map(of_wish).collect();
    for one in of_services {
        if led.iter().all(|other| other.port != one.port) {
            led.push(*one);
        }
    }
    let chosen = match wishes.port {
        Some(wish) => Some((wish, spoken(&declared, wish))),
        None => {
            let says = declared.iter().find(|port| port.protocol() != Protocol::Auto);
            let of_container = says.or(declared.first()).map(|port| (port.number, Some(port.protocol())));
            of_container.or(led.first().map(|first| (first.application, Some(first.protocol))))
        }
    };
    let main = chosen.map(|(number, _)| number);
    let protocol = wishes.protocol.or(chosen.and_then(|(_, protocol)| protocol)).unwrap_or(Protocol::Auto);
    Known { main, protocol, further: further(&declared, &led, main, wishes, warnings) }
}

fn declared(spec: &Value) -> Vec<Declared<'_>> {
    let containers = spec.get("containers").and_then(Value::as_array).into_iter().flatten();
    let ports = containers.flat_map(|container| container.get("ports").and_then(Value::as_array).into_iter().flatten());
    ports
        .filter(|port| port.get("protocol").and_then(Value::as_str).is_none_or(|protocol| protocol == "TCP"))
        .filter_map(|port| {
            let number = u16::try_from(port.get("containerPort")?.as_u64()?).ok()?;
            Some(Declared { number, name: port.get("name").and_then(Value::as_str).unwrap_or_default() })
        })
        .collect()
}

/// What a container's name for a port says of it.
fn spoken(declared: &[Declared<'_>], application: u16) -> Option<Protocol> {
    declared.iter().find(|port| port.number == application).map(Declared::protocol)
}

/// Says so where applications call a service by the names of Services alone that the mesh does not know: what they send leaves the mesh.
pub(super) fn called_otherwise(name: &str, selecting: &[&Service]) -> Option<String> {
    let first = selecting.first().filter(|_| selecting.iter().all(|service| service.name != name))?;
    let (title, called) = (&first.title, &first.name);
    Some(format!(
        "{title} leads to these pods, which the mesh calls `{name}`: who calls `{called}` goes past the mesh; say heddle.io/service: {called}, or call `{name}`"
    ))
}

/// The ports that Services lead to the pod, each once.
pub(super) fn of_services(spec: &Value, wishes: &Wishes, services: &[&Service], warnings: &mut Vec<String>) -> Vec<Further> {
    let declared = declared(spec);
    let mut led: Vec<Further> = Vec::new();
    for service in services {
        for told in service.ports.iter().filter(|told| wishes.ports.iter().all(|(own, ..)| *own != told.port)) {
            let (title, port) = (&service.title, told.port);
            let Some(application) = application(&told.target, &declared, (title, port), warnings) else { continue };
            match led.iter().find(|other| other.port == port) {
                Some(other) if other.application != application => warnings.push(format!(
                    "{title} leads its port {port} to {application}, another Service leads it to {}, which counts in the mesh; say which is right by heddle.io/ports: \"{port}={application}\"",
                    other.application
                )),
                Some(_) => {}
                None => {
                    let said = Some(told.protocol).filter(|protocol| *protocol != Protocol::Auto);
                    let protocol = said.or_else(|| spoken(&declared, application)).unwrap_or(Protocol::Auto);
                    led.push(Further { port, application, protocol });
                }
            }
        }
    }
    led.truncate(MOST_KEPT);
    led
}

/// The same as an annotation keeps it, for injections that do not see the Services.
pub(super) fn kept(led: &[Further]) -> String {
    let text = |one: &Further| format!("{}={}/{}", one.port, one.application, one.protocol.name());
    led.iter().map(text).collect::<Vec<_>>().join(",")
}

/// What [`kept`] wrote; what it cannot have written says nothing.
pub(super) fn recalled(text: &str) -> Vec<Further> {
    let further = |item: &str| {
        let (port, application, protocol) = led_of(item)?;
        Some(Further { port, application, protocol: protocol? })
    };
    text.split(',').take(MOST_KEPT).filter_map(further).collect()
}

/// The application's port that a Service means.
fn application(target: &Target, declared: &[Declared<'_>], from: (&str, u16), warnings: &mut Vec<String>) -> Option<u16> {
    let (title, port) = from;
    match target {
        Target::Name(name) => {
            let found = declared.iter().find(|port| port.name == name).map(|port| port.number);
            if found.is_none() {
                warnings.push(format!(
                    "{title} leads its port {port} to the port `{name}`, which no container of the pod has: calls on {port} would reach another port of the application; name it in a container, or say heddle.io/ports: \"{port}=NUMBER\""
                ));
            }
            found
        }
        Target::Number(number) => {
            if !declared.is_empty() && !declared.iter().any(|port| port.number == *number) {
                warnings.push(format!(
                    "{title} leads its port {port} to {number}, which no container of the pod declares; calls on {port} are led there: does the application listen there?"
                ));
            }
            Some(*number)
        }
    }
}

/// The further ports, each once.
fn further(
    declared: &[Declared<'_>],
    led: &[Further],
    main: Option<u16>,
    wishes: &Wishes,
    warnings: &mut Vec<String>,
) -> Vec<Further> {
    let spared = |application: u16| wishes.exclude_inbound_ports.contains(&application);
    let says = |port: &&Declared<'_>| port.protocol() != Protocol::Auto && !spared(port.number);
    let mut further: Vec<Further> = Vec::new();
    for one in led.iter().filter(|one| !spared(one.application)) {
        let (is_called_so, is_main) = (main == Some(one.port), main == Some(one.application));
        if is_called_so && !is_main {
            warnings.push(format!(
                "port {} leads to {} of the application, but in the mesh {} is the port that is meant where nobody names one, and leads to itself; say heddle.io/port: \"{}\", the others are found by their numbers",
                one.port, one.application, one.port, one.application
            ));
        }
        // What leads to the main port is found without a word, unless a container has another port of this number.
        let is_needed = !is_main || declared.iter().filter(says).any(|port| port.number == one.port);
        if !is_called_so && is_needed {
            further.push(*one);
        }
    }
    for port in declared.iter().filter(says) {
        if main != Some(port.number) && further.iter().all(|other| other.port != port.number) {
            further.push(Further { port: port.number, application: port.number, protocol: port.protocol() });
        }
    }
    if further.len() > MOST_FURTHER {
        warnings.push(format!("of {} further ports the first {MOST_FURTHER} are taken", further.len()));
        further.truncate(MOST_FURTHER);
    }
    further
}
