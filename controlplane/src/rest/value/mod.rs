//! What is done with JSON values on their way in and out: reading bodies, patching, filtering lists, masking. Functions of values.

pub(super) mod body;
pub(super) mod list;
pub(super) mod patch;
