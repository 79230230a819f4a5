//! The discovery services that are for one type each, for nodes that take some of their resources from elsewhere. They know only their names.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codegen::{Body, StdError, http};
use tonic::server::NamedService;

use super::AdsService;
use crate::model::Kind;
use crate::protocol::Dialect;

/// The service for clusters.
pub const CDS: usize = 0;
/// The service for endpoints.
pub const EDS: usize = 1;
/// The service for routes.
pub const RDS: usize = 2;
/// The service for listeners.
pub const LDS: usize = 3;
/// The service for certificates.
pub const SDS: usize = 4;

/// The kinds, by service.
const KINDS: [Kind; 5] = [Kind::Upstream, Kind::Endpoints, Kind::Route, Kind::Listener, Kind::Secret];

/// The service for one type: [`CDS`], [`EDS`], [`RDS`], [`LDS`] or [`SDS`].
#[derive(Clone)]
pub struct TypeServer<const TYPE: usize> {
    service: Arc<AdsService>,
}

impl<const TYPE: usize> TypeServer<TYPE> {
    pub(super) fn new(service: Arc<AdsService>) -> Self {
        TypeServer { service }
    }
}

impl NamedService for TypeServer<CDS> {
    const NAME: &'static str = "envoy.service.cluster.v3.ClusterDiscoveryService";
}

impl NamedService for TypeServer<EDS> {
    const NAME: &'static str = "envoy.service.endpoint.v3.EndpointDiscoveryService";
}

impl NamedService for TypeServer<RDS> {
    const NAME: &'static str = "envoy.service.route.v3.RouteDiscoveryService";
}

impl NamedService for TypeServer<LDS> {
    const NAME: &'static str = "envoy.service.listener.v3.ListenerDiscoveryService";
}

impl NamedService for TypeServer<SDS> {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl<const TYPE: usize, B> tower::Service<http::Request<B>> for TypeServer<TYPE>
where
    B: Body + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        ready(Ok(self.service.answer(method(request.uri().path()), KINDS.get(TYPE).copied(), request)))
    }
}

/// How a method speaks: all of these services have two, `Delta…` and `Stream…`, beside one by REST.
fn method(path: &str) -> Option<Dialect> {
    match path.rsplit_once('/') {
        Some((_, name)) if name.starts_with("Delta") => Some(Dialect::Delta),
        Some((_, name)) if name.starts_with("Stream") => Some(Dialect::Sotw),
        _ => None,
    }
}
