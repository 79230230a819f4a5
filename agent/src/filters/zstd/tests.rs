//! Tests of `zstd`: its own fields. What it has in common with the other codings is tested in `compress`.

use serde_json::json;

use super::super::testing::faults;

#[test]
fn mistakes_are_refused() {
    for (config, paths) in [
        (json!({"window_log": 9}), vec!["window_log"]),
        (json!({"window_log": 24, "comp_level": 0}), vec!["comp_level", "window_log"]),
    ] {
        assert_eq!(faults("zstd", &config), paths, "{config}");
    }
}
