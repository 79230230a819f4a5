//! The only binary: reads arguments and wires the floors together.
fn main() {}
