//! Tests of `gzip`: its own fields. What it has in common with the other codings is tested in `compress`.

use serde_json::json;

use super::super::testing::faults;

#[test]
fn mistakes_are_refused() {
    for (config, paths) in [
        (json!({"buffers": {"number": 0, "size": 0}}), vec!["buffers.number", "buffers.size"]),
        (json!({"comp_level": 0}), vec!["comp_level"]),
    ] {
        assert_eq!(faults("gzip", &config), paths, "{config}");
    }
}
