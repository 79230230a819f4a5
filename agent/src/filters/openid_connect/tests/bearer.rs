//! Tests of tokens that come with the request.

use super::super::super::identity::EXTERNAL_USER;
use super::*;
use crate::exchange::Variable;

fn bearer(world: &mut World, token: &str) {
    world.fields = vec![("Authorization", format!("Bearer {token}"))];
}

fn claims(world: &World, more: Value) -> Value {
    let mut claims = json!({"iss": world.fake.url(""), "sub": "u1", "aud": "api", "exp": NOW + 600, "scope": "a b"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

#[tokio::test]
async fn tokens_are_verified_with_the_published_keys() {
    story(async {
        let mut world = world(json!({"bearer_only": true, "use_jwks": true})).await;
        let token = world.fake.sign(&claims(&world, json!({})));
        bearer(&mut world, &token);
        let went = world.get("/p").await;
        assert_eq!((went.field("x-access-token"), went.field("x-userinfo")), (Some(token.clone()), None));
        let x = went.went();
        assert_eq!(Variable::new("jwt_claim_aud").get(&x).as_deref(), Some("api"));
        assert_eq!(x.slot::<Value>(EXTERNAL_USER).unwrap()["sub"], "u1");
        world.fake.down.set(true);
        world.time = 100;
        world.get("/p").await.went();
        let other = world.fake.sign(&claims(&world, json!({"jti": "2"})));
        bearer(&mut world, &other);
        world.get("/p").await.went();
        assert_eq!(world.fake.count("/jwks"), 1, "known keys work while the provider is down");
        for (change, why) in [
            (json!({"exp": NOW - 21}), "expired"),
            (json!({"exp": null}), "exp"),
            (json!({"nbf": NOW + 400}), "before"),
            (json!({"iss": "https://evil.example"}), "issuer"),
        ] {
            let token = world.fake.sign(&claims(&world, change));
            bearer(&mut world, &token);
            let refused = world.get("/p").await;
            let challenge = refused.field("www-authenticate").unwrap();
            assert!(challenge.contains("error=\"invalid_token\"") && challenge.contains(why), "{challenge}");
            assert_eq!(refused.answered().0, 401);
        }
        bearer(&mut world, &format!("{}x", &token[..token.len() - 1]));
        assert_eq!(world.get("/p").await.answered().0, 401);
    })
    .await;
}

#[tokio::test]
async fn new_keys_are_fetched_when_a_token_names_one_but_not_for_each() {
    story(async {
        let mut world = world(json!({"bearer_only": true, "use_jwks": true})).await;
        let first = world.fake.sign(&claims(&world, json!({})));
        bearer(&mut world, &first);
        world.get("/p").await.went();
        world.fake.rotate("k2");
        let second = world.fake.sign(&claims(&world, json!({})));
        bearer(&mut world, &second);
        world.time = 5;
        assert_eq!((world.get("/p").await.answered().0, world.fake.count("/jwks")), (401, 1), "not so soon");
        world.time = 10;
        world.get("/p").await.went();
        assert_eq!(world.fake.count("/jwks"), 2);
        world.time = 69;
        bearer(&mut world, &first);
        assert_eq!(world.get("/p").await.answered().0, 401, "its key is withdrawn, and what was known of it is forgotten");
    })
    .await;
}

#[tokio::test]
async fn tokens_are_verified_with_a_key_of_the_configuration() {
    story(async {
        let fake = Fake::start().await;
        let pem = fake.public_pem();
        let more =
            json!({"bearer_only": true, "public_key": pem, "claim_validator": {"issuer": {"valid_issuers": ["https://other"]}}});
        let filter = filter("openid-connect", &config_for(&fake, more));
        let mut world = World { fake, filter, jar: BTreeMap::new(), time: 0, fields: Vec::new() };
        let token = world.fake.sign(&claims(&world, json!({"iss": "https://other"})));
        bearer(&mut world, &token);
        world.get("/p").await.went();
        let token = world.fake.sign(&claims(&world, json!({})));
        bearer(&mut world, &token);
        assert_eq!(world.get("/p").await.answered().0, 401);
        assert_eq!(world.fake.asked.borrow().len(), 0);
        world.fake.alg.set("HS256");
        let token = world.fake.sign(&claims(&world, json!({"iss": "https://other"})));
        bearer(&mut world, &token);
        assert_eq!(world.get("/p").await.answered().0, 401);
    })
    .await;
}

#[tokio::test]
async fn the_provider_is_asked_about_tokens_and_remembered() {
    story(async {
        let mut world = world(json!({"bearer_only": true, "required_scopes": ["a"]})).await;
        bearer(&mut world, "good");
        let went = world.get("/p").await;
        assert!(went.field("x-userinfo").is_some());
        world.fake.last("/introspect", |asked| {
            assert_eq!(
                (asked.get("token").unwrap(), asked.get("token_type_hint").unwrap()),
                ("good".to_owned(), "access_token".to_owned())
            );
            assert!(asked.authorization.as_ref().unwrap().starts_with("Basic "));
        });
        world.fake.down.set(true);
        world.time = 59;
        world.get("/p").await.went();
        assert_eq!(world.fake.count("/introspect"), 1);
        world.time = 60;
        assert_eq!(world.get("/p").await.answered().0, 503);
        world.fake.down.set(false);
        world.time = 62;
        assert_eq!(world.get("/p").await.answered().0, 401, "it is expired, whatever the provider says");
        bearer(&mut world, "bad");
        let (status, text) = world.get("/p").await.answered();
        assert!(status == 401 && text.contains("not active"), "{text}");
        bearer(&mut world, "good");
        world.fake.instead.borrow_mut().insert("/introspect", (401, r#"{"error":"invalid_client"}"#.to_owned()));
        world.time = 64;
        assert_eq!(world.get("/p").await.answered().0, 503);
    })
    .await;
}

#[tokio::test]
async fn an_introspection_is_remembered_for_the_interval_at_most() {
    story(async {
        let mut world = world(json!({"bearer_only": true, "introspection_interval": 10})).await;
        bearer(&mut world, "good");
        for (time, asked) in [(0, 1), (9, 1), (10, 2)] {
            world.time = time;
            world.get("/p").await.went();
            assert_eq!(world.fake.count("/introspect"), asked);
        }
        let mut own =
            super::world(json!({"bearer_only": true, "introspection_endpoint_auth_method": "client_secret_post"})).await;
        let url = own.fake.url("/introspect");
        own.filter = filter(
            "openid-connect",
            &config_for(
                &own.fake,
                json!({"introspection_endpoint": url, "introspection_endpoint_auth_method": "client_secret_post"}),
            ),
        );
        bearer(&mut own, "good");
        own.get("/p").await.went();
        assert_eq!(own.fake.count("/.well-known/openid-configuration"), 0);
        own.fake.last("/introspect", |asked| assert_eq!(asked.get("client_secret").unwrap(), "a secret of the client"));
    })
    .await;
}

#[tokio::test]
async fn requests_without_a_good_token_are_told_so() {
    story(async {
        let mut world = world(json!({"bearer_only": true, "use_jwks": true, "realm": "shop"})).await;
        let refused = world.get("/p").await;
        assert_eq!(refused.field("www-authenticate").as_deref(), Some("Bearer realm=\"shop\""));
        assert_eq!(refused.answered(), (401, "{\"message\":\"No bearer token found in request.\"}\n".to_owned()));
        world.fields = vec![("Authorization", "Bearer".to_owned())];
        assert_eq!(world.get("/p").await.answered().0, 400);
        world.fields = vec![("Authorization", "Basic eA==".to_owned())];
        assert_eq!(world.get("/p").await.answered().0, 401);
        world.fake.down.set(true);
        let token = world.fake.sign(&claims(&world, json!({})));
        world.fields = vec![("X-Access-Token", token)];
        assert_eq!(world.get("/p").await.answered().0, 503);
        assert_eq!(world.get("/logout").await.answered().0, 503);
    })
    .await;
}

#[tokio::test]
async fn people_and_programs_may_come_the_same_way() {
    story(async {
        let mut world = world(json!({"use_jwks": true, "required_scopes": ["a"],
            "claim_validator": {"audience": {"match_with_client_id": true, "required": true}}}))
        .await;
        assert_eq!(world.log_in("/p").await.sent_to(), "/p");
        assert_eq!(world.get("/p").await.field("x-access-token").as_deref(), Some("at1"));
        let token = world.fake.sign(&claims(&world, json!({"aud": ["app"]})));
        bearer(&mut world, &token);
        let went = world.get("/p").await;
        assert_eq!((went.field("x-access-token"), went.field("cookie")), (Some(token), None));
        for change in [json!({"aud": "x"}), json!({"aud": null}), json!({"aud": "app", "scope": "b"})] {
            let token = world.fake.sign(&claims(&world, change));
            bearer(&mut world, &token);
            assert_eq!(world.get("/p").await.answered().0, 403);
        }
        let mut outside = super::world(json!({"use_jwks": true, "access_token_in_authorization_header": true})).await;
        let token = outside.fake.sign(&claims(&outside, json!({})));
        outside.fields = vec![("X-Access-Token", token.clone())];
        let went = outside.get("/p").await;
        assert_eq!((went.field("authorization"), went.field("x-access-token")), (Some(format!("Bearer {token}")), None));
    })
    .await;
}
