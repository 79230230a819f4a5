//! The plugins that this data plane runs, one line each, and what the control plane may ask about them.

use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place};
use serde_json::{Map, Value};

use super::check;
use super::meta::Meta;
use super::*;
use crate::secrets::reference;

/// Every plugin. A new one adds its folder and its line.
static PLUGINS: &[&Plugin] = &[
    &acl::PLUGIN,
    &api_breaker::PLUGIN,
    &attach_consumer_label::PLUGIN,
    &basic_auth::PLUGIN,
    &batch_requests::PLUGIN,
    &body_transformer::PLUGIN,
    &authz_casbin::PLUGIN,
    &brotli::PLUGIN,
    &buffering::PLUGIN,
    &client_control::PLUGIN,
    &consumer_restriction::PLUGIN,
    &cors::PLUGIN,
    &csrf::PLUGIN,
    &data_mask::PLUGIN,
    &degraphql::PLUGIN,
    &digest_auth::PLUGIN,
    &echo::PLUGIN,
    &error_page::PLUGIN,
    &ext_authz::PLUGIN,
    &failover::PLUGIN,
    &fault_injection::PLUGIN,
    &forward_auth::PLUGIN,
    &grpc_web::PLUGIN,
    &gzip::PLUGIN,
    &headers::PLUGIN,
    &hmac_auth::PLUGIN,
    &ip_restriction::PLUGIN,
    &jwe_decrypt::PLUGIN,
    &jwt_auth::PLUGIN,
    &key_auth::PLUGIN,
    &ldap_auth::PLUGIN,
    &limit_conn::PLUGIN,
    &limit_count::PLUGIN,
    &limit_req::PLUGIN,
    &mocking::PLUGIN,
    &multi_auth::PLUGIN,
    &opa::PLUGIN,
    &openid_connect::PLUGIN,
    &pass_client_cert::PLUGIN,
    &prometheus::PLUGIN,
    &proxy_cache::PLUGIN,
    &proxy_mirror::PLUGIN,
    &proxy_rewrite::PLUGIN,
    &public_api::PLUGIN,
    &real_ip::PLUGIN,
    &redirect::PLUGIN,
    &referer_restriction::PLUGIN,
    &request_id::PLUGIN,
    &request_validation::PLUGIN,
    &response_rewrite::PLUGIN,
    &retry::PLUGIN,
    &sticky::PLUGIN,
    &traffic_split::PLUGIN,
    &ua_restriction::PLUGIN,
    &uri_blocker::PLUGIN,
    &wolf_rbac::PLUGIN,
    &workflow::PLUGIN,
    &zstd::PLUGIN,
];

/// The plugin of this name.
pub(super) fn find(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().copied().find(|plugin| plugin.descriptor.name == name)
}

/// All of them, for promises that each one keeps.
#[cfg(test)]
pub(super) fn all() -> &'static [&'static Plugin] {
    PLUGINS
}

/// The set of plugins, as the control plane sees it.
pub struct Registry {
    descriptors: Vec<Descriptor>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut descriptors: Vec<_> = PLUGINS.iter().map(|plugin| plugin.descriptor.clone()).collect();
        descriptors.sort_by_key(|descriptor| std::cmp::Reverse(descriptor.priority));
        Registry { descriptors }
    }
}

impl Catalog for Registry {
    fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    fn schema(&self, name: &str, place: Place) -> Option<Value> {
        let mut schema = (find(name)?.schema)(place)?;
        if place == Place::Route
            && let Some(object) = schema.as_object_mut()
        {
            let properties = object.entry("properties").or_insert_with(|| Value::Object(Map::new()));
            if let Some(properties) = properties.as_object_mut() {
                properties.insert("_meta".to_owned(), check::schema::<Meta>());
            }
        }
        Some(schema)
    }

    fn check(&self, name: &str, place: Place, config: &Value) -> Result<(), Vec<ConfigFault>> {
        let Some(plugin) = find(name) else { return Err(vec![unknown(name)]) };
        if check::is_deeper(config, check::MAX_DEPTH) {
            return Err(vec![check::too_deep()]);
        }
        let mut faults = (plugin.check)(place, config).err().unwrap_or_default();
        // What a reference stands for is judged by the agent that looks it up.
        faults.retain(|fault| !reference::at(config, &fault.path).is_some_and(reference::is_reference));
        faults.extend(Meta::of(config).err().unwrap_or_default());
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// The fault of a name that is no plugin.
pub(super) fn unknown(name: &str) -> ConfigFault {
    ConfigFault { path: String::new(), message: format!("unknown plugin [{name}]") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn plugins_are_told_by_priority_with_schemas() {
        let registry = Registry::default();
        let priorities: Vec<_> = registry.descriptors().iter().map(|descriptor| descriptor.priority).collect();
        assert!(priorities.is_sorted_by(|a, b| a > b), "{priorities:?}");
        for descriptor in registry.descriptors() {
            let schema = registry.schema(descriptor.name, Place::Route).expect("a schema");
            assert!(schema["properties"]["_meta"]["properties"]["filter"].is_object(), "{}", descriptor.name);
            assert_eq!(schema["additionalProperties"], json!(false), "{}", descriptor.name);
        }
        assert!(registry.schema("nope", Place::Route).is_none());
        assert_eq!(registry.check("nope", Place::Route, &json!({})).unwrap_err()[0].message, "unknown plugin [nope]");
    }

    #[test]
    fn the_control_plane_knows_the_turns_of_those_that_edit_fields() {
        for (name, priority) in heddle_xds::catalog::EDITORS {
            assert_eq!(find(name).expect("a plugin").descriptor.priority, priority, "{name}");
        }
    }

    #[test]
    fn references_to_secrets_are_told_in_any_case() {
        for scheme in ["$secret", "$SECRET", "$Secret", "$env", "$ENV", "$Env"] {
            let text = format!("{scheme}://file/a/b/c");
            for (plugin, config) in [
                ("jwt-auth", json!({"key": "k", "algorithm": "RS256", "public_key": text})),
                ("jwt-auth", json!({"key": "k", "secret": text, "base64_secret": true})),
                ("jwe-decrypt", json!({"key": "k", "secret": text})),
                ("digest-auth", json!({"username": "u", "password": text})),
            ] {
                assert_eq!(Registry::default().check(plugin, Place::Consumer, &config), Ok(()), "{plugin} {config}");
            }
        }
    }

    #[test]
    fn meta_is_checked_with_the_rest() {
        let config =
            json!({"prefer_name": 1, "_meta": {"disable": "x", "filter": [["a", "??", 1]], "pre_function": "return", "nope": 1}});
        let faults = Registry::default().check("prometheus", Place::Route, &config).unwrap_err();
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["prefer_name", "_meta.disable", "_meta"]);
        let config = json!({"_meta": {"filter": [["a", "??", 1]], "pre_function": "return", "error_response": 5}});
        let faults = Registry::default().check("prometheus", Place::Route, &config).unwrap_err();
        let paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(paths, ["_meta.pre_function", "_meta.error_response", "_meta.filter[0]"]);
    }
}
