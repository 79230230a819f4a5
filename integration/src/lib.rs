//! The harness of the stories: real processes on loopback addresses of their own, and clients to talk to them. It knows Heddle only from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod ads;
pub mod app;
pub mod attack;
pub mod certificates;
pub mod churn;
pub mod client;
pub mod consul;
pub mod echo;
pub mod envoy;
pub mod envoy_mesh;
pub mod etcd;
pub mod fleet;
pub mod greeter;
pub mod heddle;
pub mod judge;
pub mod load;
pub mod measure;
pub mod mesh;
pub mod network;
pub mod nginx;
pub mod openssl;
pub mod pages;
pub mod place;
pub mod process;
pub mod proxyless;
pub mod python;
pub mod raw;
pub mod redis;
pub mod replicas;
pub mod separate;
pub mod slapd;
pub mod traffic;
