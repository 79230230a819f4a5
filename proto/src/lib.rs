//! Protobuf of Heddle and of the xDS services that it speaks, generated from `proto/`; it holds no logic and knows no other crate.
//!
//! Only the codecs of `heddle-xds` and the gRPC services see these types.

pub mod shape;

/// The part of Envoy's xDS interface that Heddle speaks.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[path = "gen/envoy"]
pub mod envoy {
    pub mod shapes;
    pub mod admin {
        pub mod v3;
    }
    pub mod config {
        pub mod accesslog {
            pub mod v3;
        }
        pub mod cluster {
            pub mod v3;
        }
        pub mod common {
            pub mod mutation_rules {
                pub mod v3;
            }
        }
        pub mod core {
            pub mod v3;
        }
        pub mod endpoint {
            pub mod v3;
        }
        pub mod listener {
            pub mod v3;
        }
        pub mod rbac {
            pub mod v3;
        }
        pub mod route {
            pub mod v3;
        }
    }
    pub mod extensions {
        pub mod common {
            pub mod ratelimit {
                pub mod v3;
            }
        }
        pub mod compression {
            pub mod brotli {
                pub mod compressor {
                    pub mod v3;
                }
            }
            pub mod gzip {
                pub mod compressor {
                    pub mod v3;
                }
            }
            pub mod zstd {
                pub mod compressor {
                    pub mod v3;
                }
            }
        }
        pub mod filters {
            pub mod common {
                pub mod fault {
                    pub mod v3;
                }
            }
            pub mod http {
                pub mod api_key_auth {
                    pub mod v3;
                }
                pub mod buffer {
                    pub mod v3;
                }
                pub mod compressor {
                    pub mod v3;
                }
                pub mod cors {
                    pub mod v3;
                }
                pub mod csrf {
                    pub mod v3;
                }
                pub mod ext_authz {
                    pub mod v3;
                }
                pub mod fault {
                    pub mod v3;
                }
                pub mod grpc_web {
                    pub mod v3;
                }
                pub mod header_mutation {
                    pub mod v3;
                }
                pub mod health_check {
                    pub mod v3;
                }
                pub mod jwt_authn {
                    pub mod v3;
                }
                pub mod local_ratelimit {
                    pub mod v3;
                }
                pub mod lua {
                    pub mod v3;
                }
                pub mod rbac {
                    pub mod v3;
                }
                pub mod router {
                    pub mod v3;
                }
                pub mod set_metadata {
                    pub mod v3;
                }
                pub mod upstream_codec {
                    pub mod v3;
                }
            }
            pub mod listener {
                pub mod http_inspector {
                    pub mod v3;
                }
                pub mod original_dst {
                    pub mod v3;
                }
                pub mod proxy_protocol {
                    pub mod v3;
                }
                pub mod tls_inspector {
                    pub mod v3;
                }
            }
            pub mod network {
                pub mod http_connection_manager {
                    pub mod v3;
                }
                pub mod rbac {
                    pub mod v3;
                }
                pub mod tcp_proxy {
                    pub mod v3;
                }
            }
        }
        pub mod load_balancing_policies {
            pub mod common {
                pub mod v3;
            }
            pub mod least_request {
                pub mod v3;
            }
            pub mod maglev {
                pub mod v3;
            }
            pub mod random {
                pub mod v3;
            }
            pub mod ring_hash {
                pub mod v3;
            }
            pub mod round_robin {
                pub mod v3;
            }
            pub mod wrr_locality {
                pub mod v3;
            }
        }
        pub mod transport_sockets {
            pub mod raw_buffer {
                pub mod v3;
            }
            pub mod tls {
                pub mod v3;
            }
        }
        pub mod upstreams {
            pub mod http {
                pub mod v3;
            }
        }
    }
    pub mod service {
        pub mod auth {
            pub mod v3;
        }
        pub mod discovery {
            pub mod v3;
        }
        pub mod load_stats {
            pub mod v3;
        }
        pub mod secret {
            pub mod v3;
        }
        pub mod status {
            pub mod v3;
        }
    }
    pub mod r#type {
        pub mod matcher {
            pub mod v3;
        }
        pub mod v3;
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
