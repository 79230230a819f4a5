//! The counts that were committed, and where they were taken. It judges nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

/// Counts by case, and what they hold for.
pub struct Baseline {
    /// Where they were taken: other compilers, processors and C libraries count differently.
    pub place: String,
    pub counts: Vec<(String, f64)>,
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/instructions/baseline.json")
}

impl Baseline {
    /// What is committed.
    pub fn read() -> Baseline {
        let text = fs::read_to_string(path()).unwrap_or_else(|error| panic!("{}: {error}", path().display()));
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path().display()));
        let counts = value["instructions"].as_object().expect("`instructions` is an object");
        Baseline {
            place: value["place"].as_str().unwrap_or_default().to_owned(),
            counts: counts.iter().map(|(name, count)| (name.clone(), count.as_f64().expect("counts are numbers"))).collect(),
        }
    }

    /// Counts that were taken here.
    pub fn of(counts: Vec<(&'static str, f64)>) -> Baseline {
        Baseline { place: here(), counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect() }
    }

    pub fn write(&self) {
        let counts: Map<String, Value> = self.counts.iter().map(|(name, count)| (name.clone(), json!(count.round()))).collect();
        let value = json!({ "place": self.place, "instructions": counts });
        fs::write(path(), format!("{value:#}\n")).unwrap();
        println!("{} counts written to {}; commit it", self.counts.len(), path().display());
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.counts.iter().find(|(other, _)| other == name).map(|(_, count)| *count)
    }
}

/// Compiler, processor and C library of this machine, as far as counts depend on them.
pub fn here() -> String {
    let first_line = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok();
        output.and_then(|output| Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())).unwrap_or_default()
    };
    let features = if cfg!(target_arch = "x86_64") { features() } else { String::new() };
    format!("{}, {}{features}, {}", first_line("rustc"), std::env::consts::ARCH, first_line("ldd"))
}

/// What libraries choose their loops by at run time.
#[cfg(target_arch = "x86_64")]
fn features() -> String {
    if std::is_x86_feature_detected!("avx2") { " with AVX2".to_owned() } else { String::new() }
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    String::new()
}
