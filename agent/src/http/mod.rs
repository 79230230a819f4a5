//! HTTP messages as the agent handles them: fields, heads, bodies, and the wire codecs below. It knows no routes, no sockets and no pools.

pub mod h1;
pub mod h2;

mod body;
mod case;
pub(crate) mod chars;
pub mod digits;
mod field_name;
pub(crate) mod fields;
pub mod grpc;
mod head;
mod heard;
mod method;
mod name;

pub use body::{Body, BodyError, BodySource, Frame, takes_trailers};
pub use case::{CASE_FIELD, note_case, restore_case};

/// The private field by which a peer of the mesh says which port of the application it means, where that is not the one that it has by itself. As with
/// [`CASE_FIELD`], it goes between peers of the mesh only.
pub const PORT_FIELD: &str = "x-heddle-port";
pub use field_name::FieldName;
pub use fields::Fields;
pub use head::{RequestHead, ResponseHead, Version, reason_phrase};
pub use heard::{Greeting, Heard};
pub use method::Method;
pub use name::Name;
