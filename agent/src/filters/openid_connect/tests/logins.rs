//! Tests of logins: there, back, and everything that may be wrong with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::super::identity::EXTERNAL_USER;
use super::*;
use crate::exchange::Variable;

#[tokio::test]
async fn a_login_leads_back_to_where_it_began() {
    story(async {
        let mut world = world(json!({"scope": "openid a", "authorization_params": {"tenant": "x y"}})).await;
        let sent = world.get("/p/x?y=1").await;
        let address = sent.sent_to();
        let (url, query) = address.split_once('?').unwrap();
        assert_eq!((url, sent.field("cache-control").as_deref()), (world.fake.url("/auth").as_str(), Some("no-store")));
        let get = |name| argument(query, name);
        assert_eq!((get("client_id").unwrap(), get("redirect_uri").unwrap()), ("app".to_owned(), "http://h/cb".to_owned()));
        assert_eq!((get("scope").unwrap(), get("tenant").unwrap()), ("openid a".to_owned(), "x y".to_owned()));
        let state = world.agree(&address);
        assert_eq!(world.get(&format!("/cb?code=c1&state={state}")).await.sent_to(), "/p/x?y=1");
        world.fake.last("/token", |asked| {
            assert_eq!(asked.get("code").unwrap(), "c1");
            assert_eq!(asked.get("redirect_uri").unwrap(), "http://h/cb");
            assert_eq!(asked.get("code_verifier").unwrap().len(), 43);
            assert_eq!(
                asked.authorization.as_deref(),
                Some(&*format!("Basic {}", STANDARD.encode("app:a%20secret%20of%20the%20client")))
            );
        });
        assert_eq!(world.jar.keys().collect::<Vec<_>>(), ["session"], "the login's own cookie is taken back");
        world.fields = vec![("X-Userinfo", "forged".to_owned()), ("x-raw-id-token", "forged".to_owned())];
        world.jar.insert("other".to_owned(), "1".to_owned());
        let went = world.get("/p/x").await;
        assert_eq!((went.field("X-Access-Token").as_deref(), went.field("cookie").as_deref()), (Some("at1"), Some("other=1")));
        let decoded = |name| String::from_utf8(STANDARD.decode(went.field(name).unwrap()).unwrap()).unwrap();
        assert!(decoded("X-ID-Token").contains("\"aud\":\"app\""));
        assert_eq!(decoded("X-Userinfo"), "{\"sub\":\"u1\",\"name\":\"Uma\"}");
        assert_eq!((went.field("x-raw-id-token"), went.field("x-refresh-token")), (None, None));
        let x = went.went();
        assert_eq!(Variable::new("jwt_claim_sub").get(&x).as_deref(), Some("u1"));
        assert_eq!(x.slot::<Value>(EXTERNAL_USER).unwrap()["name"], "Uma");
    })
    .await;
}

#[tokio::test]
async fn answers_that_belong_to_no_login_are_refused() {
    story(async {
        let mut world = world(json!({})).await;
        let sent = world.get("/p").await.sent_to();
        let state = world.agree(&sent);
        for target in ["/cb", "/cb?code=c", "/cb?code=c&state=wrong", "/cb?state=x"] {
            assert_eq!(world.get(target).await.answered().0, 400, "{target}");
        }
        let back = format!("/cb?code=c1&state={state}");
        assert_eq!(world.ask("POST", &back).await.answered().0, 400);
        let jar = std::mem::take(&mut world.jar);
        assert_eq!(world.get(&back).await.answered().0, 400, "another browser");
        world.jar = jar;
        world.time = 601;
        let (status, text) = world.get(&back).await.answered();
        assert!(status == 400 && text.contains("too long"), "{text}");
        world.time = 600;
        assert_eq!(world.get(&back).await.sent_to(), "/p");
        assert_eq!(world.get(&back).await.answered().0, 400, "it has been answered");
        assert_eq!(world.fake.count("/token"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_provider_may_refuse() {
    story(async {
        let mut world = world(json!({})).await;
        let sent = world.get("/p").await.sent_to();
        let state = world.agree(&sent);
        let (status, text) = world.get(&format!("/cb?error=access_denied&state={state}")).await.answered();
        assert!(status == 401 && text.contains("access_denied") && world.jar.is_empty(), "{text}");
        let refusal = (400, r#"{"error":"invalid_grant"}"#.to_owned());
        world.fake.instead.borrow_mut().insert("/token", refusal);
        let (status, text) = world.log_in("/p").await.answered();
        assert!(status == 401 && text.contains("invalid_grant") && world.jar.is_empty(), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_lies_is_not_believed() {
    story(async {
        let mut world = world(json!({})).await;
        for (lie, why) in [
            (json!({"nonce": "other"}), "nonce"),
            (json!({"aud": "other"}), "aud"),
            (json!({"iss": "https://evil.example"}), "iss"),
            (json!({"exp": NOW - 121}), "expired"),
            (json!({"iat": NOW + 121}), "future"),
            (json!({"azp": "other"}), "azp"),
            (json!({"at_hash": "x"}), "at_hash"),
        ] {
            *world.fake.lies.borrow_mut() = lie;
            let (status, text) = world.log_in("/p").await.answered();
            assert!(status == 401 && text.contains(why) && world.jar.is_empty(), "{why}: {text}");
        }
        *world.fake.lies.borrow_mut() = json!({});
        for (alg, why) in [("none", "not signed"), ("HS256", "algorithm"), ("RS256", "algorithm")] {
            world.fake.alg.set(alg);
            let (status, text) = world.log_in("/p").await.answered();
            assert!(status == 401 && text.contains(why), "{alg}: {text}");
        }
        world.fake.alg.set("ES256");
        let sent = world.get("/p").await.sent_to();
        let state = world.agree(&sent);
        let (status, text) = world.get(&format!("/cb?code=c&state={state}&iss=https%3A%2F%2Fevil.example")).await.answered();
        assert!(status == 401 && text.contains("another provider"), "{text}");
        assert_eq!(world.log_in("/p").await.sent_to(), "/p", "and when it is honest again, all is well");
    })
    .await;
}

#[tokio::test]
async fn a_userinfo_of_somebody_else_is_left_out() {
    story(async {
        let mut world = world(json!({})).await;
        for (status, body) in [(200, r#"{"sub":"u2"}"#), (500, "{}"), (200, "oops")] {
            world.fake.instead.borrow_mut().insert("/me", (status, body.to_owned()));
            world.jar.clear();
            assert_eq!(world.log_in("/p").await.sent_to(), "/p");
            assert_eq!(world.get("/p").await.field("x-userinfo"), None, "{body}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_at_once() {
    story(async {
        let mut world = world(json!({})).await;
        world.fake.down.set(true);
        let (status, text) = world.get("/p").await.answered();
        assert!(status == 503 && text.contains("cannot be reached"), "{text}");
        world.fake.down.set(false);
        assert_eq!(world.get("/p").await.answered().0, 503, "not asked again within a second");
        world.time = 1;
        assert_eq!(world.log_in("/p").await.sent_to(), "/p");
        world.fake.down.set(true);
        assert_eq!(world.get("/p").await.field("x-access-token").as_deref(), Some("at1"), "sessions need no provider");
        world.jar.clear();
        assert!(world.get("/p").await.sent_to().contains("/auth?"), "what it says of itself is kept");
        for answer in [(200, "<html>".to_owned()), (502, String::new())] {
            world.fake.down.set(false);
            world.fake.instead.borrow_mut().insert("/token", answer);
            assert_eq!(world.log_in("/p").await.answered().0, 503);
        }
    })
    .await;
}

#[tokio::test]
async fn those_who_have_not_logged_in_may_be_refused_or_let_pass() {
    story(async {
        let mut denied = world(json!({"unauth_action": "deny"})).await;
        let refused = denied.get("/p").await;
        assert_eq!(refused.field("www-authenticate").as_deref(), Some("Bearer realm=\"apisix\""));
        assert_eq!(refused.answered().0, 401);
        let mut passed = world(json!({"unauth_action": "pass"})).await;
        passed.fields = vec![("X-ID-Token", "forged".to_owned()), ("X-Consumer-Username", "forged".to_owned())];
        passed.jar.insert("session".to_owned(), "1forged".to_owned());
        let went = passed.get("/p").await;
        assert_eq!((went.field("x-id-token"), went.field("cookie")), (None, None));
        assert_eq!(went.field("x-consumer-username"), None);
        went.went();
        assert_eq!(passed.fake.asked.borrow().len(), 0);
    })
    .await;
}

#[tokio::test]
async fn people_come_back_beside_their_path_unless_told_otherwise() {
    story(async {
        let mut world = world(json!({"redirect_uri": null})).await;
        let sent = world.get("/p/a/").await.sent_to();
        assert_eq!(argument(&sent, "redirect_uri").unwrap(), "http://h/p/a/.apisix/redirect");
        let state = world.agree(&sent);
        assert_eq!(world.get(&format!("/p/a/.apisix/redirect?code=c&state={state}")).await.sent_to(), "/p/a/");
        assert_eq!(world.get(&format!("/{}", "x".repeat(1_100))).await.field("x-access-token").as_deref(), Some("at1"));
        world.jar.clear();
        assert_eq!(world.get(&format!("/{}", "x".repeat(1_100))).await.answered().0, 400);
        let mut fixed = super::world(json!({"redirect_uri": "https://gw.example/cb?x=1"})).await;
        let sent = fixed.get("/p").await.sent_to();
        assert_eq!(argument(&sent, "redirect_uri").unwrap(), "https://gw.example/cb?x=1");
    })
    .await;
}

#[tokio::test]
async fn strict_cookies_come_along_from_a_page_of_ours() {
    story(async {
        let mut world = world(json!({"session": {"cookie_same_site": "Strict"}})).await;
        let (status, page) = world.log_in("/p?a=1&b=2").await.answered();
        assert!(status == 200 && page.contains("url='/p?a=1&amp;b=2'"), "{page}");
        world.get("/p").await.went();
    })
    .await;
}

#[tokio::test]
async fn parameters_may_be_pushed() {
    story(async {
        let mut world = world(json!({"par": {"enabled": true}, "force_reauthorize": true})).await;
        let sent = world.get("/p").await.sent_to();
        assert_eq!(sent, format!("{}?client_id=app&request_uri=urn%3Apushed", world.fake.url("/auth")));
        world.fake.last("/par", |asked| {
            assert_eq!(
                (asked.get("prompt").unwrap(), asked.get("response_type").unwrap()),
                ("login".to_owned(), "code".to_owned())
            );
            assert!(asked.authorization.is_some());
        });
        world.fake.instead.borrow_mut().insert("/par", (400, r#"{"error":"invalid_request"}"#.to_owned()));
        assert_eq!(world.get("/p").await.answered().0, 401);
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_secret_always_uses_pkce() {
    story(async {
        let fake = Fake::start().await;
        let mut config = config_for(&fake, json!({"use_pkce": false, "session": {"secret": "0123456789abcdef"}}));
        config.as_object_mut().unwrap().remove("client_secret");
        let filter = filter("openid-connect", &config);
        let mut world = World { fake, filter, jar: BTreeMap::new(), time: 0, fields: Vec::new() };
        assert_eq!(world.log_in("/p").await.sent_to(), "/p");
        world.fake.last("/token", |asked| {
            assert!(asked.get("code_verifier").is_some() && asked.authorization.is_none());
            assert_eq!(asked.get("client_id").unwrap(), "app");
        });
    })
    .await;
}
