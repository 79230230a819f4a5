//! Client machines: what is held, what is refused, and what is said about it.
