//! Templates: one without signs is its own text, and what is rendered is as long as its parts. Input: a target, a header value, and the template.
#![no_main]

use heddle_agent::exchange::Template;
use libfuzzer_sys::fuzz_target;

#[path = "common.rs"]
mod common;

fuzz_target!(|data: &[u8]| {
    let Some(([target, value], source)) = common::lines(data) else { return };
    let x = common::exchange("GET", target, value);
    for template in [Template::new(source), Template::replacement(source)] {
        let text = template.render(&x);
        assert_eq!(text, template.render(&x));
        if let Some(literal) = template.literal() {
            assert_eq!(literal, text);
        }
        if let Some(variable) = template.variable() {
            assert_eq!(variable.get(&x).unwrap_or_default(), text);
        }
        let mut mapped = String::new();
        template.render_mapped(&x, &["whole", "first"], &mut mapped, |text, out| out.extend(text.chars().map(|_| '.')));
    }
    if !source.contains(['$', '\\']) {
        assert_eq!(Template::new(source).literal(), Some(source));
    }
});
