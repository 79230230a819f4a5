//! The control plane: user resources, their store, the providers that feed it, the translation into the data-plane model, and the Admin APIs. It never sees the agent.

mod access;
pub mod app;
pub mod ca;
pub mod discovery;
pub mod grpc;
pub mod leader;
pub mod mesh;
pub mod model;
pub mod provider;
pub mod rest;
pub mod seal;
pub mod settings;
pub mod state;
pub mod store;
pub mod translate;
pub mod validate;
