//! Envoy's own types as another way to say what our model says. It knows no stream.

pub mod decode;
pub mod encode;
pub mod kind;
mod syntax;
