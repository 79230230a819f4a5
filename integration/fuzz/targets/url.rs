//! URLs of servers to ask: whatever is taken can stand in a request, and is read as the same one again.
#![no_main]

use heddle_agent::outbound::Url;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Url::parse(text) {
        Ok(url) => {
            assert!(url.target.starts_with('/') && url.port > 0 && !url.host.is_empty());
            assert!(url.target.bytes().chain(url.authority.bytes()).all(|byte| byte.is_ascii_graphic()));
            let scheme = if url.https { "https" } else { "http" };
            let again = Url::parse(&format!("{scheme}://{}{}", url.authority, url.target));
            assert_eq!(again, Ok(url));
        }
        Err(why) => assert!(why.len() < 1024, "{why}"),
    }
});
