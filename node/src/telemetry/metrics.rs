//! What every process exports, and how it is written down. It knows no particular metric.

use prometheus::{Encoder, Registry, TextEncoder};

/// The media type of [`expose`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

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

    use prometheus::IntGauge;

    use super::*;

    #[test]
    fn what_is_registered_is_written_down() {
        let registry = Registry::new();
        let gauge = IntGauge::new("heddle_things", "Things.").unwrap();
        gauge.set(3);
        registry.register(Box::new(gauge)).unwrap();
        let text = String::from_utf8(expose(&registry).unwrap()).unwrap();
        assert_eq!(text, "# HELP heddle_things Things.\n# TYPE heddle_things gauge\nheddle_things 3\n");
    }
}
