//! The annotations by which a pod says how it wants to be injected, read and checked all at once. It does not know what is made of them.

use std::collections::BTreeMap;
use std::str::FromStr;

use heddle_node::config::suggest;
use ipnet::IpNet;
use serde_json::Value;

use super::fault::Faults;
use super::settings::{Bundle, Capture, InjectSettings, Resources, milli};

/// What all annotations and labels of ours start with.
pub const PREFIX: &str = "heddle.io/";
/// `true` or `false`: whether a pod is injected. As a label of a pod or namespace it does the same.
pub const INJECT: &str = "heddle.io/inject";
/// What was injected, and how to take it out again.
pub const STATUS: &str = "heddle.io/status";
/// The sidecar's configuration.
pub const CONFIG: &str = "heddle.io/config";
/// The roots of the trust domain, PEM.
pub const BUNDLE: &str = "heddle.io/bundle";
/// The ports that Services of the same file lead to the pod, for injections that do not see them.
pub const SERVICE_PORTS: &str = "heddle.io/service-ports";
/// The label of pods that have a sidecar.
pub const INJECTED: &str = "heddle.io/injected";

/// What we write ourselves.
pub const OWN: [&str; 4] = [STATUS, CONFIG, BUNDLE, SERVICE_PORTS];
/// What users may write, in the order of the documentation.
const KNOWN: [&str; 21] = [
    INJECT,
    "heddle.io/service",
    "heddle.io/protocol",
    "heddle.io/port",
    "heddle.io/ports",
    "heddle.io/bind",
    "heddle.io/mode",
    "heddle.io/outbound",
    "heddle.io/capture",
    "heddle.io/exclude-inbound-ports",
    "heddle.io/exclude-outbound-ports",
    "heddle.io/exclude-outbound-cidrs",
    "heddle.io/dns-cluster-domain",
    "heddle.io/probes",
    "heddle.io/image",
    "heddle.io/cpu-request",
    "heddle.io/cpu-limit",
    "heddle.io/memory-request",
    "heddle.io/memory-limit",
    "heddle.io/log-level",
    "heddle.io/trust-domain",
];
/// The longest list in an annotation.
const MOST_ITEMS: usize = 64;
/// The longest name of DNS, as text.
const MOST_NAME_BYTES: usize = 253;
/// The longest image name that registries take, generously.
const MOST_IMAGE_BYTES: usize = 512;

/// How a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.
    Http,
    /// Cleartext HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// Found out per connection.
    Auto,
}

/// At which of a pod's addresses an application listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bind {
    /// At 127.0.0.1, as all that listen at any address do, too.
    #[default]
    Loopback,
    /// At the pod's own address alone.
    Pod,
}

/// Who may be let in, as the sidecar's configuration says it.
const MODES: [&str; 3] = ["strict", "permissive", "disable"];

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("http", Protocol::Http),
    ("http2", Protocol::Http2),
    ("grpc", Protocol::Grpc),
    ("tcp", Protocol::Tcp),
    ("auto", Protocol::Auto),
];

impl Protocol {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        PROTOCOLS.iter().find(|(_, protocol)| *protocol == self).map_or("auto", |(name, _)| name)
    }

    /// From how it is written.
    #[must_use]
    pub fn parse(text: &str) -> Option<Protocol> {
        PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol)
    }

    /// What the name of a port promises: `http`, `grpc-web`, `tcp-db`.
    #[must_use]
    pub fn of_port_name(name: &str) -> Protocol {
        let first = name.split('-').next().unwrap_or_default();
        PROTOCOLS.iter().find(|(name, _)| *name == first).map_or(Protocol::Auto, |(_, protocol)| *protocol)
    }
}

/// A service that the application reaches at a port of loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// `api`, or `api.shop` for one of another namespace.
    pub service: String,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Outbound {
    /// As the configuration has it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let service = match self.service.split_once('.') {
            Some((service, namespace)) => format!("{namespace}/{service}"),
            None => self.service.clone(),
        };
        serde_json::json!({ "service": service, "listen": format!("127.0.0.1:{}", self.port) })
    }
}

/// `api:9001` or `db.shop:9002`.
#[must_use]
pub fn outbound_of(item: &str) -> Option<Outbound> {
    let (service, number) = item.rsplit_once(':')?;
    let labels = service.split('.').all(is_label) && service.split('.').count() <= 2;
    labels.then_some(Outbound { service: service.to_owned(), port: port(number)? })
}

/// What a pod's annotations say, with the defaults of the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Wishes {
    /// `heddle.io/service`.
    pub service: Option<String>,
    /// `heddle.io/protocol`.
    pub protocol: Option<Protocol>,
    /// `heddle.io/port`.
    pub port: Option<u16>,
    /// `heddle.io/ports`: ports by which others call, the application's port that each leads to, and what is spoken there where that is said.
    pub ports: Vec<(u16, u16, Option<Protocol>)>,
    /// `heddle.io/bind`: the address at which the application listens.
    pub bind: Bind,
    /// `heddle.io/mode`: who is let in; the control plane decides where it is not said.
    pub mode: Option<&'static str>,
    /// `heddle.io/outbound`.
    pub outbound: Vec<Outbound>,
    /// `heddle.io/capture`.
    pub capture: Capture,
    /// `heddle.io/exclude-inbound-ports`, and those of the settings.
    pub exclude_inbound_ports: Vec<u16>,
    /// `heddle.io/exclude-outbound-ports`, and those of the settings.
    pub exclude_outbound_ports: Vec<u16>,
    /// `heddle.io/exclude-outbound-cidrs`, and those of the settings.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// `heddle.io/dns-cluster-domain`: what names of Kubernetes end in that lead to members, or `off`.
    pub dns_cluster_domain: Option<String>,
    /// `heddle.io/probes`: whether the application's probes are answered by way of the sidecar.
    pub rewrite_probes: bool,
    /// `heddle.io/image`.
    pub image: String,
    /// `heddle.io/cpu-request` and its three siblings.
    pub resources: Resources,
    /// `heddle.io/log-level`.
    pub log_level: String,
    /// `heddle.io/trust-domain`.
    pub trust_domain: Option<String>,
}

/// Whether a pod wants to be injected, by its own word.
///
/// # Errors
/// Any word but `true` and `false`.
pub fn wanted(word: &str) -> Result<bool, String> {
    match word {
        "true" | "enabled" => Ok(true),
        "false" | "disabled" => Ok(false),
        other => Err(format!("expected `true` or `false`, found `{other}`")),
    }
}

/// Texts of a map of metadata, `annotations` or `labels`.
#[must_use]
pub fn texts<'v>(metadata: Option<&'v Value>, map: &str) -> BTreeMap<&'v str, &'v str> {
    let found = metadata.and_then(|metadata| metadata.get(map)).and_then(Value::as_object);
    found.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

struct Reader<'a> {
    annotations: &'a BTreeMap<&'a str, &'a str>,
    place: &'a str,
    faults: &'a mut Faults,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.annotations.get(format!("{PREFIX}{name}").as_str()).copied()
    }

    fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(format!("{}.annotations[{PREFIX}{name}]", self.place), message);
    }

    fn parsed<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?.trim().to_owned();
        let parsed = parse(&text);
        if parsed.is_none() {
            self.fault(name, format!("expected {expected}, found `{text}`"));
        }
        parsed
    }

    fn list<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(text) = self.text(name).map(str::to_owned) else { return Vec::new() };
        let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
        if items.len() > MOST_ITEMS {
            self.fault(name, format!("expected at most {MOST_ITEMS} items, found {}", items.len()));
            return Vec::new();
        }
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            match parse(item) {
                Some(parsed) => out.push(parsed),
                None => self.fault(name, format!("expected {expected}, separated by commas, found `{item}`")),
            }
        }
        out
    }

    fn quantity(&mut self, name: &str, example: &str, default: Option<&str>) -> Option<String> {
        let expected = format!("a quantity such as {example}");
        self.parsed(name, &expected, |text| milli(text).map(|_| text.to_owned())).or(default.map(str::to_owned))
    }
}

impl Wishes {
    /// Reads annotations. `place` is the path of the metadata that they belong to.
    pub fn read(
        annotations: &BTreeMap<&str, &str>,
        place: &str,
        settings: &InjectSettings,
        faults: &mut Faults,
        warnings: &mut Vec<String>,
    ) -> Wishes {
        unknown(annotations, warnings);
        let mut reader = Reader { annotations, place, faults };
        let (ports, cidr) = ("port numbers from 1 to 65535", "networks such as 10.0.0.0/8");
        let resources = resources(&mut reader, &settings.resources);
        let capture = reader.parsed(
            "capture",
            "`off` or `redirect` (`tproxy` needs a proxy with capabilities, which a sidecar beside an application does not get)",
            capture,
        );
        let rewrite = reader.parsed("probes", "`rewrite` or `keep`", |text| match text {
            "rewrite" => Some(true),
            "keep" => Some(false),
            _ => None,
        });
        let level = reader.parsed("log-level", "`error`, `warn`, `info`, `debug` or `trace`", |text| {
            matches!(text, "error" | "warn" | "info" | "debug" | "trace").then(|| text.to_owned())
        });
        let protocol = reader.parsed("protocol", "`http`, `http2`, `grpc`, `tcp` or `auto`", |text| {
            PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol)
        });
        Wishes {
            service: reader.parsed("service", "a DNS label of at most 63 characters (RFC 1123)", |text| {
                is_label(text).then(|| text.to_owned())
            }),
            protocol,
            port: reader.parsed("port", "a port number from 1 to 65535", port),
            ports: called_ports(&mut reader),
            bind: reader.parsed("bind", "`loopback` or `pod`", bind).unwrap_or_default(),
            mode: reader
                .parsed("mode", "`strict`, `permissive` or `disable`", |text| MODES.into_iter().find(|mode| *mode == text)),
            outbound: outbound(&mut reader),
            capture: capture.unwrap_or(settings.capture),
            exclude_inbound_ports: joined(&settings.exclude_inbound_ports, reader.list("exclude-inbound-ports", ports, port)),
            exclude_outbound_ports: joined(&settings.exclude_outbound_ports, reader.list("exclude-outbound-ports", ports, port)),
            exclude_outbound_cidrs: joined(
                &settings.exclude_outbound_cidrs,
                reader.list("exclude-outbound-cidrs", cidr, network),
            ),
            dns_cluster_domain: reader.parsed("dns-cluster-domain", "`off` or a domain such as `cluster.local`", domain),
            rewrite_probes: rewrite.unwrap_or(true),
            image: reader.parsed("image", "the name of an image", image).unwrap_or_else(|| settings.image.clone()),
            resources,
            log_level: level.unwrap_or_else(|| settings.log_level.clone()),
            trust_domain: reader
                .parsed("trust-domain", "a trust domain: lower-case letters, digits, `.`, `-`, `_`", trust_domain)
                .or_else(|| settings.trust_domain.clone()),
        }
    }
}

/// Says whether settings hold what annotations may hold.
///
/// # Errors
/// What was expected and what was found.
pub fn check_settings(settings: &InjectSettings) -> Result<(), String> {
    let wrong = |what: &str, found: &str, expected: &str| Err(format!("{what}: expected {expected}, found `{found}`"));
    if image(&settings.image).is_none() {
        return wrong("image", &settings.image, "the name of an image");
    }
    if let Some(domain) = settings.trust_domain.as_ref().filter(|domain| trust_domain(domain).is_none()) {
        return wrong("trust domain", domain, "lower-case letters, digits, `.`, `-`, `_`");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte);
    let rest = settings.control_plane.strip_prefix("https://").or_else(|| settings.control_plane.strip_prefix("http://"));
    if rest.is_none_or(|rest| rest.is_empty() || !rest.bytes().all(plain)) {
        return wrong("control plane", &settings.control_plane, "a URL such as https://heddle.heddle-system.svc:18000");
    }
    if let Bundle::ConfigMap(name) = &settings.bundle
        && !name.split('.').all(is_label)
    {
        return wrong("bundle config map", name, "the name of a config map");
    }
    for (what, quantity) in [
        ("cpu request", Some(&settings.resources.cpu_request)),
        ("cpu limit", settings.resources.cpu_limit.as_ref()),
        ("memory request", Some(&settings.resources.memory_request)),
        ("memory limit", settings.resources.memory_limit.as_ref()),
    ] {
        if let Some(quantity) = quantity.filter(|quantity| milli(quantity).is_none()) {
            return wrong(what, quantity, "a quantity such as 100m or 64Mi");
        }
    }
    Ok(())
}

/// Annotations with our prefix that mean nothing are slips of the finger more often than not.
fn unknown(annotations: &BTreeMap<&str, &str>, warnings: &mut Vec<String>) {
    for name in annotations.keys().filter(|name| name.starts_with(PREFIX)) {
        if KNOWN.contains(name) || OWN.contains(name) {
            continue;
        }
        let hint = suggest(name, KNOWN).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        warnings.push(format!("the annotation `{name}` means nothing{hint}"));
    }
}

fn resources(reader: &mut Reader<'_>, default: &Resources) -> Resources {
    let cpu_limit = reader.quantity("cpu-limit", "500m", default.cpu_limit.as_deref());
    let memory_limit = reader.quantity("memory-limit", "128Mi", default.memory_limit.as_deref());
    let cpu_request = reader.quantity("cpu-request", "100m", Some(&default.cpu_request)).unwrap_or_default();
    let memory_request = reader.quantity("memory-request", "64Mi", Some(&default.memory_request)).unwrap_or_default();
    for (name, request, limit) in [("cpu", &cpu_request, &cpu_limit), ("memory", &memory_request, &memory_limit)] {
        let Some(limit) = limit.as_deref() else { continue };
        if milli(request) > milli(limit) {
            reader.fault(
                &format!("{name}-request"),
                format!("expected at most the limit, found {request} of {limit}; change `{PREFIX}{name}-limit` as well"),
            );
        }
    }
    Resources { cpu_request, cpu_limit, memory_request, memory_limit }
}

fn outbound(reader: &mut Reader<'_>) -> Vec<Outbound> {
    let listed = reader.list("outbound", "services with a local port such as api:9001 or db.shop:9002", outbound_of);
    for (i, one) in listed.iter().enumerate() {
        if listed[..i].iter().any(|other| other.port == one.port) {
            reader.fault("outbound", format!("expected each port once, found {} twice", one.port));
        }
    }
    listed
}

/// `81=9090` or `81=9090/grpc`: who calls 81 reaches 9090 of the application.
pub(super) fn led_of(item: &str) -> Option<(u16, u16, Option<Protocol>)> {
    let (called, rest) = item.split_once('=')?;
    let (application, protocol) = match rest.split_once('/') {
        Some((application, protocol)) => (application, Some(Protocol::parse(protocol)?)),
        None => (rest, None),
    };
    Some((port(called)?, port(application)?, protocol))
}

fn called_ports(reader: &mut Reader<'_>) -> Vec<(u16, u16, Option<Protocol>)> {
    let listed = reader.list("ports", "ports with those of the application such as 81=9090 or 81=9090/grpc", led_of);
    for (i, (called, ..)) in listed.iter().enumerate() {
        if listed[..i].iter().any(|(other, ..)| other == called) {
            reader.fault("ports", format!("expected each port once, found {called} twice"));
        }
    }
    listed
}

fn joined<T: Clone + PartialEq>(first: &[T], second: Vec<T>) -> Vec<T> {
    let mut out = first.to_vec();
    for item in second {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// A name of DNS (RFC 1035 section 2.3.4), of which `off` is one, too.
fn domain(text: &str) -> Option<String> {
    (text.len() <= MOST_NAME_BYTES && text.split('.').all(is_label)).then(|| text.to_owned())
}

fn capture(text: &str) -> Option<Capture> {
    match text {
        "off" => Some(Capture::Off),
        "redirect" => Some(Capture::Redirect),
        _ => None,
    }
}

fn bind(text: &str) -> Option<Bind> {
    match text {
        "loopback" => Some(Bind::Loopback),
        "pod" => Some(Bind::Pod),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u16::from_str(text).ok())?.filter(|port| *port > 0)
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<std::net::IpAddr>().ok()?)))
}

fn image(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= MOST_IMAGE_BYTES;
    (fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./_-:@".contains(&byte))).then(|| text.to_owned())
}

/// The characters that SPIFFE-ID 2.1 gives a trust domain.
pub(super) fn trust_domain(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= 255;
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte));
    (fits && plain).then(|| text.to_owned())
}

/// RFC 1123 section 2.1: a label of a host name.
#[must_use]
pub fn is_label(text: &str) -> bool {
    let inner = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (1..=63).contains(&text.len()) && inner && !text.starts_with('-') && !text.ends_with('-')
}
