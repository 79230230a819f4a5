//! Why an object is not injected: all reasons at once, each with the object, the place in it and what to do. It does not know how they are found.

use std::fmt;

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `Deployment shop/web`.
    pub object: String,
    /// Where in it (`spec.template.metadata.annotations[heddle.io/port]`); empty for the whole.
    pub place: String,
    /// What was expected, what was found, what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        f.write_str(&self.message)
    }
}

/// All reasons why an object is not injected, never none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines(.faults))]
pub struct Refusal {
    /// The reasons.
    pub faults: Vec<Fault>,
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

/// Where faults of one object are gathered.
#[derive(Debug)]
pub struct Faults {
    object: String,
    found: Vec<Fault>,
}

impl Faults {
    /// None yet.
    #[must_use]
    pub fn of(object: impl Into<String>) -> Faults {
        Faults { object: object.into(), found: Vec::new() }
    }

    /// One more.
    pub fn push(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.found.push(Fault { object: self.object.clone(), place: place.into(), message: message.into() });
    }

    /// `Ok` when there is none.
    ///
    /// # Errors
    /// All of them.
    pub fn none(self) -> Result<(), Refusal> {
        if self.found.is_empty() { Ok(()) } else { Err(Refusal { faults: self.found }) }
    }
}
