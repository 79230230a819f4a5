//! Protobuf of Heddle and of the xDS services that it speaks, generated from `proto/`; it holds no logic and knows no other crate.
//!
//! Only the codecs of `heddle-xds` and the gRPC services see these types.

/// The part of Envoy's xDS interface that Heddle speaks.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "gen/envoy"]
pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3;
        }
        pub mod endpoint {
            pub mod v3;
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3;
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3;
        }
        pub mod secret {
            pub mod v3;
        }
    }
}

/// What gRPC itself defines.
#[rustfmt::skip]
#[allow(missing_docs, clippy::all)]
#[path = "gen/google"]
pub mod google {
    pub mod rpc;
}

/// Heddle's own packages.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "gen/heddle"]
pub mod heddle {
    pub mod admin {
        pub mod v1;
    }
    pub mod config {
        pub mod v1;
    }
    pub mod identity {
        pub mod v1;
    }
}

/// The SPIFFE Workload API, which has no package.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "gen/spiffe"]
pub mod spiffe {
    pub mod workload;
}

/// The part of etcd's interface that Heddle speaks.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "gen/etcd"]
pub mod etcd {
    pub mod etcdserverpb;
    pub mod mvccpb;
}
