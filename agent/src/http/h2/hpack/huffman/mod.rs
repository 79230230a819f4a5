//! The static code for strings (RFC 7541 section 5.2 and appendix B). It knows no fields.

mod code;
mod decode;
mod encode;

pub(super) use decode::decode;
pub(super) use encode::encode;
