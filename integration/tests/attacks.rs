//! Attacks on a running gateway from both sides. Whatever is sent: one reading of each request, the right refusal, and nobody else is touched.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "attacks/admin.rs"]
mod admin;
#[path = "attacks/bodies.rs"]
mod bodies;
#[path = "attacks/fields.rs"]
mod fields;
#[path = "attacks/floods.rs"]
mod floods;
#[path = "attacks/framing.rs"]
mod framing;
#[path = "attacks/ground.rs"]
mod ground;
#[path = "attacks/h2.rs"]
mod h2;
#[path = "attacks/paths.rs"]
mod paths;
#[path = "attacks/slow.rs"]
mod slow;
#[path = "attacks/upstream.rs"]
mod upstream;
