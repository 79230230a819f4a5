//! The Prometheus text format, version 0.0.4, written piece by piece.

use std::fmt::Write;

use super::stats::{BUCKETS, Durations};

/// Writes families and samples. Label values are escaped; names are ours.
#[derive(Debug, Default)]
pub struct TextWriter {
    text: String,
}

impl TextWriter {
    /// An empty page.
    pub fn new() -> TextWriter {
        TextWriter::default()
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }

    /// Opens a family: its samples must follow at once.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// A histogram of durations.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], durations: &Durations) {
        let mut running = 0;
        for (slot, count) in durations.counts.iter().enumerate() {
            running += count;
            let bound = BUCKETS.get(slot).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let _ = write!(self.text, "{name}_bucket");
            self.labels(labels, Some(&bound));
            let _ = writeln!(self.text, " {running}");
        }
        let _ = write!(self.text, "{name}_sum");
        self.labels(labels, None);
        let _ = writeln!(self.text, " {}", durations.sum_micros as f64 / 1e6);
        let _ = write!(self.text, "{name}_count");
        self.labels(labels, None);
        let _ = writeln!(self.text, " {running}");
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        if labels.is_empty() && bound.is_none() {
            return;
        }
        self.text.push('{');
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (at, (name, value)) in all.enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            let _ = write!(self.text, "{name}=\"");
            for character in value.chars() {
                match character {
                    '"' => self.text.push_str("\\\""),
                    '\\' => self.text.push_str("\\\\"),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        self.text.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        let mut durations = Durations::default();
        durations.counts[2] = 1;
        let mut page = TextWriter::new();
        page.family("t", "histogram", "Time.");
        page.histogram("t", &[("route", "a\"b\\c\nd")], &durations);
        let text = page.finish();
        assert!(text.contains("t_bucket{route=\"a\\\"b\\\\c\\nd\",le=\"0.001\"} 0\n"), "{text}");
        assert!(text.contains("le=\"0.0025\"} 1\n") && text.contains("le=\"+Inf\"} 1\n") && text.contains("t_count{"), "{text}");
    }
}
