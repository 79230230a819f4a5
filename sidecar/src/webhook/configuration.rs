//! The MutatingWebhookConfiguration by which the API server asks us. It does not know whether anybody applies it.

use base64::Engine;
use serde_json::{Value, json};

use crate::inject::INJECT;

/// Where the API server finds the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationSettings {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service, and of the configuration.
    pub service: String,
    /// Port of the Service.
    pub port: u16,
    /// Whom to trust, PEM; left out when `None`.
    pub ca: Option<String>,
}

/// Namespaces whose pods are never asked about: what the cluster itself needs must start without us.
const SYSTEM: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// What stands before the object, for people.
const ADVICE: &str = "\
# Written by `heddle inject --webhook-configuration`.
#
# A namespace opts in by the label heddle.io/inject=true; a pod in it opts out by the label or annotation heddle.io/inject: \"false\".
# Elsewhere a pod opts in by the label heddle.io/inject=true; in a namespace labelled heddle.io/inject=false none does.
#
# failurePolicy: with Fail, no pod of these namespaces starts while no control plane answers, and none starts without its sidecar: right where
# policies rely on identities; run two control planes at least. With Ignore, pods start without a sidecar meanwhile; find them afterwards by
# `kubectl get pods -l '!heddle.io/injected'` and restart them.
";

/// The object as YAML.
#[must_use]
pub fn webhook_configuration(settings: &ConfigurationSettings) -> String {
    let opted_in = json!([{ "key": INJECT, "operator": "In", "values": ["true", "enabled"] }]);
    let not_out = |more: Value| {
        let mut list = vec![json!({ "key": INJECT, "operator": "NotIn", "values": more })];
        list.push(json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM }));
        list
    };
    let mut of_namespace = opted_in.as_array().cloned().unwrap_or_default();
    of_namespace.push(json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": SYSTEM }));
    let whole = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": settings.service, "labels": { "app.kubernetes.io/name": "heddle" } },
        "webhooks": [
            webhook(settings, "namespace", "/inject", of_namespace.into(), json!([{ "key": INJECT, "operator": "NotIn", "values": ["false", "disabled"] }])),
            webhook(settings, "pod", "/inject/asked", not_out(json!(["true", "enabled", "false", "disabled"])).into(), opted_in),
        ],
    });
    // Maps, lists and strings: there is nothing that YAML cannot say.
    format!("{ADVICE}{}", serde_saphyr::to_string(&whole).unwrap_or_default())
}

fn webhook(settings: &ConfigurationSettings, name: &str, path: &str, namespaces: Value, pods: Value) -> Value {
    let service = json!({ "namespace": settings.namespace, "name": settings.service, "path": path, "port": settings.port });
    let mut client = json!({ "service": service });
    if let Some(ca) = &settings.ca {
        client["caBundle"] = base64::engine::general_purpose::STANDARD.encode(ca).into();
    }
    json!({
        "name": format!("{name}.inject.heddle.io"),
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "rules": [ { "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced" } ],
        "namespaceSelector": { "matchExpressions": namespaces },
        "objectSelector": { "matchExpressions": pods },
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": 10,
        "failurePolicy": "Fail",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

    use super::*;

    #[test]
    fn the_api_knows_all_of_it() {
        for ca in [None, Some("-----BEGIN CERTIFICATE-----\n".to_owned())] {
            let settings = ConfigurationSettings { namespace: "mesh".into(), service: "heddle".into(), port: 8443, ca };
            let value: Value = serde_saphyr::from_str(&webhook_configuration(&settings)).unwrap();
            let typed: MutatingWebhookConfiguration = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&typed).unwrap(), value);
            let [namespace, pod] = <[_; 2]>::try_from(typed.webhooks.unwrap()).unwrap();
            assert_eq!(
                (namespace.client_config.service.unwrap().path.as_deref(), pod.client_config.service.unwrap().path.as_deref()),
                (Some("/inject"), Some("/inject/asked"))
            );
            assert_eq!(namespace.client_config.ca_bundle.is_some(), settings.ca.is_some());
        }
    }
}
