//! Tests of expressions, against cases by hand and a naive evaluator.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::request;
use super::*;

fn sample() -> Exchange {
    let fields = [("X-Tag", "a"), ("X-Tag", "b"), ("X-Num", "10"), ("Cookie", "c=Blue")];
    request("GET", "h.example", "/p?n=5&hex=0x1F&e=&w=word", &fields)
}

fn holds(source: Value) -> bool {
    match Expr::compile(&source) {
        Ok(expr) => expr.matches(&sample()),
        Err(error) => panic!("{source}: {error}"),
    }
}

#[test]
fn every_operator_holds_where_it_should() {
    for source in [
        json!([]),
        json!([["host", "==", "h.example"]]),
        json!([["host", "h.example"]]),
        json!([["arg_n", "==", 5]]),
        json!([["arg_n", "==", "5"]]),
        json!([["arg_n", "~=", 6]]),
        json!([["arg_w", "~=", 6]]),
        json!([["arg_none", "~=", "x"]]),
        json!([["arg_none", "==", null]]),
        json!([["arg_e", "~=", null]]),
        json!([["arg_hex", "==", 31]]),
        json!([["http_x_num", ">", 9], ["http_x_num", ">=", "10"], ["http_x_num", "<", 11], ["http_x_num", "<=", 10]]),
        json!([["cookie_c", "~~", "^Bl"]]),
        json!([["cookie_c", "~*", "^bl"]]),
        json!([["arg_w", "IN", ["x", "word"]]]),
        json!([["arg_n", "!", "in", [5]]]),
        json!([["http_x_tag", "has", "b"]]),
        json!([["remote_addr", "ipmatch", "192.0.2.0/24"]]),
        json!([["remote_addr", "ipmatch", ["::1", "192.0.2.7"]]]),
        json!([["arg_none", "!", "~~", "x"]]),
        json!(["OR", ["arg_n", "==", "9"], ["arg_n", "==", "5"]]),
        json!(["!AND", ["arg_n", "==", "9"], ["arg_n", "==", "5"]]),
        json!([["or", ["arg_n", "==", "9"], ["AND", ["host", "~~", "h"], ["!OR", ["uri", "/a"], ["uri", "/b"]]]]]),
        json!([[["arg_n", "==", "5"]], [["arg_w", "==", "word"]]]),
    ] {
        assert!(holds(source.clone()), "{source}");
    }
}

#[test]
fn every_operator_fails_where_it_should() {
    for source in [
        json!([["host", "==", "other"]]),
        json!([["arg_n", "~=", 5]]),
        json!([["arg_w", "==", 5]]),
        json!([["arg_w", ">", 1]]),
        json!([["arg_none", "<", 1]]),
        json!([["arg_none", "~~", ".*"]]),
        json!([["arg_n", "in", [5]]]),
        json!([["arg_n", "==", true]]),
        json!([["http_x_tag", "has", "c"]]),
        json!([["host", "ipmatch", "0.0.0.0/0"]]),
        json!([["arg_w", "==", "word"], ["arg_n", "==", "6"]]),
        json!(["!OR", ["arg_n", "==", "9"], ["arg_n", "==", "5"]]),
    ] {
        assert!(!holds(source.clone()), "{source}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (source, path, part) in [
        (json!({}), "", "array of conditions"),
        (json!(["host", "==", "x"]), "", "wrapped inside brackets"),
        (json!([["host"]]), "[0]", "[variable, operator, value]"),
        (json!([["host", "=~", "x"]]), "[0]", "unknown operator `=~`"),
        (json!([["a", "==", "1"], ["host", "~~", "("]]), "[1][2]", "unclosed group"),
        (json!([["host", "!", "~~", "(?=x)"]]), "[0][3]", "linear time"),
        (json!([["remote_addr", "ipmatch", ["1.2.3.4", "nope"]]]), "[0][2][1]", "IP address"),
        (json!([["host", "in", "x"]]), "[0][2]", "array"),
        (json!([["host", ">", "x"]]), "[0][2]", "number"),
        (json!([["OR", ["a", "==", "1"]]]), "[0]", "at least two"),
        (json!([["OR", ["a", "==", "1"], "x"]]), "[0][2]", "a condition"),
        (json!([[1, "==", "1"]]), "[0][0]", "variable name"),
        (json!([[]]), "[0]", "empty array"),
        (json!([["a", 1, "x"]]), "[0][1]", "operator"),
    ] {
        let error = Expr::compile(&source).unwrap_err();
        assert_eq!(error.path, path, "{source}");
        assert!(error.message.contains(part), "{source}: {}", error.message);
    }
}

#[test]
fn depth_and_size_are_bounded() {
    let mut deep = json!(["a", "==", "1"]);
    for _ in 0..20 {
        deep = json!([deep]);
    }
    assert!(Expr::compile(&deep).unwrap_err().message.contains("deeper"));
    let many = vec![json!(["a", "==", "1"]); 2000];
    assert!(Expr::compile(&Value::Array(many)).unwrap_err().message.contains("more than"));
}

#[test]
fn one_of_several_fields_of_a_name_is_enough_and_all_are_asked_where_it_is_turned_around() {
    let said = |values: &[&str]| {
        let fields: Vec<(&str, &str)> = values.iter().map(|value| ("x-a", *value)).collect();
        request("GET", "h.example", "/", &fields)
    };
    let holds = |test: Value, values: &[&str]| Expr::compile(&json!([test])).unwrap().matches(&said(values));
    assert!(holds(json!(["field_x-a", "==", "abc"]), &["x", "abc"]) && !holds(json!(["field_x-a", "==", "a, b"]), &["a", "b"]));
    assert!(holds(json!(["field_x-a", "~~", "^b"]), &["a", "b"]) && !holds(json!(["field_x-a", "!", "~~", "^b"]), &["a", "b"]));
    assert!(!holds(json!(["field_x-a", "~=", "abc"]), &["x", "abc"]) && holds(json!(["field_x-a", "~=", null]), &["x"]));
    let between = json!(["field_x-a", "between", [1, 5]]);
    assert!(holds(between.clone(), &["9", "1"]) && holds(between.clone(), &["+4"]));
    assert!(!holds(between.clone(), &["0", "9"]) && !holds(between.clone(), &["5"]) && !holds(between, &["1, 9"]));
}

/// Evaluates the JSON form directly, the slow way.
fn naive(node: &Value, x: &Exchange) -> bool {
    let items = node.as_array().unwrap();
    let Some(word) = items[0].as_str() else { return items.iter().all(|item| naive(item, x)) };
    match word {
        "AND" => items[1..].iter().all(|item| naive(item, x)),
        "OR" => items[1..].iter().any(|item| naive(item, x)),
        "!AND" => !items[1..].iter().all(|item| naive(item, x)),
        "!OR" => !items[1..].iter().any(|item| naive(item, x)),
        name => {
            let left = Variable::new(name).get(x).map(|text| text.into_owned());
            let (negated, op, right) = match &items[1..] {
                [_, op, right] => (true, op, right),
                [op, right] => (false, op, right),
                _ => panic!("{node}"),
            };
            negated != naive_test(left.as_deref(), op.as_str().unwrap(), right)
        }
    }
}

fn naive_test(left: Option<&str>, op: &str, right: &Value) -> bool {
    let number = left.and_then(|left| left.parse::<f64>().ok());
    match op {
        "==" if right.is_number() => number.is_some() && number == right.as_f64(),
        "~=" if right.is_number() => !(number.is_some() && number == right.as_f64()),
        "==" => left == right.as_str(),
        "~=" => left != right.as_str(),
        "<" => number.is_some_and(|number| number < right.as_f64().unwrap()),
        ">=" => number.is_some_and(|number| number >= right.as_f64().unwrap()),
        "in" => right.as_array().unwrap().iter().any(|item| item.as_str().is_some() && item.as_str() == left),
        _ => panic!("{op}"),
    }
}

fn any_condition() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["arg_n", "arg_w", "arg_none", "host", "http_x_num"]);
    let text = prop::sample::select(vec!["5", "word", "10", "h.example", ""]);
    let test = prop_oneof![
        (prop::sample::select(vec!["==", "~="]), text.prop_map(|text| json!(text))),
        (prop::sample::select(vec!["==", "~=", "<", ">="]), (0..12).prop_map(|number| json!(number))),
        (Just("in"), prop::sample::subsequence(vec![json!("5"), json!("word"), json!(5)], 0..3).prop_map(Value::Array)),
    ];
    (name, any::<bool>(), test)
        .prop_map(|(name, not, (op, value))| if not { json!([name, "!", op, value]) } else { json!([name, op, value]) })
}

fn any_expr() -> impl Strategy<Value = Value> {
    let tree = any_condition().prop_recursive(4, 24, 4, |inner| {
        (prop::sample::select(vec!["AND", "OR", "!AND", "!OR"]), prop::collection::vec(inner, 2..4)).prop_map(
            |(word, members)| {
                let mut group = vec![json!(word)];
                group.extend(members);
                Value::Array(group)
            },
        )
    });
    prop::collection::vec(tree, 1..4).prop_map(Value::Array)
}

proptest! {
    #[test]
    fn the_compiled_form_agrees_with_the_naive_one(source in any_expr()) {
        let x = sample();
        prop_assert_eq!(Expr::compile(&source).unwrap().matches(&x), naive(&source, &x), "{}", source);
    }
}
