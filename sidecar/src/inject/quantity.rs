//! Kubernetes quantities, as far as a request must not exceed its limit. It does not know what is measured.

/// Suffixes and their factors in thousandths.
const SUFFIXES: [(&str, f64); 14] = [
    ("Ki", 1024e3),
    ("Mi", 1_048_576e3),
    ("Gi", 1_073_741_824e3),
    ("Ti", 1_099_511_627_776e3),
    ("Pi", 1_125_899_906_842_624e3),
    ("n", 1e-6),
    ("u", 1e-3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("", 1e3),
];

/// A positive quantity in thousandths, for comparison; `None` for what Kubernetes would refuse or what means nothing here.
#[must_use]
pub fn milli(text: &str) -> Option<f64> {
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix))?;
    let number = text.strip_suffix(suffix)?;
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && number.bytes().any(|b| b.is_ascii_digit());
    let value = if plain && number.len() <= 20 { number.parse::<f64>().ok()? * factor } else { return None };
    (value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_their_suffixes() {
        assert_eq!(milli("100m"), Some(100.0));
        assert_eq!(milli("0.1"), milli("100m"));
        assert_eq!(milli("64Mi"), milli("65536Ki"));
        assert!(milli("1Gi") > milli("1G"));
        for wrong in ["", "m", "-1", "1 Mi", "0", "0m", "1e3x", "ten", "1..2", "999999999999999999999"] {
            assert_eq!(milli(wrong), None, "{wrong}");
        }
    }
}
