//! Tests of configurations that are wrong.

use heddle_xds::catalog::{Catalog, Place};

use super::super::super::Registry;
use super::super::super::testing::faults;
use super::*;

fn wrong(more: Value) -> Vec<String> {
    let mut config = json!({"client_id": "app", "client_secret": "a secret of the client", "discovery": "https://p/x"});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    faults("openid-connect", &config)
}

#[test]
fn each_fault_is_told_where_it_is() {
    for (more, path) in [
        (json!({"client_id": ""}), "client_id"),
        (json!({"discovery": "p"}), "discovery"),
        (json!({"client_secret": "short"}), "session.secret"),
        (
            json!({"client_secret": null, "session": {"secret": "0123456789abcdef"}, "token_endpoint_auth_method": "client_secret_post"}),
            "client_secret",
        ),
        (json!({"token_endpoint_auth_method": "private_key_jwt"}), "client_rsa_private_key"),
        (json!({"token_endpoint_auth_method": "private_key_jwt", "client_rsa_private_key": "x"}), "client_rsa_private_key"),
        (json!({"client_secret": null, "bearer_only": true}), "client_secret"),
        (json!({"session": {"secret": "short"}}), "session.secret"),
        (json!({"session": {"redis": {}}}), "session.redis"),
        (json!({"session": {"storage": "redis", "redis": {"host": ""}}}), "session.redis.host"),
        (json!({"session": {"storage": "redis", "redis": {"prefix": "a b"}}}), "session.redis.prefix"),
        (json!({"session": {"storage": "redis", "redis": {"username": "u"}}}), "session.redis.password"),
        (json!({"session": {"storage": "redis", "redis": {"read_timeout": 0}}}), "session.redis.read_timeout"),
        (json!({"session": {"cookie_name": "a b"}}), "session.cookie_name"),
        (json!({"session": {"cookie_name": "__Host-x", "cookie_path": "/a"}}), "session.cookie_name"),
        (json!({"session": {"cookie_path": "/;x"}}), "session.cookie_path"),
        (json!({"session": {"cookie_domain": "a;b"}}), "session.cookie_domain"),
        (json!({"session": {"cookie_same_site": "None", "cookie_secure": false}}), "session.cookie_secure"),
        (json!({"accept_none_alg": true}), "accept_none_alg"),
        (json!({"proxy_opts": {}}), "proxy_opts"),
        (json!({"dpop": {"enabled": true}}), "dpop"),
        (json!({"par": {"endpoint": "x"}}), "par.endpoint"),
        (json!({"public_key": "x"}), "public_key"),
        (json!({"token_signing_alg_values_expected": "none"}), "token_signing_alg_values_expected"),
        (json!({"token_signing_alg_values_expected": "HS256", "use_jwks": true}), "token_signing_alg_values_expected"),
        (json!({"redirect_uri": "//evil"}), "redirect_uri"),
        (json!({"redirect_uri": "/logout"}), "redirect_uri"),
        (json!({"post_logout_redirect_uri": "x"}), "post_logout_redirect_uri"),
        (json!({"logout_path": "x"}), "logout_path"),
        (json!({"introspection_endpoint": "x"}), "introspection_endpoint"),
        (json!({"realm": "a\"b"}), "realm"),
        (json!({"timeout": 0}), "timeout"),
        (json!({"authorization_params": {"state": "x"}}), "authorization_params.state"),
        (json!({"required_scopes": ["a b"]}), "required_scopes[0]"),
        (json!({"claim_schema": {"type": 1}}), "claim_schema"),
        (json!({"unauth_action": "x"}), "unauth_action"),
    ] {
        assert_eq!(wrong(more.clone()), [path], "{more}");
    }
}

#[test]
fn what_needs_no_secret_may_go_without() {
    let registry = Registry::default();
    for config in [
        json!({"client_id": "a", "discovery": "https://p", "bearer_only": true, "use_jwks": true}),
        json!({"client_id": "a", "discovery": "https://p", "session": {"secret": "$env://SECRET"}}),
        json!({"client_id": "a", "client_secret": "$secret://vault/1/a/b", "discovery": "https://p", "dpop": {"enabled": false}}),
    ] {
        assert_eq!(registry.check("openid-connect", Place::Route, &config), Ok(()), "{config}");
    }
    assert!(registry.check("openid-connect", Place::Consumer, &json!({})).is_err());
}

#[tokio::test]
async fn id_tokens_may_be_signed_with_the_secret() {
    story(async {
        let secret = "a secret of the client";
        let mut world = world(json!({"token_signing_alg_values_expected": "HS256", "client_secret": secret})).await;
        let (status, text) = world.log_in("/p").await.answered();
        assert!(status == 401 && text.contains("algorithm"), "{text}");
        assert_eq!(world.fake.count("/jwks"), 0);
        world.fake.alg.set("HS256");
        let (status, text) = world.log_in("/p").await.answered();
        assert!(status == 401 && text.contains("signature"), "{text}");
    })
    .await;
}
