//! This node's service at the Consul of its host: registered, kept alive by what is true of the node and its application, taken back when it drains. It waits
//! for nobody and nobody waits for it; traffic does not know of it.

mod checks;
mod keeper;
mod registrar;
mod standing;
mod stats;
#[cfg(test)]
mod tests;

pub use registrar::{Parts, Registrar};
