//! The room of a sidecar's own life: injection, the admission webhook, capture of traffic, the process wrapper. It is empty until the mesh moves in, and no other crate sees it but the binary.
