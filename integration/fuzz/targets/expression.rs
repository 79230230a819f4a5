//! Expressions: whatever compiles is judged the same twice, and its negation the other way. Input: a target, a header value, and JSON, a line each.
#![no_main]

use heddle_agent::exchange::Expr;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[path = "common.rs"]
mod common;

fuzz_target!(|data: &[u8]| {
    let Some(([target, value], source)) = common::lines(data) else { return };
    let Ok(source) = serde_json::from_str::<Value>(source) else { return };
    let Ok(expr) = Expr::compile(&source) else { return };
    let x = common::exchange("GET", target, value);
    let holds = expr.matches(&x);
    assert_eq!(holds, expr.matches(&x), "{source}");
    // Every expression that is a list of conditions may stand in a group.
    let always = json!(["host", "==", common::HOST]);
    let group = |word: &str| Expr::compile(&json!([[word, always, source]])).map(|expr| expr.matches(&x));
    if let Ok(both) = group("AND") {
        assert_eq!(both, holds, "{source}");
        assert_eq!(group("!AND"), Ok(!holds), "{source}");
        assert_eq!(group("OR"), Ok(true), "{source}");
    }
});
