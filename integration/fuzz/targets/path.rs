//! Paths: what is normalised is normal, climbs nowhere and can stand in a request line.
#![no_main]

use heddle_agent::exchange::path::normalise;
use heddle_xds::model::PathPolicy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&policy, data)) = data.split_first() else { return };
    let Ok(raw) = std::str::from_utf8(data) else { return };
    let policy = PathPolicy { merge_slashes: policy & 1 == 0, reject_encoded_slashes: policy & 2 == 0, drop_underscore_headers: true };
    let Ok(found) = normalise(raw, &policy) else { return };
    let normal = found.as_deref().unwrap_or(raw);
    if normal == "*" {
        return;
    }
    assert_eq!(normalise(normal, &policy).map(|again| again.is_none_or(|again| again == normal)), Ok(true), "{raw} {normal}");
    assert!(normal.starts_with('/') && normal.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'?')));
    assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{raw} {normal}");
    assert!(!policy.merge_slashes || !normal.contains("//"), "{raw} {normal}");
    let encoded = normal.to_ascii_lowercase();
    assert!(!policy.reject_encoded_slashes || !(encoded.contains("%2f") || encoded.contains("%5c")), "{raw} {normal}");
});
