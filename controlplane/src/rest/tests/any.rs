//! Whatever is sent, an answer comes that says whose fault it is, and nothing half-valid is stored.

use proptest::prelude::*;

use super::*;
use crate::model::{ResourceKind, validate};

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec!["/a", "u", "1", "127.0.0.1:80", "jack", "*", "$env://X", "{", ""]).prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "uri",
        "nodes",
        "upstream_id",
        "plugins",
        "key-auth",
        "cors",
        "username",
        "id",
        "upstream",
        "key",
    ]);
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            3 => prop::collection::vec((names.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn line() -> impl Strategy<Value = String> {
    let verbs = prop::sample::select(vec!["GET", "PUT", "POST", "PATCH", "DELETE"]);
    let paths = prop::sample::select(vec![
        "routes/1",
        "routes",
        "routes/1/upstream/nodes",
        "upstreams/u",
        "consumers/jack",
        "consumers",
        "consumers/jack/credentials/c",
        "services/1",
        "ssls/1",
        "global_rules/1",
        "secrets/vault/1",
        "plugin_metadata/cors",
        "listeners/l",
        "mesh_services/m",
        "authorization_policies/p",
        "peer_authentications/p",
        "configs/validate",
        "schema/validate/routes",
        "routes?ttl=-1",
        "routes?page=1&page_size=10",
        "history?key=routes/1",
        "plugins/cors",
    ]);
    (verbs, paths).prop_map(|(verb, path)| format!("{verb} /{path}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn requests_get_answers_and_the_state_stays_valid(requests in prop::collection::vec((line(), json_value()), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (api, keeper) = api_with(Settings::default()).await;
            for (line, body) in requests {
                let answer = call(&api, &line, body.clone()).await;
                assert!(answer.status.as_u16() < 500, "{line} {body}: {} {}", answer.status, answer.text);
                assert!(answer.status.is_success() || answer.text.contains("error_msg") || answer.text.contains("Key not found"), "{line}");
            }
            let (state, plugins) = (keeper.state(), Plugins::new());
            for kind in ResourceKind::ALL {
                for (id, stored) in state.list(kind) {
                    assert_eq!(validate(kind, id, &stored.value, &plugins).err(), None, "{kind:?} {id}");
                }
            }
        });
    }
}
