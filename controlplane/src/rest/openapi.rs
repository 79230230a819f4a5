//! The OpenAPI 3.1 document of the API, made from the schemas that writes are checked against.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use crate::model::{ResourceKind, schema};

/// The document; made once.
pub(super) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Heddle Admin API",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Routes, upstreams and everything else that a Heddle gateway runs on. Compatible with the Admin API v3 of Apache APISIX.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
            },
            "servers": [{"url": "/apisix/admin"}, {"url": "/admin"}],
            "security": [{"header": []}, {"query": []}, {"cookie": []}],
            "paths": paths(),
            "components": {
                "securitySchemes": {
                    "header": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
                    "query": {"type": "apiKey", "in": "query", "name": "api_key"},
                    "cookie": {"type": "apiKey", "in": "cookie", "name": "x_api_key"}
                },
                "schemas": schemas(),
                "responses": responses(),
                "parameters": parameters()
            }
        })
    })
}

/// What the path of a kind looks like and what may be done there.
struct Shape {
    kind: ResourceKind,
    collection: &'static str,
    item: &'static str,
    create: bool,
    patch: bool,
}

const SHAPES: [Shape; 15] = [
    shape(ResourceKind::Route, "/routes", "/routes/{id}", true, true),
    shape(ResourceKind::Service, "/services", "/services/{id}", true, true),
    shape(ResourceKind::Upstream, "/upstreams", "/upstreams/{id}", true, true),
    shape(ResourceKind::Ssl, "/ssls", "/ssls/{id}", true, true),
    shape(ResourceKind::Listener, "/listeners", "/listeners/{id}", true, true),
    shape(ResourceKind::MeshService, "/mesh_services", "/mesh_services/{id}", false, true),
    shape(ResourceKind::AuthorizationPolicy, "/authorization_policies", "/authorization_policies/{id}", true, true),
    shape(ResourceKind::PeerAuthentication, "/peer_authentications", "/peer_authentications/{id}", true, true),
    shape(ResourceKind::Consumer, "/consumers", "/consumers/{id}", false, false),
    shape(ResourceKind::Credential, "/consumers/{username}/credentials", "/consumers/{username}/credentials/{id}", false, false),
    shape(ResourceKind::ConsumerGroup, "/consumer_groups", "/consumer_groups/{id}", false, true),
    shape(ResourceKind::PluginConfig, "/plugin_configs", "/plugin_configs/{id}", false, true),
    shape(ResourceKind::GlobalRule, "/global_rules", "/global_rules/{id}", false, true),
    shape(ResourceKind::PluginMetadata, "/plugin_metadata", "/plugin_metadata/{id}", false, false),
    shape(ResourceKind::Secret, "/secrets", "/secrets/{manager}/{id}", false, true),
];

const fn shape(kind: ResourceKind, collection: &'static str, item: &'static str, create: bool, patch: bool) -> Shape {
    Shape { kind, collection, item, create, patch }
}

fn resume() -> Value {
    let group = json!({"name": "group", "in": "query", "required": true, "schema": {"type": "string"}, "description": "For example gateway/envoy."});
    json!({"post": {
        "summary": "Gives all nodes of a group what is held from them.",
        "tags": ["meta"],
        "parameters": [group],
        "responses": {
            "200": {"description": "How many resources were held.", "content": {"application/json": {}}},
            "401": reference("responses", "Unauthorized"),
        },
    }})
}

fn paths() -> Value {
    let mut paths = Map::new();
    for shape in &SHAPES {
        paths.insert(shape.collection.to_owned(), on_collection(shape));
        paths.insert(shape.item.to_owned(), on_item(shape));
        if shape.patch {
            paths.insert(format!("{}/{{path}}", shape.item), on_attribute(shape));
        }
    }
    let read = |summary: &str| json!({"get": {"summary": summary, "tags": ["meta"], "responses": {"200": {"description": "The answer.", "content": {"application/json": {}}}, "401": reference("responses", "Unauthorized")}}});
    for (path, summary) in [
        ("/plugins/list", "Names of the plugins, by descending priority."),
        ("/plugins", "With ?all=true everything about every plugin."),
        ("/status", "Revision, store, providers and their errors, counts."),
        ("/history", "Versions of one resource or of all, newest first."),
        ("/nodes", "The nodes and what they hold."),
        ("/rollouts", "How new versions spread over groups of nodes: canaries, what they try, what is held and why."),
        ("/members", "The members of the fleet, as gossip shows them here."),
        ("/mesh/services", "The services of the mesh and what is wrong with them; by service, namespace, protocol, faulty."),
        (
            "/mesh/instances",
            "The instances of services and their state; by service, namespace, zone, node, protocol, version, state.",
        ),
        ("/discovery/services", "What upstreams ask of service discovery, what was found, and how fresh it is."),
        ("/openapi.json", "This document."),
    ] {
        paths.insert(path.to_owned(), read(summary));
    }
    paths.insert("/rollouts/resume".to_owned(), resume());
    for (path, name, summary) in [
        ("/plugins/{name}", "name", "JSON Schema of a plugin."),
        ("/schema/{name}", "name", "JSON Schema of a kind."),
        ("/schema/plugins/{name}", "name", "JSON Schema of a plugin."),
    ] {
        let mut entry = read(summary);
        entry["parameters"] = json!([in_path(name)]);
        entry["get"]["responses"]["404"] = reference("responses", "NotFound");
        paths.insert(path.to_owned(), entry);
    }
    paths.insert("/plugins/reload".to_owned(), json!({"put": {"summary": "Accepted for compatibility; plugins need no reload.", "tags": ["meta"], "responses": {"200": {"description": "done"}}}}));
    paths.insert("/schema/validate/{name}".to_owned(), checked("Checks the shape of one resource.", Some("name")));
    paths.insert("/configs/validate".to_owned(), checked("Checks a document of collections, as JSON or YAML.", None));
    Value::Object(paths)
}

fn checked(summary: &str, name: Option<&str>) -> Value {
    json!({
        "parameters": name.into_iter().map(in_path).collect::<Vec<_>>(),
        "post": {
            "summary": summary, "tags": ["meta"],
            "requestBody": {"required": true, "content": {"application/json": {}, "application/yaml": {}}},
            "responses": {"200": {"description": "It is valid."}, "400": reference("responses", "Invalid"), "401": reference("responses", "Unauthorized")}
        }
    })
}

fn on_collection(shape: &Shape) -> Value {
    let name = shape.kind.plural();
    let mut entry = json!({
        "parameters": path_parameters(shape.collection),
        "get": {
            "summary": format!("All {name}, sorted by creation."), "operationId": format!("list_{name}"), "tags": [name],
            "parameters": (["Page", "PageSize", "Name", "Label", "Uri", "Filter"].map(|one| reference("parameters", one))),
            "responses": {
                "200": {"description": "The list.", "content": {"application/json": {"schema": {
                    "type": "object", "required": ["total", "list"],
                    "properties": {"total": {"type": "integer"}, "list": {"type": "array", "items": envelope(shape.kind, true)}}
                }}}},
                "400": reference("responses", "Invalid"), "401": reference("responses", "Unauthorized")
            }
        }
    });
    if shape.create {
        entry["post"] = writing(shape, &format!("Creates one of {name} under a generated id."), "create", &["201"]);
        entry["post"]["parameters"] = json!([reference("parameters", "Ttl")]);
    }
    entry
}

fn on_item(shape: &Shape) -> Value {
    let name = shape.kind.singular();
    let mut entry = json!({
        "parameters": path_parameters(shape.item),
        "get": {
            "summary": format!("One {name}."), "operationId": format!("get_{name}"), "tags": [shape.kind.plural()],
            "responses": {
                "200": {"description": "It.", "headers": {"ETag": {"schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": envelope(shape.kind, true)}}},
                "401": reference("responses", "Unauthorized"), "404": reference("responses", "NotFound")
            }
        },
        "put": writing(shape, &format!("Creates or replaces a {name}."), "put", &["200", "201"]),
        "delete": {
            "summary": format!("Deletes a {name}, unless something refers to it."), "operationId": format!("delete_{name}"), "tags": [shape.kind.plural()],
            "parameters": [reference("parameters", "Force"), reference("parameters", "IfMatch")],
            "responses": {
                "200": {"description": "It is gone.", "content": {"application/json": {"schema": {
                    "type": "object", "properties": {"deleted": {"const": "1"}, "key": {"type": "string"}}
                }}}},
                "400": reference("responses", "Invalid"), "401": reference("responses", "Unauthorized"),
                "404": reference("responses", "NotFound"), "412": reference("responses", "Changed"), "507": reference("responses", "Full")
            }
        }
    });
    entry["put"]["parameters"] = json!([reference("parameters", "Ttl"), reference("parameters", "IfMatch")]);
    if shape.patch {
        let mut patch = writing(shape, &format!("Merges into a {name}; null deletes."), "patch", &["200"]);
        patch["parameters"] = entry["put"]["parameters"].clone();
        patch["requestBody"]["content"]["application/json"]["schema"] = json!({"type": "object"});
        entry["patch"] = patch;
    }
    entry
}

fn on_attribute(shape: &Shape) -> Value {
    let mut patch = writing(shape, "Replaces one attribute; the path may have several steps.", "patch_attribute_of", &["200"]);
    patch["requestBody"]["content"]["application/json"]["schema"] = json!(true);
    let mut parameters = path_parameters(shape.item);
    parameters.push(in_path("path"));
    json!({"parameters": parameters, "patch": patch})
}

fn writing(shape: &Shape, summary: &str, verb: &str, good: &[&str]) -> Value {
    let mut responses = Map::new();
    for status in good {
        let content =
            json!({"description": "It is stored.", "content": {"application/json": {"schema": envelope(shape.kind, false)}}});
        responses.insert((*status).to_owned(), content);
    }
    for (status, name) in [
        ("400", "Invalid"),
        ("401", "Unauthorized"),
        ("404", "NotFound"),
        ("412", "Changed"),
        ("413", "TooLarge"),
        ("415", "ContentType"),
        ("503", "Unavailable"),
        ("507", "Full"),
    ] {
        responses.insert(status.to_owned(), reference("responses", name));
    }
    json!({
        "summary": summary, "operationId": format!("{verb}_{}", shape.kind.singular()), "tags": [shape.kind.plural()],
        "requestBody": {"required": true, "content": {"application/json": {"schema": reference("schemas", shape.kind.singular())}}},
        "responses": responses
    })
}

fn envelope(kind: ResourceKind, indexed: bool) -> Value {
    let mut envelope = json!({
        "type": "object", "required": ["key", "value"],
        "properties": {"key": {"type": "string"}, "value": reference("schemas", kind.singular())}
    });
    if indexed {
        for index in ["createdIndex", "modifiedIndex"] {
            envelope["properties"][index] = json!({"type": "integer"});
        }
    }
    envelope
}

fn schemas() -> Value {
    let one = |kind: ResourceKind| {
        let mut schema = schema(kind);
        if let Some(map) = schema.as_object_mut() {
            map.shift_remove("$schema");
        }
        (kind.singular().to_owned(), schema)
    };
    let mut all: Map<String, Value> = ResourceKind::ALL.into_iter().map(one).collect();
    all.insert("error".to_owned(), json!({
        "type": "object",
        "properties": {
            "error_msg": {"type": "string"},
            "errors": {"type": "array", "items": {"type": "object", "properties": {"path": {"type": "string"}, "message": {"type": "string"}}}}
        }
    }));
    Value::Object(all)
}

fn responses() -> Value {
    let mut all = Map::new();
    for (name, description) in [
        ("Invalid", "Something of the request is not valid; error_msg names the first fault, errors all of them."),
        ("Unauthorized", "The key is missing, wrong, or does not allow this."),
        ("NotFound", "It does not exist."),
        ("Changed", "It is not at the revision that If-Match demands."),
        ("TooLarge", "The body is larger than 1.5 MiB."),
        ("ContentType", "The content type is not read here."),
        ("Unavailable", "Somebody else wrote at the same time, or the store is away; try again."),
        ("Full", "The disk is full; nothing was written and reading goes on."),
    ] {
        all.insert(
            name.to_owned(),
            json!({"description": description, "content": {"application/json": {"schema": reference("schemas", "error")}}}),
        );
    }
    Value::Object(all)
}

fn parameters() -> Value {
    let query = |name: &str, description: &str, schema: Value| json!({"name": name, "in": "query", "description": description, "schema": schema});
    json!({
        "Page": query("page", "Which page, from 1; only with page_size.", json!({"type": "integer", "minimum": 1})),
        "PageSize": query("page_size", "Resources on a page.", json!({"type": "integer", "minimum": 10, "maximum": 500})),
        "Name": query("name", "Regular expression on the name.", json!({"type": "string"})),
        "Label": query("label", "Name of a label that must be there.", json!({"type": "string"})),
        "Uri": query("uri", "Regular expression on any uri.", json!({"type": "string"})),
        "Filter": query("filter", "Encoded pairs, of routes: service_id=…&upstream_id=….", json!({"type": "string"})),
        "Ttl": query("ttl", "Deleted by itself after this many seconds.", json!({"type": "number", "exclusiveMinimum": 0})),
        "Force": query("force", "Delete even what others refer to.", json!({"type": "string", "enum": ["true"]})),
        "IfMatch": {"name": "If-Match", "in": "header", "description": "The modifiedIndex that must be current, or *.", "schema": {"type": "string"}}
    })
}

/// The parameters in the braces of a path.
fn path_parameters(path: &str) -> Vec<Value> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(in_path).collect()
}

fn in_path(name: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
}

fn reference(section: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{section}/{name}")})
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn references<'a>(value: &'a Value, out: &mut HashSet<&'a str>) {
        match value {
            Value::Object(map) => {
                out.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|inner| references(inner, out));
            }
            Value::Array(items) => items.iter().for_each(|inner| references(inner, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        let mut seen = HashSet::new();
        references(document(), &mut seen);
        assert!(seen.len() > 20);
        for reference in seen {
            assert!(document().pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let mut names = HashSet::new();
        for (path, entry) in document()["paths"].as_object().into_iter().flatten() {
            for (verb, operation) in entry.as_object().into_iter().flatten().filter(|(verb, _)| *verb != "parameters") {
                if let Some(name) = operation.get("operationId").and_then(Value::as_str) {
                    assert!(names.insert(name), "{verb} {path}: {name} twice");
                }
                assert!(operation.get("responses").is_some(), "{verb} {path}");
            }
        }
    }

    #[test]
    fn every_kind_has_its_paths() {
        let kinds: HashSet<_> = SHAPES.iter().map(|shape| shape.kind).collect();
        assert_eq!(kinds.len(), ResourceKind::ALL.len());
    }
}
