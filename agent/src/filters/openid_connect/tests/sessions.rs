//! Tests of sessions: how long they last, how they are renewed, and how they end.

use std::cell::RefCell;

use super::*;

#[tokio::test]
async fn a_session_lasts_as_long_as_it_is_used() {
    story(async {
        let mut world = world(json!({"renew_access_token_on_expiry": false})).await;
        world.log_in("/p").await.sent_to();
        let first = world.jar["session"].clone();
        world.time = 59;
        world.get("/p").await.went();
        assert_eq!(world.jar["session"], first);
        world.time = 800;
        world.get("/p").await.went();
        assert_ne!(world.jar["session"], first, "marked as used");
        world.time = 1_600;
        world.get("/p").await.went();
        world.time = 2_500;
        assert!(world.get("/p").await.sent_to().contains("/auth?"), "idle for too long");
        let mut short = super::world(json!({"renew_access_token_on_expiry": false, "session": {"idling_timeout": 0, "rolling_timeout": 0, "absolute_timeout": 100}})).await;
        short.log_in("/p").await.sent_to();
        short.time = 99;
        short.get("/p").await.went();
        short.time = 100;
        short.get("/p").await.sent_to();
    })
    .await;
}

#[tokio::test]
async fn a_session_belongs_to_one_configuration() {
    story(async {
        let mut world = world(json!({})).await;
        world.log_in("/p").await.sent_to();
        let (fake, jar) = (world.fake.clone(), world.jar.clone());
        for other in [
            json!({"client_id": "other"}),
            json!({"session": {"secret": "0123456789abcdef"}}),
            json!({"discovery": fake.url("/.well-known/openid-configuration?other")}),
        ] {
            let filter = filter("openid-connect", &config_for(&fake, other));
            let mut thief = World { fake: fake.clone(), filter, jar: jar.clone(), time: 0, fields: Vec::new() };
            fake.instead.borrow_mut().insert("/.well-known/openid-configuration?other", (500, String::new()));
            assert!(matches!(thief.get("/p").await.answered().0, 302 | 503));
        }
        let login = format!("1{}", &jar["session"][2..]);
        world.jar.insert("session".to_owned(), login);
        world.get("/p").await.sent_to();
    })
    .await;
}

#[tokio::test]
async fn a_large_session_takes_several_cookies_and_a_huge_one_none() {
    story(async {
        let mut world = world(json!({})).await;
        let user = |size: usize| (200, json!({"sub": "u1", "text": "x".repeat(size)}).to_string());
        world.fake.instead.borrow_mut().insert("/me", user(6_000));
        world.log_in("/p").await.sent_to();
        assert_eq!(world.jar.keys().collect::<Vec<_>>(), ["session", "session_2", "session_3"]);
        assert!(world.get("/p").await.field("x-userinfo").unwrap().len() > 8_000);
        world.jar.remove("session_2");
        world.get("/p").await.sent_to();
        world.fake.instead.borrow_mut().insert("/me", user(30_000));
        assert_eq!(world.log_in("/p").await.answered().0, 500);
    })
    .await;
}

#[tokio::test]
async fn tokens_are_renewed_once_for_all_who_come_at_the_same_time() {
    story(async {
        let mut world = world(json!({"access_token_expires_leeway": 10})).await;
        world.log_in("/p").await.sent_to();
        world.time = 289;
        assert_eq!(world.get("/p").await.field("x-access-token").as_deref(), Some("at1"));
        world.time = 290;
        let old = world.jar.clone();
        let mut other =
            World { fake: world.fake.clone(), filter: world.filter.clone(), jar: old.clone(), time: 290, fields: Vec::new() };
        let (one, two) = tokio::join!(world.get("/p"), other.get("/p"));
        assert_eq!((one.field("x-access-token").as_deref(), two.field("x-access-token").as_deref()), (Some("at2"), Some("at2")));
        world.fake.last("/token", |asked| assert_eq!(asked.get("refresh_token").unwrap(), "rt1"));
        assert_eq!(world.get("/p").await.field("x-access-token").as_deref(), Some("at2"));
        other.jar = old;
        assert_eq!(other.get("/p").await.field("x-access-token").as_deref(), Some("at2"), "late with the old cookie");
        assert_eq!(world.fake.count("/token"), 2);
    })
    .await;
}

#[tokio::test]
async fn a_renewal_that_fails_ends_the_session_only_when_the_provider_says_so() {
    story(async {
        let mut world = world(json!({})).await;
        world.log_in("/p").await.sent_to();
        world.time = 300;
        world.fake.down.set(true);
        assert_eq!(world.get("/p").await.answered().0, 503);
        world.fake.down.set(false);
        world.time = 302;
        *world.fake.lies.borrow_mut() = json!({"sub": "u2"});
        world.get("/p").await.sent_to();
        *world.fake.lies.borrow_mut() = json!({});
        world.time = 400;
        assert_eq!(world.get("/p").await.field("x-access-token").as_deref(), Some("at3"));
        world.fake.instead.borrow_mut().insert("/token", (400, r#"{"error":"invalid_grant"}"#.to_owned()));
        world.time = 800;
        world.get("/p").await.sent_to();
    })
    .await;
}

#[tokio::test]
async fn without_a_refresh_token_people_log_in_again_unless_told_otherwise() {
    story(async {
        let fake = Fake::start().await;
        let issued = RefCell::new(String::new());
        for (renews, goes_on) in [(true, false), (false, true)] {
            let config = config_for(&fake, json!({"renew_access_token_on_expiry": renews, "use_nonce": false}));
            let mut world = World {
                fake: fake.clone(),
                filter: filter("openid-connect", &config),
                jar: BTreeMap::new(),
                time: 0,
                fields: Vec::new(),
            };
            let claims = json!({"iss": fake.url(""), "sub": "u1", "aud": "app", "exp": NOW + 600, "iat": NOW});
            *issued.borrow_mut() =
                json!({"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": fake.sign(&claims)})
                    .to_string();
            fake.instead.borrow_mut().insert("/token", (200, issued.borrow().clone()));
            world.log_in("/p").await.sent_to();
            world.time = 60;
            assert_eq!(matches!(world.get("/p").await, Outcome::Went(_)), goes_on);
        }
    })
    .await;
}

#[tokio::test]
async fn a_logout_ends_the_session_everywhere() {
    story(async {
        let mut world =
            world(json!({"logout_path": "/bye", "post_logout_redirect_uri": "/out", "revoke_tokens_on_logout": true})).await;
        world.log_in("/p").await.sent_to();
        let stolen = world.jar.clone();
        let out = world.get("/bye").await.sent_to();
        let (url, query) = out.split_once('?').unwrap();
        assert_eq!(url, world.fake.url("/out"));
        assert_eq!(argument(query, "post_logout_redirect_uri").unwrap(), "http://h/out");
        assert_eq!(argument(query, "client_id").unwrap(), "app");
        assert_eq!(argument(query, "id_token_hint").unwrap().split('.').count(), 3);
        assert_eq!(world.fake.count("/revoke"), 2);
        world.fake.last("/revoke", |asked| assert_eq!(asked.get("token").unwrap(), "at1"));
        assert!(world.jar.is_empty());
        world.get("/p").await.sent_to();
        world.jar = stolen;
        world.get("/p").await.sent_to();
    })
    .await;
}

#[tokio::test]
async fn a_logout_works_without_a_provider_too() {
    story(async {
        let mut world = world(json!({})).await;
        world.fake.down.set(true);
        let (status, page) = world.get("/logout").await.answered();
        assert!(status == 200 && page.contains("Logged Out"), "{page}");
        let mut elsewhere = super::world(json!({"post_logout_redirect_uri": "https://shop.example/"})).await;
        elsewhere.fake.down.set(true);
        assert_eq!(elsewhere.get("/logout").await.sent_to(), "https://shop.example/");
    })
    .await;
}

#[tokio::test]
async fn what_was_learnt_at_the_login_may_be_demanded() {
    story(async {
        let mut scopes = world(json!({"required_scopes": ["a", "b"]})).await;
        scopes.log_in("/p").await.sent_to();
        assert_eq!(scopes.get("/p").await.answered(), (403, "{\"error\":\"required scopes a, b not present\"}\n".to_owned()));
        let schema = |name: &str| json!({"claim_schema": {"required": ["user", "id_token", "access_token"], "properties": {"user": {"required": [name]}}}});
        let mut named = world(schema("name")).await;
        named.log_in("/p").await.sent_to();
        named.get("/p").await.went();
        let mut mailed = world(schema("email")).await;
        mailed.log_in("/p").await.sent_to();
        assert_eq!(mailed.get("/p").await.answered().0, 401);
    })
    .await;
}
