//! Envelopes, statuses and error texts of user resources.

use super::*;

fn upstream() -> Value {
    json!({"nodes": {"127.0.0.1:80": 1}})
}

fn route() -> Value {
    json!({"uri": "/a", "upstream": upstream()})
}

#[tokio::test]
async fn put_creates_then_replaces_and_get_shows_indexes() {
    let api = api().await;
    let created = call(&api, "PUT /routes/1", route()).await;
    assert_eq!((created.status, &created.json()["key"]), (StatusCode::CREATED, &json!("/apisix/routes/1")));
    let value = created.json()["value"].clone();
    assert_eq!((&value["id"], &value["uri"], value["create_time"].is_number()), (&json!("1"), &json!("/a"), true));
    assert!(created.json().get("modifiedIndex").is_none());
    assert_eq!(call(&api, "PUT /admin/routes/1", route()).await.status, StatusCode::OK);

    let got = call(&api, "GET /routes/1", None).await;
    let body = got.json();
    assert_eq!((got.status, &body["createdIndex"], &body["modifiedIndex"]), (StatusCode::OK, &json!(1), &json!(2)));
    assert_eq!((got.headers["etag"].as_bytes(), got.headers["x-api-version"].as_bytes()), (&b"\"2\""[..], &b"v3"[..]));
    let again = call_with(&api, "GET /routes/1", &[("x-api-key", ADMIN), ("if-none-match", "\"2\"")], String::new()).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn post_makes_ids_of_twenty_digits() {
    let api = api().await;
    let made = call(&api, "POST /upstreams", upstream()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.json()["value"]["id"], json!("00000000000000000001"));
    assert_eq!(made.json()["key"], json!("/apisix/upstreams/00000000000000000001"));
}

#[tokio::test]
async fn ids_of_url_and_body_must_agree() {
    let api = api().await;
    let with = |id: Value| {
        let mut value = route();
        value["id"] = id;
        value
    };
    for (line, body, status, error) in [
        ("PUT /routes", route(), 400, "missing route id"),
        ("PUT /routes/1", with(json!(2)), 400, "wrong route id"),
        ("POST /routes", with(json!(2)), 400, "wrong route id, do not need it"),
        ("POST /routes/2", route(), 400, "wrong route id, do not need it"),
        ("PATCH /routes", json!({}), 400, "missing route id"),
        ("DELETE /routes", json!({}), 400, "missing route id"),
        ("PUT /consumers/jack", json!({"username": "rose"}), 400, "wrong username"),
        ("PUT /consumers", json!({}), 400, "missing consumer username"),
        ("POST /consumers", json!({"username": "jack"}), 405, "not supported `POST` method for consumer"),
        ("PATCH /consumers/jack", json!({}), 405, "not supported `PATCH` method for consumer"),
        ("PUT /nothing/1", json!({}), 404, "Unsupported resource type: nothing"),
        ("PUT /stream_routes/1", json!({}), 400, "stream mode is disabled, can not add stream routes"),
        ("GET /protos", json!({}), 400, "protos are not supported yet: they come with the grpc-transcode plugin"),
    ] {
        let answer = call(&api, line, body).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (status, error), "{line}");
    }
    assert_eq!(call(&api, "PUT /routes", with(json!(7))).await.json()["key"], json!("/apisix/routes/7"));
    assert_eq!(call(&api, "PUT /consumers", json!({"username": "jack"})).await.json()["key"], json!("/apisix/consumers/jack"));
}

#[tokio::test]
async fn refusals_have_the_words_that_clients_know() {
    let api = api().await;
    for (line, body, status, error) in [
        (
            "PUT /routes/1",
            json!({"uri": 1, "plugins": {}}),
            400,
            "invalid configuration: property \"uri\" validation failed: wrong type",
        ),
        ("PUT /routes/1", json!({"uri": "/", "plugins": {}, "create_time": 1}), 400, "the property is forbidden:  create_time"),
        ("PUT /routes/1", json!({"uri": "/", "plugins": {"x": {}}}), 400, "unknown plugin [x]"),
        (
            "PUT /routes/1",
            json!({"uri": "/", "plugins": {"cors": {"max_age": "x"}}}),
            400,
            "failed to check the configuration of plugin cors err: property \"max_age\" validation failed: wrong type",
        ),
        (
            "PUT /routes/1",
            json!({"uri": "/", "upstream_id": "u"}),
            400,
            "failed to fetch upstream info by upstream id [u], response code: 404",
        ),
        (
            "PUT /routes/a%20b",
            json!({"uri": "/", "plugins": {}}),
            400,
            "invalid configuration: property \"id\" validation failed",
        ),
        ("PUT /routes/1?ttl=x", json!({"uri": "/", "plugins": {}}), 400, "invalid argument ttl: should be a number"),
        ("PUT /routes/1", json!([1]), 400, "invalid request body: expected a JSON object"),
        ("PUT /consumers/j/credentials/c", json!({"plugins": {"key-auth": {"key": "k"}}}), 404, "consumer not found"),
        ("PUT /secrets/nope/1", json!({}), 400, "invalid secret manager: nope"),
        ("PUT /plugin_metadata/nope", json!({}), 400, "invalid plugin name"),
        ("PUT /routes/r@file", json!({"uri": "/", "plugins": {}}), 400, "routes/r@file comes from the provider `file`"),
    ] {
        let answer = call(&api, line, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{line} {body}: {}", answer.text);
        assert!(answer.error().starts_with(error), "{line} {body}: {}", answer.text);
    }
    let missing = call(&api, "PUT /routes/1", None).await;
    assert_eq!((missing.status, missing.error()), (StatusCode::BAD_REQUEST, "missing configurations".to_owned()));
    let broken = call_with(&api, "PUT /routes/1", &[("x-api-key", ADMIN)], "{".to_owned()).await;
    assert!(broken.error().starts_with("invalid request body: ") && broken.json()["req_body"] == json!("{"), "{}", broken.text);
    let several = call(&api, "PUT /routes/1", json!({"uri": 1, "methods": ["GOT"], "x": 1, "plugins": {}})).await;
    assert_eq!(several.json()["errors"].as_array().unwrap().len(), 3, "{}", several.text);
    assert_eq!(call(&api, "GET /routes", None).await.json(), json!({"total": 0, "list": []}));
}

#[tokio::test]
async fn missing_resources_are_missing() {
    let api = api().await;
    for line in ["GET /routes/1", "DELETE /routes/1"] {
        let answer = call(&api, line, None).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::NOT_FOUND, json!({"message": "Key not found"})), "{line}");
    }
    assert_eq!(call(&api, "PATCH /routes/1", json!({"uri": "/b"})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn patch_merges_and_replaces_attributes() {
    let api = api().await;
    call(&api, "PUT /routes/1", json!({"uri": "/a", "name": "n", "labels": {"a": "1", "b": "2"}, "upstream": upstream()})).await;
    let merged = call(&api, "PATCH /routes/1", json!({"labels": {"a": null, "c": "3"}, "name": null, "status": 0})).await;
    assert_eq!(merged.status, StatusCode::OK);
    let value = merged.json()["value"].clone();
    assert_eq!((&value["labels"], &value["status"], value.get("name")), (&json!({"b": "2", "c": "3"}), &json!(0), None));

    let nodes = call(&api, "PATCH /routes/1/upstream/nodes", json!({"10.0.0.1:81": 5})).await;
    assert_eq!(nodes.json()["value"]["upstream"]["nodes"], json!({"10.0.0.1:81": 5}));
    let wrong = call(&api, "PATCH /routes/1/uri/x", json!(1)).await;
    assert_eq!((wrong.status, wrong.error()), (StatusCode::BAD_REQUEST, "invalid sub-path: /uri/x".to_owned()));
    let invalid = call(&api, "PATCH /routes/1", json!({"uri": 5})).await;
    assert_eq!(invalid.status, StatusCode::BAD_REQUEST);
    assert_eq!(call(&api, "GET /routes/1", None).await.json()["value"]["uri"], json!("/a"));
}

#[tokio::test]
async fn patches_at_the_same_time_lose_nothing() {
    let api = api().await;
    call(&api, "PUT /upstreams/u", upstream()).await;
    let patches = (0..8).map(|number| {
        let api = api.clone();
        async move { call(&api, &format!("PATCH /upstreams/u/labels/l{number}"), json!("x")).await.status.as_u16() }
    });
    assert_eq!(futures_util::future::join_all(patches).await, [200; 8]);
    assert_eq!(call(&api, "GET /upstreams/u", None).await.json()["value"]["labels"].as_object().unwrap().len(), 8);
}

#[tokio::test]
async fn what_is_referred_to_is_not_deleted_unless_forced() {
    let api = api().await;
    call(&api, "PUT /upstreams/u", upstream()).await;
    call(&api, "PUT /routes/r", json!({"uri": "/a", "upstream_id": "u"})).await;
    let refused = call(&api, "DELETE /upstreams/u", None).await;
    assert_eq!(refused.error(), "can not delete this upstream, route [r] is still using it now");
    assert_eq!(call(&api, "DELETE /upstreams/u?force=yes", None).await.status, StatusCode::BAD_REQUEST);
    let forced = call(&api, "DELETE /upstreams/u?force=true", None).await;
    assert_eq!((forced.status, forced.json()), (StatusCode::OK, json!({"deleted": "1", "key": "/apisix/upstreams/u"})));
}

#[tokio::test]
async fn if_match_guards_writes() {
    let api = api().await;
    call(&api, "PUT /upstreams/u", upstream()).await;
    let guarded = |line: &'static str, tag: &'static str| {
        let api = api.clone();
        async move { call_with(&api, line, &[("x-api-key", ADMIN), ("if-match", tag)], upstream().to_string()).await.status.as_u16() }
    };
    assert_eq!(guarded("PUT /upstreams/u", "\"9\"").await, 412);
    assert_eq!(guarded("PUT /upstreams/u", "1").await, 200);
    assert_eq!(guarded("PATCH /upstreams/u", "1").await, 412);
    assert_eq!(guarded("PATCH /upstreams/u", "2").await, 200);
    assert_eq!(guarded("DELETE /upstreams/u", "2").await, 412);
    assert_eq!(guarded("PUT /upstreams/none", "*").await, 412);
    assert_eq!(guarded("PUT /upstreams/u", "soon").await, 400);
    assert_eq!(guarded("DELETE /upstreams/u", "*").await, 200);
    let absent = [("x-api-key", ADMIN), ("if-none-match", "*")];
    assert_eq!(call_with(&api, "PUT /upstreams/v", &absent, upstream().to_string()).await.status.as_u16(), 201);
    assert_eq!(call_with(&api, "PUT /upstreams/v", &absent, upstream().to_string()).await.status.as_u16(), 412);
}

#[tokio::test]
async fn lists_are_filtered_paged_and_sorted_by_creation() {
    let api = api().await;
    for number in (0..25).rev() {
        let value = json!({"uri": format!("/n{number}"), "name": format!("name-{number}"), "plugins": {}, "labels": {"odd": if number % 2 == 1 { "y" } else { "n" }}});
        call(&api, &format!("PUT /routes/r{number:02}"), value).await;
    }
    let all = call(&api, "GET /routes", None).await.json();
    assert_eq!((&all["total"], &all["list"][0]["value"]["id"]), (&json!(25), &json!("r24")));
    let page = call(&api, "GET /routes?page=3&page_size=10", None).await.json();
    assert_eq!((&page["total"], page["list"].as_array().unwrap().len()), (&json!(25), 5));
    let named = call(&api, "GET /routes?name=name-1.&label=odd", None).await.json();
    assert_eq!(named["total"], json!(10));
    let bad = call(&api, "GET /routes?page=1&page_size=5", None).await;
    assert_eq!((bad.status, bad.text.as_str()), (StatusCode::BAD_REQUEST, "page_size must be between 10 and 500"));
}

#[tokio::test]
async fn credentials_live_below_their_consumer() {
    let api = api().await;
    call(&api, "PUT /consumers/jack", json!({"username": "jack"})).await;
    let credential = json!({"plugins": {"key-auth": {"key": "hush"}}});
    let made = call(&api, "PUT /consumers/jack/credentials/c1", credential.clone()).await;
    assert_eq!((made.status, &made.json()["key"]), (StatusCode::CREATED, &json!("/apisix/consumers/jack/credentials/c1")));
    assert!(!made.text.contains("hush"), "{}", made.text);
    assert_eq!(call(&api, "GET /consumers/jack/credentials", None).await.json()["total"], json!(1));
    assert_eq!(call(&api, "GET /consumers/rose/credentials", None).await.status, StatusCode::NOT_FOUND);
    call(&api, "PUT /consumers/rose", json!({"username": "rose"})).await;
    let twice = call(&api, "PUT /consumers/rose/credentials/c1", credential).await;
    assert_eq!(twice.error(), "duplicate key of plugin key-auth found with consumer: jack");
    call(&api, "DELETE /consumers/jack", None).await;
    assert_eq!(call(&api, "GET /consumers/jack/credentials/c1", None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn secrets_are_encrypted_in_echoes_plain_for_admins_masked_for_viewers() {
    let api = api().await;
    let echo = call(&api, "PUT /consumers/jack", json!({"username": "jack", "plugins": {"key-auth": {"key": "hush"}}})).await;
    let sealed = echo.json()["value"]["plugins"]["key-auth"]["key"].as_str().unwrap().to_owned();
    assert!(sealed.starts_with("$sealed:"), "{sealed}");
    let key = |answer: Answer| answer.json()["value"]["plugins"]["key-auth"]["key"].clone();
    assert_eq!(key(call(&api, "GET /consumers/jack", None).await), json!("hush"));
    let viewer = call_with(&api, "GET /consumers/jack", &[("x-api-key", VIEWER)], String::new()).await;
    assert_eq!(key(viewer), json!("******"));
    call(&api, "PUT /consumers/jack", json!({"username": "jack", "plugins": {"key-auth": {"key": sealed}}})).await;
    assert_eq!(key(call(&api, "GET /consumers/jack", None).await), json!("hush"), "an echo that is sent again means the same");
}

#[tokio::test]
async fn private_keys_never_come_back() {
    let api = api().await;
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let ssl = json!({"sni": "a.test", "cert": cert, "key": key, "certs": [cert], "keys": [key]});
    for line in ["PUT /ssls/1", "GET /ssls/1", "GET /ssls", "PATCH /ssls/1", "GET /history"] {
        let body = if line.starts_with("PUT") { ssl.clone() } else { json!({"desc": "d"}) };
        let answer = call(&api, line, body).await;
        assert!(
            answer.status.is_success() && !answer.text.contains("PRIVATE KEY") && answer.text.contains("BEGIN CERTIFICATE"),
            "{line}"
        );
    }
    let client = json!({"nodes": {"a": 1}, "tls": {"client_cert": cert, "client_key": key}});
    assert!(!call(&api, "PUT /upstreams/1", client).await.text.contains("PRIVATE KEY"));
    let viewer = call_with(&api, "GET /upstreams/1", &[("x-api-key", VIEWER)], String::new()).await;
    assert!(!viewer.text.contains("PRIVATE KEY"), "{}", viewer.text);
}

#[tokio::test]
async fn a_ttl_becomes_an_expiry() {
    let (api, keeper) = api_with(Settings::default()).await;
    call(&api, "PUT /upstreams/u?ttl=60", upstream()).await;
    let key = crate::model::Key::new(crate::model::ResourceKind::Upstream, "u");
    assert_eq!(keeper.state().get(&key).unwrap().expires_at_ms, Some(1_060_000));
    call(&api, "PUT /upstreams/u", upstream()).await;
    assert_eq!(keeper.state().get(&key).unwrap().expires_at_ms, None);
}
