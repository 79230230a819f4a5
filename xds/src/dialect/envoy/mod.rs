//! Envoy's own types as another way to say what our model says. It knows no stream and no snapshot.

pub mod decode;
pub mod kind;
