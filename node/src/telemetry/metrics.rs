//! What every process exports, and how it is written down. It knows no particular metric.

use prometheus::{Encoder, IntGauge, Opts, Registry, TextEncoder};

/// The media type of [`expose`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Registers `heddle_build_info{version,role} 1`.
///
/// # Errors
/// It is registered already.
pub fn build_info(registry: &Registry, version: &str, role: &str) -> Result<(), prometheus::Error> {
    let options = Opts::new("heddle_build_info", "Which build this is; always 1.")
        .const_label("version", version)
        .const_label("role", role);
    let gauge = IntGauge::with_opts(options)?;
    gauge.set(1);
    registry.register(Box::new(gauge))
}

/// All metrics of `registry` in Prometheus' text format, of type [`TEXT_FORMAT`].
///
/// # Errors
/// A metric family is inconsistent.
pub fn expose(registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_build_is_exposed() {
        let registry = Registry::new();
        build_info(&registry, "1.2.3", "agent").unwrap();
        let text = String::from_utf8(expose(&registry).unwrap()).unwrap();
        assert!(text.contains("heddle_build_info{role=\"agent\",version=\"1.2.3\"} 1"), "{text}");
        assert!(build_info(&registry, "1.2.3", "agent").is_err());
    }
}
