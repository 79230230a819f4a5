//! The plugins that this data plane runs, one line each, and what the control plane may ask about them.

use heddle_xds::catalog::{Catalog, ConfigFault, Descriptor, Place};
use serde_json::{Map, Value};

use super::check;
use super::meta::Meta;
use super::*;

/// Every plugin. A new one adds its folder and its line.
static PLUGINS: &[&Plugin] = &[
    &cors::PLUGIN,
    &fault_injection::PLUGIN,
    &ip_restriction::PLUGIN,
    &key_auth::PLUGIN,
    &limit_count::PLUGIN,
    &prometheus::PLUGIN,
    &proxy_rewrite::PLUGIN,
    &redirect::PLUGIN,
    &request_id::PLUGIN,
    &response_rewrite::PLUGIN,
    &traffic_split::PLUGIN,
];

/// The plugin of this name.
pub(super) fn find(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().copied().find(|plugin| plugin.descriptor.name == name)
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
        let mut faults = (plugin.check)(place, config).err().unwrap_or_default();
        faults.extend(Meta::of(config).err().unwrap_or_default());
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// The fault of a name that is no plugin.
pub(super) fn unknown(name: &str) -> ConfigFault {
    ConfigFault { path: String::new(), message: format!("unknown plugin [{name}]") }
}
