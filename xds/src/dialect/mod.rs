//! Other ways to say what our model says. They know no stream.

pub mod envoy;
