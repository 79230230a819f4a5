//! Tests of `brotli`: its own fields. What it has in common with the other codings is tested in `compress`.

use serde_json::json;

use super::super::testing::faults;

#[test]
fn mistakes_are_refused() {
    for (config, paths) in
        [(json!({"mode": 3, "lgwin": 9, "lgblock": 15}), vec!["mode", "lgwin", "lgblock"]), (json!({"lgwin": 25}), vec!["lgwin"])]
    {
        assert_eq!(faults("brotli", &config), paths, "{config}");
    }
}
