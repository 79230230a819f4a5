//! From a URL path to what it names. A function of text: it knows neither methods nor bodies.

use percent_encoding::percent_decode_str;

use crate::model::{Key, ResourceKind};

/// What a path of the Admin API names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The API itself.
    Root,
    /// All resources of a kind; of credentials, those of one consumer.
    Collection(ResourceKind, Option<String>),
    /// One resource.
    Item(Key),
    /// An attribute of one resource.
    Attribute(Key, Vec<String>),
    /// `/plugins`.
    Plugins,
    /// `/plugins/list`.
    PluginNames,
    /// `/plugins/reload`.
    PluginReload,
    /// `/plugins/{name}` and `/schema/plugins/{name}`.
    PluginSchema(String),
    /// `/schema/{name}`.
    Schema(String),
    /// `/schema/validate/{collection}`.
    ValidateOne(String),
    /// `/configs/validate`.
    ValidateAll,
    /// `/status`.
    Status,
    /// `/openapi.json`.
    OpenApi,
    /// `/history`.
    History,
    /// `/nodes`.
    Nodes,
    /// `/rollouts`.
    Rollouts,
    /// `/rollouts/resume`.
    RolloutResume,
    /// `/members`.
    Members,
    /// `/mesh/services` and `/mesh/instances`.
    Mesh(&'static str),
    /// `/metrics`.
    Metrics,
    /// A kind that comes later, with the status and text of its refusal.
    Later(&'static str),
    /// A kind that does not exist.
    UnknownKind(String),
}

/// Segments of a path; deeper attributes are mistakes.
const MOST_SEGMENTS: usize = 40;

/// What a path names; `None` when it is not of the Admin API.
pub(super) fn parse(path: &str) -> Option<Target> {
    let rest = path.strip_prefix("/apisix/admin").or_else(|| path.strip_prefix("/admin"))?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let mut parts = Vec::new();
    for part in rest.split('/').filter(|part| !part.is_empty()) {
        parts.push(percent_decode_str(part).decode_utf8().ok()?.into_owned());
        if parts.len() > MOST_SEGMENTS {
            return None;
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Some(match parts.as_slice() {
        [] => Target::Root,
        ["plugins"] => Target::Plugins,
        ["plugins", "list"] => Target::PluginNames,
        ["plugins", "reload"] => Target::PluginReload,
        ["plugins", name] | ["schema", "plugins", name] => Target::PluginSchema((*name).to_owned()),
        ["schema", "validate", kind] => Target::ValidateOne((*kind).to_owned()),
        ["schema", name] => Target::Schema((*name).to_owned()),
        ["configs", "validate"] => Target::ValidateAll,
        ["status"] => Target::Status,
        ["openapi.json"] => Target::OpenApi,
        ["history"] => Target::History,
        ["nodes"] => Target::Nodes,
        ["rollouts"] => Target::Rollouts,
        ["rollouts", "resume"] => Target::RolloutResume,
        ["members"] => Target::Members,
        ["mesh", "services"] => Target::Mesh("services"),
        ["mesh", "instances"] => Target::Mesh("instances"),
        ["discovery", "services"] => Target::Mesh("discovered"),
        ["metrics"] => Target::Metrics,
        ["stream_routes", ..] => Target::Later("stream mode is disabled, can not add stream routes"),
        ["protos", ..] => Target::Later("protos are not supported yet: they come with the grpc-transcode plugin"),
        ["configs", ..] => {
            Target::Later("only /configs/validate exists here: whole configurations are applied with `heddle apply`")
        }
        ["services", _, "graphql_cost_decorations", ..] => {
            Target::Later("graphql_cost_decorations are not supported yet: they come with the GraphQL plugins")
        }
        ["consumers", user, "credentials"] => Target::Collection(ResourceKind::Credential, Some((*user).to_owned())),
        ["consumers", user, "credentials", id, rest @ ..] => {
            item(ResourceKind::Credential, format!("{user}/credentials/{id}"), rest)
        }
        ["secrets"] => Target::Collection(ResourceKind::Secret, None),
        ["secrets", manager] => Target::Collection(ResourceKind::Secret, Some((*manager).to_owned())),
        ["secrets", manager, id, rest @ ..] => item(ResourceKind::Secret, format!("{manager}/{id}"), rest),
        [kind, rest @ ..] => match (ResourceKind::from_plural(kind).filter(|kind| *kind != ResourceKind::Credential), rest) {
            (None, _) => Target::UnknownKind((*kind).to_owned()),
            (Some(kind), []) => Target::Collection(kind, None),
            (Some(kind), [id, rest @ ..]) => item(kind, (*id).to_owned(), rest),
        },
    })
}

fn item(kind: ResourceKind, id: String, rest: &[&str]) -> Target {
    let key = Key::new(kind, id);
    if rest.is_empty() { Target::Item(key) } else { Target::Attribute(key, rest.iter().map(|part| (*part).to_owned()).collect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_things() {
        let key = |kind, id: &str| Key::new(kind, id);
        for (path, target) in [
            ("/apisix/admin", Some(Target::Root)),
            ("/admin/", Some(Target::Root)),
            ("/apisix/admin/routes", Some(Target::Collection(ResourceKind::Route, None))),
            ("/admin/routes/", Some(Target::Collection(ResourceKind::Route, None))),
            ("/admin/routes/r1", Some(Target::Item(key(ResourceKind::Route, "r1")))),
            ("/admin/routes/r%201", Some(Target::Item(key(ResourceKind::Route, "r 1")))),
            (
                "/apisix/admin/routes/r1/upstream/nodes",
                Some(Target::Attribute(key(ResourceKind::Route, "r1"), vec!["upstream".into(), "nodes".into()])),
            ),
            ("/admin/consumers/jack/credentials", Some(Target::Collection(ResourceKind::Credential, Some("jack".into())))),
            ("/admin/consumers/jack/credentials/c", Some(Target::Item(key(ResourceKind::Credential, "jack/credentials/c")))),
            ("/admin/secrets/vault/1", Some(Target::Item(key(ResourceKind::Secret, "vault/1")))),
            ("/admin/plugins/list", Some(Target::PluginNames)),
            ("/admin/schema/plugins/cors", Some(Target::PluginSchema("cors".into()))),
            ("/admin/schema/validate/routes", Some(Target::ValidateOne("routes".into()))),
            ("/admin/credentials/x", Some(Target::UnknownKind("credentials".into()))),
            ("/admin/nope", Some(Target::UnknownKind("nope".into()))),
            ("/administer", None),
            ("/", None),
            ("/admin/routes/%ff", None),
        ] {
            assert_eq!(parse(path), target, "{path}");
        }
        assert!(matches!(parse("/admin/protos/1"), Some(Target::Later(_))));
        assert_eq!(parse(&format!("/admin{}", "/a".repeat(41))), None);
    }
}
