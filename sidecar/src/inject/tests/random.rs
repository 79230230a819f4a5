//! Random workloads: taking out undoes putting in, putting in twice is putting in once, and the API knows all of it.

use proptest::prelude::*;

use super::kinds::{KINDS, known_to_the_api, workload};
use super::*;

/// Something, or one of the ways in which it is not there.
fn maybe(value: impl Strategy<Value = Value> + 'static, empty: Value) -> BoxedStrategy<Option<Value>> {
    prop_oneof![Just(None), Just(Some(Value::Null)), Just(Some(empty)), value.prop_map(Some)].boxed()
}

fn object(fields: Vec<(&'static str, Option<Value>)>) -> Value {
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

fn handler() -> impl Strategy<Value = Value> {
    let port = prop_oneof![(1_u16..15_000).prop_map(Value::from), Just(Value::from("main")), Just(Value::from("8080"))];
    prop_oneof![
        ("/[a-z${}?=]{0,8}", port.clone(), proptest::option::of(Just("HTTPS"))).prop_map(|(path, port, scheme)| {
            object(vec![(
                "httpGet",
                Some(object(vec![("path", Some(path.into())), ("port", Some(port)), ("scheme", scheme.map(Value::from))])),
            )])
        }),
        port.prop_map(|port| json!({ "tcpSocket": { "port": port } })),
        Just(json!({ "exec": { "command": ["true"] } })),
        Just(json!({ "httpGet": { "host": "elsewhere", "port": 80 } })),
    ]
}

fn probe() -> impl Strategy<Value = Option<Value>> {
    proptest::option::of((handler(), proptest::option::of(1..60_i32)).prop_map(|(mut handler, period)| {
        if let Some(period) = period {
            handler["periodSeconds"] = period.into();
        }
        handler
    }))
}

fn container(name: String) -> impl Strategy<Value = Value> {
    (probe(), probe(), probe(), 1_u16..15_000).prop_map(move |(ready, live, start, port)| {
        object(vec![
            ("name", Some(name.as_str().into())),
            ("image", Some("app:1".into())),
            ("ports", Some(json!([{ "name": "main", "containerPort": port }]))),
            ("readinessProbe", ready),
            ("livenessProbe", live),
            ("startupProbe", start),
        ])
    })
}

fn containers(start: &'static str, most: usize) -> impl Strategy<Value = Value> {
    (1..=most)
        .prop_flat_map(move |count| (0..count).map(|i| container(format!("{start}-{i}"))).collect::<Vec<_>>())
        .prop_map(Value::from)
}

fn template() -> impl Strategy<Value = Value> {
    let labels = maybe(Just(json!({ "app": "web", "tier": "front" })), json!({}));
    let annotations = prop_oneof![
        Just(json!({ "team": "x" })),
        Just(json!({ "heddle.io/capture": "off" })),
        Just(json!({ "heddle.io/exclude-outbound-ports": "25", "heddle.io/protocol": "tcp" })),
    ];
    let metadata = maybe(
        (labels, maybe(annotations, json!({})))
            .prop_map(|(labels, annotations)| object(vec![("labels", labels), ("annotations", annotations)])),
        json!({}),
    );
    let volumes = maybe(Just(json!([{ "name": "v", "emptyDir": {} }])), json!([]));
    (metadata, containers("app", 3), maybe(containers("init", 2), json!([])), volumes).prop_map(
        |(metadata, containers, init, volumes)| {
            let spec = object(vec![("initContainers", init), ("containers", Some(containers)), ("volumes", volumes)]);
            object(vec![("metadata", metadata), ("spec", Some(spec))])
        },
    )
}

/// Without what is nothing, as the API's types write it.
fn tidy(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(tidy).collect(),
        Value::Object(map) => {
            map.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), tidy(value))).collect()
        }
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn taking_out_undoes_putting_in(template in template(), kind in 0..KINDS.len(), next in any::<bool>()) {
        let object = match KINDS[kind] {
            "Pod" => {
                let mut pod = workload("Pod", template);
                if !pod["metadata"].is_object() {
                    pod["metadata"] = json!({});
                }
                pod["metadata"]["name"] = "web-1".into();
                pod
            }
            other => workload(other, template),
        };
        let settings = InjectSettings::default();
        let once = inject(&object, &settings).unwrap();
        prop_assert_eq!(once.change, Change::Changed);
        prop_assert_eq!(&uninject(&once.object).unwrap().object, &object);
        let twice = inject(&once.object, &settings).unwrap();
        prop_assert_eq!((&twice.object, twice.change), (&once.object, Change::Unchanged));
        let newer = InjectSettings { image: "heddle:next".into(), capture: if next { Capture::Off } else { Capture::Redirect }, ..settings };
        let upgraded = inject(&once.object, &newer).unwrap();
        prop_assert_eq!(&upgraded.object, &inject(&object, &newer).unwrap().object);
        prop_assert_eq!(&uninject(&upgraded.object).unwrap().object, &object);
        let plain = inject(&tidy(&object), &InjectSettings::default()).unwrap();
        known_to_the_api(&plain.object);
        let text = transform("x", &object.to_string(), Task::Uninject).unwrap();
        prop_assert_eq!(text.changed, 0);
    }

    #[test]
    fn nothing_that_is_called_a_workload_makes_it_panic(kind in 0..KINDS.len(), spec in any_value(), metadata in any_value()) {
        let object = workload(KINDS[kind], json!({ "metadata": metadata, "spec": spec }));
        if let Ok(done) = inject(&object, &InjectSettings::default()) {
            prop_assert_eq!(uninject(&done.object).unwrap().object, object);
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        "[a-z/.]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let keys = proptest::sample::select(vec![
            "containers",
            "initContainers",
            "volumes",
            "annotations",
            "labels",
            "name",
            "ports",
            "readinessProbe",
            "httpGet",
            "port",
        ]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec((keys, inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}
