//! From Consul's intentions to authorization policies: for each service that is called, which intention counts for whom, said in a way in which the order of
//! policies does not matter. It asks nobody.
//!
//! Which one counts: that of the exact caller to the exact service, of any caller to it, of the exact caller to any service, of any to any
//! (<https://developer.hashicorp.com/consul/docs/connect/intentions#precedence-and-match-order>); where none does, the default of the settings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use heddle_node::consul::{Intention, IntentionAction};
use serde_json::{Map, Value, json};

use super::Sources;
use super::permissions::{Part, Permitted};
use crate::model::{Key, ResourceKind, ServiceId};
use crate::settings::IntentionsSettings;

/// Whoever calls, and whatever is called.
const ANY: &str = "*";
/// Callers in one list of a policy.
const MOST_LISTED: usize = 1_000;
/// Consul's namespace of what has none.
const DEFAULT_NAMESPACE: &str = "default";

/// What an intention says of a caller.
#[derive(Debug, Clone, PartialEq)]
enum Decision {
    Allow,
    Deny,
    /// Request by request.
    Ask(Permitted),
}

/// A service by its full name, or any.
type Name = Option<ServiceId>;
/// What is said to one destination, by caller.
type Rules = BTreeMap<Name, Decision>;

/// The policies that intentions stand for, by the service that is called.
pub(super) fn read(settings: &IntentionsSettings, provider: &str, intentions: &[Intention]) -> Sources {
    let mut rules: BTreeMap<Name, Rules> = BTreeMap::from([(None, Rules::new())]);
    let mut faults: BTreeMap<Name, Vec<String>> = BTreeMap::new();
    for one in intentions.iter().filter(|one| one.source_peer.is_empty()) {
        let (from, to) = (&one.source_name, &one.destination_name);
        let destination = match name(to, &one.destination_namespace, settings) {
            Ok(destination) => destination,
            // Of no service of this mesh, so it holds nothing up.
            Err(Odd::Name) => continue,
            Err(Odd::Namespaces) => {
                let why = format!(
                    "intention from {from} to {to} in Consul: services of whole other namespaces have no form in policies"
                );
                faults.entry(None).or_default().push(why);
                continue;
            }
        };
        let told = |why: String| format!("intention from {from} to {to} in Consul: {why}");
        let source = match name(from, &one.source_namespace, settings) {
            Ok(source) => source,
            // Nobody can prove to be this caller, whatever is said of it.
            Err(Odd::Name) => continue,
            Err(Odd::Namespaces) => {
                faults
                    .entry(destination)
                    .or_default()
                    .push(told("callers of whole namespaces have no form in policies".to_owned()));
                continue;
            }
        };
        match decision(one) {
            Ok(Decision::Ask(_)) if destination.is_none() => {
                faults.entry(None).or_default().push(told("permissions need a service by name".to_owned()));
            }
            Ok(decision) => drop(rules.entry(destination).or_default().insert(source, decision)),
            Err(why) => faults.entry(destination).or_default().push(told(why)),
        }
    }
    // What is said to any service counts for each.
    let common = faults.remove(&None).unwrap_or_default();
    let whole = Whole::new(settings, provider, rules.remove(&None).unwrap_or_default());
    let mut sources = Sources::new();
    let mut put = |name: &str, own: Vec<String>, policies: Result<Vec<(Key, Value)>, String>| {
        let faults: Vec<String> = common.iter().cloned().chain(own).collect();
        let held = if faults.is_empty() { policies.map_err(|why| vec![why]) } else { Err(faults) };
        if !held.as_ref().is_ok_and(Vec::is_empty) {
            sources.insert(Arc::from(format!("intentions to {name}")), held);
        }
    };
    put("any service", Vec::new(), whole.policies());
    let named: BTreeSet<ServiceId> = rules.keys().chain(faults.keys()).flatten().cloned().collect();
    for service in named {
        let key = Some(service.clone());
        let own = rules.remove(&key).unwrap_or_default();
        let told = |why: String| format!("intentions to {} in Consul: {why}", service.full());
        put(service.full(), faults.remove(&key).unwrap_or_default(), whole.policies_of(&service, &own).map_err(told));
    }
    sources
}

/// Why a name of Consul's stands for no service of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    /// No service of the mesh can be called so.
    Name,
    /// It is of any namespace, or of all services of another one.
    Namespaces,
}

fn name(name: &str, namespace: &str, settings: &IntentionsSettings) -> Result<Name, Odd> {
    let namespace = match namespace {
        "" | DEFAULT_NAMESPACE => settings.namespace.as_str(),
        ANY => return Err(Odd::Namespaces),
        other => other,
    };
    if name == ANY {
        return if namespace == settings.namespace { Ok(None) } else { Err(Odd::Namespaces) };
    }
    ServiceId::new(namespace, name).map(Some).ok_or(Odd::Name)
}

fn decision(intention: &Intention) -> Result<Decision, String> {
    if intention.jwt.as_ref().is_some_and(|jwt| !jwt.is_null()) {
        return Err("conditions on JWTs are not taken from intentions; write an authorization policy or use a plugin".to_owned());
    }
    match (&intention.action, intention.permissions.as_ref().filter(|permissions| !permissions.is_null())) {
        (Some(IntentionAction::Allow), None) => Ok(Decision::Allow),
        (Some(IntentionAction::Deny), None) => Ok(Decision::Deny),
        (None, Some(permissions)) => Ok(Decision::Ask(Permitted::read(permissions)?)),
        _ => Err("expected either an action or permissions".to_owned()),
    }
}

/// What is said to any service, and what the settings say beside it.
struct Whole<'a> {
    settings: &'a IntentionsSettings,
    provider: &'a str,
    rules: Rules,
}

/// What counts for the callers of one service.
struct Verdicts {
    named: BTreeMap<ServiceId, Decision>,
    others: Decision,
}

impl Verdicts {
    fn listed(&self, which: impl Fn(&Decision) -> bool) -> Vec<&ServiceId> {
        self.named.iter().filter(|(_, decision)| which(decision)).map(|(name, _)| name).collect()
    }
}

impl<'a> Whole<'a> {
    fn new(settings: &'a IntentionsSettings, provider: &'a str, rules: Rules) -> Whole<'a> {
        Whole { settings, provider, rules }
    }

    fn default(&self) -> Decision {
        if self.settings.deny { Decision::Deny } else { Decision::Allow }
    }

    /// What counts where nothing is said to a service itself.
    fn verdicts(&self) -> Verdicts {
        let named = self.rules.iter().filter_map(|(name, decision)| Some((name.clone()?, decision.clone()))).collect();
        Verdicts { named, others: self.rules.get(&None).cloned().unwrap_or_else(|| self.default()) }
    }

    /// What counts for a service to which `own` is said.
    fn verdicts_of(&self, own: &Rules) -> Verdicts {
        let mut verdicts = match own.get(&None) {
            Some(others) => Verdicts { named: BTreeMap::new(), others: others.clone() },
            None => self.verdicts(),
        };
        verdicts.named.extend(own.iter().filter_map(|(name, decision)| Some((name.clone()?, decision.clone()))));
        // A denial by name is one whatever else lets others in.
        verdicts.named.retain(|_, decision| *decision != verdicts.others || *decision == Decision::Deny);
        verdicts
    }

    /// Whether there is a policy for all services: it allows, so that what is said to one of them may say otherwise.
    fn is_bound(&self) -> bool {
        let verdicts = self.verdicts();
        verdicts.others != Decision::Allow || verdicts.named.values().any(|decision| *decision != Decision::Allow)
    }

    /// The policy for all services of the namespace.
    fn policies(&self) -> Result<Vec<(Key, Value)>, String> {
        if !self.is_bound() {
            return Ok(Vec::new());
        }
        let verdicts = self.verdicts();
        let rules = match verdicts.others {
            Decision::Allow => vec![rule(but(&verdicts.listed(|one| *one == Decision::Deny))?, None)],
            _ => these(&verdicts.listed(|one| *one == Decision::Allow)),
        };
        Ok(vec![self.policy("all.services", None, "allow", rules)])
    }

    /// The policies for one service.
    fn policies_of(&self, service: &ServiceId, own: &Rules) -> Result<Vec<(Key, Value)>, String> {
        let verdicts = self.verdicts_of(own);
        let (mut allow, mut deny) = (Vec::new(), Vec::new());
        let refuses = |decision: &Decision| matches!(decision, Decision::Ask(_)) && self.settings.deny;
        let bound = self.is_bound() || verdicts.others != Decision::Allow || verdicts.named.values().any(refuses);
        allow.extend(these(&verdicts.listed(|one| *one == Decision::Allow)));
        deny.extend(these(&verdicts.listed(|one| *one == Decision::Deny)));
        let all: Vec<&ServiceId> = verdicts.named.keys().collect();
        match &verdicts.others {
            Decision::Allow => allow.push(rule(but(&all)?, None)),
            Decision::Deny if self.lets_in() => deny.push(rule(but(&verdicts.listed(|one| *one != Decision::Deny))?, None)),
            Decision::Deny => {}
            Decision::Ask(permitted) => self.ask(permitted, &but(&all)?, &mut allow, &mut deny)?,
        }
        for (caller, decision) in &verdicts.named {
            if let Decision::Ask(permitted) = decision {
                self.ask(permitted, &Some(json!({ "identities": [&**caller.full()] })), &mut allow, &mut deny)?;
            }
        }
        let id = if service.namespace() == self.settings.namespace {
            service.service().to_owned()
        } else {
            format!("{}.{}", service.namespace(), service.service())
        };
        let mut policies = Vec::new();
        if bound {
            policies.push(self.policy(&id, Some(service), "allow", allow));
        }
        if !deny.is_empty() {
            policies.push(self.policy(&id, Some(service), "deny", deny));
        }
        Ok(policies)
    }

    /// Whether the policy for all services lets anybody in, whom one for a single service then has to refuse.
    fn lets_in(&self) -> bool {
        let verdicts = self.verdicts();
        self.is_bound() && (verdicts.others == Decision::Allow || verdicts.named.values().any(|one| *one == Decision::Allow))
    }

    /// What permissions mean for callers.
    fn ask(
        &self,
        permitted: &Permitted,
        from: &Option<Value>,
        allow: &mut Vec<Value>,
        deny: &mut Vec<Value>,
    ) -> Result<(), String> {
        let rules = |parts: &[Part]| parts.iter().map(|part| rule(from.clone(), part.operation())).collect::<Vec<_>>();
        deny.extend(rules(&permitted.denied));
        if !self.settings.deny {
            allow.push(rule(from.clone(), None));
            return Ok(());
        }
        allow.extend(rules(&permitted.allowed));
        if self.lets_in() {
            deny.extend(rules(&permitted.rest()?));
        }
        Ok(())
    }

    fn policy(&self, id: &str, service: Option<&ServiceId>, action: &str, rules: Vec<Value>) -> (Key, Value) {
        let id = format!("{id}.{action}");
        let namespace = service.map_or(self.settings.namespace.as_str(), ServiceId::namespace);
        let mut policy = json!({
            "id": format!("{id}@{}", self.provider),
            "desc": "From the intentions of Consul",
            "namespace": namespace,
            "action": action,
            "rules": rules,
        });
        if let Some(service) = service {
            policy["service"] = service.service().into();
        }
        (Key::new(ResourceKind::AuthorizationPolicy, id), policy)
    }
}

/// One rule; nothing said means anybody and anything.
fn rule(from: Option<Value>, to: Option<Value>) -> Value {
    let mut fields = Map::new();
    for (name, item) in [("from", from), ("to", to)] {
        if let Some(item) = item {
            fields.insert(name.to_owned(), json!([item]));
        }
    }
    fields.into()
}

/// Rules for these callers and for nobody else.
fn these(callers: &[&ServiceId]) -> Vec<Value> {
    let list = |callers: &[&ServiceId]| callers.iter().map(|caller| Value::from(&**caller.full())).collect::<Value>();
    callers.chunks(MOST_LISTED).map(|some| rule(Some(json!({ "identities": list(some) })), None)).collect()
}

/// Everybody but these callers, whoever proves no identity among them.
fn but(callers: &[&ServiceId]) -> Result<Option<Value>, String> {
    if callers.len() > MOST_LISTED {
        return Err(format!("{} callers are exceptions, at most {MOST_LISTED} are taken", callers.len()));
    }
    let list: Vec<&str> = callers.iter().map(|caller| &**caller.full()).collect();
    Ok((!list.is_empty()).then(|| json!({ "not_identities": list })))
}
