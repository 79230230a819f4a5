//! Keys, roles, and requests that browsers were tricked into.

use super::*;

#[tokio::test]
async fn a_key_is_demanded() {
    let api = api().await;
    for (headers, path, description) in [
        (vec![], "GET /routes", "missing apikey"),
        (vec![("x-api-key", "wrong")], "GET /routes", "wrong apikey"),
        (vec![("x-api-key", ADMIN)], "GET /routes?api_key=wrong", "wrong apikey"),
        (vec![("x-api-key", VIEWER)], "PUT /routes/1", "invalid method for role viewer"),
        (vec![], "GET /openapi.json", "missing apikey"),
        (vec![], "POST /schema/validate/routes", "missing apikey"),
    ] {
        let answer = call_with(&api, path, &headers, String::new()).await;
        let expected = json!({"error_msg": "failed to check token", "description": description});
        assert_eq!((answer.status, answer.json()), (StatusCode::UNAUTHORIZED, expected), "{path}");
    }
    let host = ("host", "127.0.0.1:9180");
    for (headers, path) in [
        (vec![("x-api-key", VIEWER)], "GET /routes".to_owned()),
        (vec![host], format!("GET /routes?api_key={ADMIN}")),
        (vec![host, ("cookie", "a=1; x_api_key=viewer-key")], "GET /routes".to_owned()),
    ] {
        assert_eq!(call_with(&api, &path, &headers, String::new()).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(call_with(&api, "HEAD /apisix/admin", &[], String::new()).await.status, StatusCode::OK);
    let outside = call_with(&api, "GET /admin-not", &[("x-api-key", ADMIN)], String::new()).await;
    assert_eq!((outside.status, outside.text.as_str()), (StatusCode::NOT_FOUND, ""));
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let api = api().await;
    for _ in 0..50 {
        assert_eq!(
            call_with(&api, "GET /routes", &[("x-api-key", "guess")], String::new()).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let slowed = call_with(&api, "GET /routes", &[("x-api-key", "guess")], String::new()).await;
    assert_eq!((slowed.status, slowed.headers["retry-after"].as_bytes()), (StatusCode::TOO_MANY_REQUESTS, &b"1"[..]));
}

#[tokio::test]
async fn without_demanded_keys_everybody_nearby_may() {
    let open = api_with(Settings { key_required: false, ..Settings::default() }).await.0;
    let json = ("content-type", "application/json");
    let body = r#"{"uri":"/","plugins":{}}"#;
    let put = |headers: Vec<(&'static str, &'static str)>| {
        let open = open.clone();
        async move { call_with(&open, "PUT /routes/1", &headers, body.to_owned()).await.status.as_u16() }
    };
    assert_eq!(put(vec![("host", "localhost"), json]).await, 201);
    assert_eq!(put(vec![("host", "evil.example"), json]).await, 403);
    assert_eq!(put(vec![("host", "localhost"), ("origin", "http://evil.example"), json]).await, 403);
    assert_eq!(put(vec![("host", "localhost"), ("content-type", "text/plain")]).await, 415);
}

#[tokio::test]
async fn forms_are_read_only_with_a_header_key() {
    let api = api().await;
    let body = r#"{"uri":"/","plugins":{}}"#.to_owned();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let curl = call_with(&api, "PUT /routes/1", &[("x-api-key", ADMIN), form], body.clone()).await;
    assert_eq!(curl.status, StatusCode::CREATED);
    let cookie = [("host", "localhost"), ("cookie", "x_api_key=admin-key"), form];
    assert_eq!(call_with(&api, "POST /routes", &cookie, body).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn cors_is_off_until_switched_on() {
    let off = api().await;
    assert_eq!(call_with(&off, "OPTIONS /routes", &[], String::new()).await.status, StatusCode::UNAUTHORIZED);
    let on = api_with(Settings { cors: true, ..Settings::default() }).await.0;
    let answer = call_with(&on, "OPTIONS /routes", &[], String::new()).await;
    assert_eq!((answer.status, answer.headers["access-control-allow-origin"].as_bytes()), (StatusCode::OK, &b"*"[..]));
}

#[tokio::test]
async fn bodies_are_bounded_and_lenient() {
    let api = api().await;
    let key = [("x-api-key", ADMIN)];
    let large = format!("{{\"uri\":\"/\",\"desc\":\"{}\"}}", "x".repeat(1_572_864));
    assert_eq!(call_with(&api, "PUT /routes/1", &key, large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let raw = "{\"uri\":\"/a\",\"uri\":\"/b\",\"desc\":\"two\nlines\",\"plugins\":{}}".to_owned();
    let answer = call_with(&api, "PUT /routes/1", &key, raw).await;
    assert_eq!((answer.status, &answer.json()["value"]["desc"]), (StatusCode::CREATED, &json!("two\nlines")));
    assert_eq!(answer.json()["value"]["uri"], json!("/b"));
    let deep = format!("{{\"uri\":\"/\",\"vars\":{}{}}}", "[".repeat(300), "]".repeat(300));
    assert_eq!(call_with(&api, "PUT /routes/1", &key, deep).await.status, StatusCode::BAD_REQUEST);
}
