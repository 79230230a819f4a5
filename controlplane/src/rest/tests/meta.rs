//! Schemas, plugins, validation without writing, status and history.

use super::*;

#[tokio::test]
async fn plugins_are_told() {
    let api = api().await;
    assert_eq!(call(&api, "GET /plugins/list", None).await.json(), json!(["cors", "key-auth"]));
    assert_eq!(call(&api, "GET /plugins/list?subsystem=stream", None).await.json(), json!([]));
    let cors = call(&api, "GET /schema/plugins/cors", None).await.json();
    assert_eq!(
        (&cors, cors["properties"]["max_age"]["type"].as_str()),
        (&call(&api, "GET /plugins/cors", None).await.json(), Some("integer"))
    );
    assert_eq!(call(&api, "GET /plugins/key-auth?schema_type=consumer", None).await.json()["required"], json!(["key"]));
    let unknown = call(&api, "GET /plugins/nope", None).await;
    assert_eq!((unknown.status, unknown.error().as_str()), (StatusCode::NOT_FOUND, "plugin not found in subsystem http"));
    assert_eq!(call(&api, "GET /plugins/cors?schema_type=consumer", None).await.error(), "not found schema");
    let all = call(&api, "GET /plugins?all=true", None).await.json();
    assert_eq!((&all["key-auth"]["type"], &all["key-auth"]["priority"]), (&json!("auth"), &json!(2500)));
    let reload = call(&api, "PUT /plugins/reload", None).await;
    assert_eq!((reload.status, reload.text.as_str()), (StatusCode::OK, "done"));
    assert_eq!(call(&api, "POST /plugins/reload", None).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn schemas_are_served_for_every_kind() {
    let api = api().await;
    for kind in crate::model::ResourceKind::ALL {
        let answer = call(&api, &format!("GET /schema/{}", kind.singular()), None).await;
        assert_eq!((answer.status, answer.json()["type"].as_str()), (StatusCode::OK, Some("object")), "{kind:?}");
    }
    assert_eq!(call(&api, "GET /schema/nope", None).await.error(), "not found schema: nope");
    assert_eq!(call(&api, "GET /schema/route", None).await.json()["properties"]["uri"]["maxLength"], json!(4096));
}

#[tokio::test]
async fn one_resource_is_checked_by_shape_alone() {
    let api = api().await;
    let good = call(&api, "POST /schema/validate/routes", json!({"uri": "/a", "plugins": {"unknown": {}}})).await;
    assert_eq!((good.status, good.text.as_str()), (StatusCode::OK, ""));
    let bad = call(&api, "POST /schema/validate/routes", json!({"uri": 5, "plugins": {}})).await;
    assert_eq!(bad.error(), "property \"uri\" validation failed: wrong type: expected string, got number");
    let none = call(&api, "POST /schema/validate/routes", json!({"plugins": {}})).await;
    assert!(none.error().starts_with("allOf 1 failed: value should match only one schema, but matches none"), "{}", none.text);
    assert_eq!(call(&api, "POST /schema/validate/secrets", json!({"auth_file": "/x"})).await.status, StatusCode::OK);
    assert_eq!(call(&api, "POST /schema/validate/nope", json!({})).await.error(), "not found schema: nope");
}

#[tokio::test]
async fn documents_are_checked_as_json_or_yaml() {
    let api = api().await;
    let document = json!({
        "routes": [{"id": "1", "uri": "/a", "upstream_id": "elsewhere"}, {"id": "1", "uri": "/b", "plugins": {"nope": {}}}],
        "consumers": [{"username": "jack"}, {"id": "jack/credentials/c", "plugins": {"key-auth": {}}}],
        "routes_conf_version": 7, "stream_routes": [], "colors": []
    });
    let answer = call(&api, "POST /configs/validate", document).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "Configuration validation failed"));
    let errors: Vec<_> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["resource_type"].clone(), e["index"].clone(), e["error"].clone()))
        .collect();
    assert_eq!(
        errors,
        [
            (json!("routes"), json!(1), json!("found duplicate id 1 in routes")),
            (json!("routes"), json!(1), json!("unknown plugin [nope]")),
            (
                json!("consumers"),
                json!(1),
                json!("failed to check the configuration of plugin key-auth err: property \"key\" is required")
            ),
            (json!("stream_routes"), Value::Null, json!("stream_routes are not supported yet")),
            (json!("colors"), Value::Null, json!("Unsupported resource type: colors")),
        ]
    );
    let yaml = [("x-api-key", ADMIN), ("content-type", "application/yaml")];
    let good =
        call_with(&api, "POST /configs/validate", &yaml, "routes:\n  - id: 1\n    uri: /a\n    plugins: {}\n".to_owned()).await;
    assert_eq!((good.status, good.json()), (StatusCode::OK, json!({})));
    assert_eq!(call_with(&api, "POST /configs/validate", &yaml, "routes: [".to_owned()).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn status_history_nodes_and_openapi() {
    let api = api().await;
    for name in ["a", "b"] {
        call(&api, "PUT /global_rules/1", json!({"plugins": {"cors": {}, "key-auth": {"header": name}}})).await;
    }
    call(&api, "DELETE /global_rules/1", None).await;
    let status = call(&api, "GET /status", None).await.json();
    assert_eq!((&status["revision"], &status["store"]["writable"], &status["nodes"]), (&json!(3), &json!(true), &json!(1)));
    let history = call(&api, "GET /history?key=global_rules/1&limit=2", None).await.json();
    let list = history["list"].as_array().unwrap();
    assert_eq!((list.len(), &list[0]["deleted"], &list[1]["author"]), (2, &json!(true), &json!("ops")));
    assert_eq!(call(&api, "GET /history?key=nope", None).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(call(&api, "GET /nodes", None).await.json(), json!([{"id": "gw-1"}]));
    assert_eq!(call(&api, "GET /rollouts", None).await.json(), json!([]));
    assert_eq!(call(&api, "POST /rollouts/resume", None).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(call(&api, "POST /rollouts/resume?group=gateway/envoy", None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(call(&api, "PUT /rollouts", None).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(call(&api, "GET /admin/openapi.json", None).await.json()["openapi"], json!("3.1.0"));
}

#[tokio::test]
async fn services_and_instances_of_the_mesh_are_narrowed_by_the_query() {
    let api = api().await;
    for (path, found) in [
        ("services", vec!["shop/web", "shop/cart", "default/web", "partner/cart"]),
        ("services?service=web", vec!["shop/web", "default/web"]),
        ("services?service=shop/web", vec!["shop/web"]),
        ("services?namespace=shop", vec!["shop/web", "shop/cart"]),
        ("services?faulty=true", vec!["shop/cart"]),
        ("services?service=we", vec![]),
        ("instances?service=web&zone=a", vec!["shop/web", "default/web"]),
        ("instances?service=web&zone=a&namespace=default", vec!["default/web"]),
        ("instances?state=draining", vec!["shop/web"]),
        ("instances?node=w&state=live", vec!["default/web"]),
    ] {
        let answer = call(&api, &format!("GET /mesh/{path}"), None).await.json();
        let names: Vec<&str> = answer.as_array().unwrap().iter().filter_map(|item| item["service"].as_str()).collect();
        assert_eq!(names, found, "{path}");
    }
    let wrong = call(&api, "GET /mesh/instances?state=gone", None).await;
    assert_eq!((wrong.status, wrong.error().contains("live, draining")), (StatusCode::BAD_REQUEST, true));
}
