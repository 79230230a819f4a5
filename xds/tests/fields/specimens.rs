//! One right message of each type that has to say something, some in several forms: where it stands decides which is right. It knows no decoder.

use serde_json::{Value, json};

/// The forms of a message; an empty one where nothing must be said.
pub fn of(message: &str) -> Vec<Value> {
    let name = message.strip_prefix("envoy.").unwrap_or(message);
    let found = resources(name)
        .or_else(|| routes(name))
        .or_else(|| matchers(name))
        .or_else(|| clusters(name))
        .or_else(|| endpoints(name))
        .or_else(|| tls(name))
        .or_else(|| filters(name))
        .or_else(|| guards(name))
        .or_else(|| tokens(name));
    match found {
        Some(Value::Array(forms)) => forms,
        Some(form) => vec![form],
        None => vec![json!({})],
    }
}

/// A message that says its type.
pub fn any(name: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/envoy.{name}"));
    value
}

fn first(name: &str) -> Value {
    of(&format!("envoy.{name}")).swap_remove(0)
}

fn resources(name: &str) -> Option<Value> {
    let manager = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let proxy = "extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let filter = |kind: &str| json!({"name": "f", "typed_config": any(kind, first(kind))});
    let address = || json!({"socket_address": {"address": "127.0.0.1", "port_value": 10000}});
    let router = || any("extensions.filters.http.router.v3.Router", json!({}));
    let discovery = || json!({"config_source": {"ads": {}}, "type_urls": ["x"]});
    Some(match name {
        "config.listener.v3.Listener" => {
            let listener =
                |kind: &str| json!({"name": "l", "address": address(), "filter_chains": [{"filters": [filter(kind)]}]});
            json!([listener(manager), listener(proxy)])
        }
        "config.listener.v3.FilterChain" => json!([{"filters": [filter(manager)]}, {"filters": [filter(proxy)]}]),
        "config.listener.v3.Filter" => json!([filter(manager), filter(proxy)]),
        "config.listener.v3.FilterChainMatch" => json!({"server_names": ["a.example"]}),
        "config.listener.v3.ListenerFilter" => {
            json!({"name": "f", "typed_config": any("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}))})
        }
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            json!([{"route_config": first("config.route.v3.RouteConfiguration")}, {"rds": {"config_source": {"ads": {}}, "route_config_name": "r"}}])
        }
        "extensions.filters.network.http_connection_manager.v3.Rds" => {
            json!({"config_source": {"ads": {}}, "route_config_name": "r"})
        }
        "extensions.filters.network.http_connection_manager.v3.HttpFilter" => {
            json!([{"name": "f", "typed_config": router()}, {"name": "f", "config_discovery": discovery()}])
        }
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig"
        | "config.route.v3.RouteAction.UpgradeConfig" => json!({"upgrade_type": "websocket"}),
        "config.core.v3.ExtensionConfigSource" => discovery(),
        "config.core.v3.TypedExtensionConfig" => {
            let gzip = any("extensions.compression.gzip.compressor.v3.Gzip", json!({}));
            let robin = any("extensions.load_balancing_policies.round_robin.v3.RoundRobin", json!({}));
            json!([{"name": "f", "typed_config": router()}, {"name": "f", "typed_config": gzip}, {"name": "f", "typed_config": robin}])
        }
        "extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            json!([{"cluster": "c"}, {"weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]}}])
        }
        "config.core.v3.ConfigSource" => json!([{"ads": {}}, {"self": {}}]),
        "config.core.v3.Address" => address(),
        "config.core.v3.SocketAddress" => json!({"address": "127.0.0.1", "port_value": 10000}),
        "config.core.v3.DataSource" => {
            json!([{"inline_string": "x"}, {"inline_string": "{\"keys\": [{\"kty\": \"EC\"}]}"}, {"inline_bytes": "eyJrZXlzIjogW3sia3R5IjogIkVDIn1dfQ=="}])
        }
        _ => return None,
    })
}

fn routes(name: &str) -> Option<Value> {
    let cluster = || json!({"name": "c", "weight": 1});
    let option = || json!({"header": {"key": "x-a", "value": "b"}});
    Some(match name {
        "config.route.v3.RouteConfiguration" => json!({"name": "r", "virtual_hosts": [first("config.route.v3.VirtualHost")]}),
        "config.route.v3.VirtualHost" => json!({"name": "v", "domains": ["*"], "routes": [first("config.route.v3.Route")]}),
        "config.route.v3.Route" => json!([
            {"match": {"prefix": "/"}, "route": {"cluster": "c"}},
            {"match": {"prefix": "/"}, "redirect": {}},
            {"match": {"prefix": "/"}, "direct_response": {"status": 200}},
        ]),
        "config.route.v3.RouteMatch" => json!({"prefix": "/"}),
        "config.route.v3.RouteAction" => json!([{"cluster": "c"}, {"weighted_clusters": {"clusters": [cluster()]}}]),
        "config.route.v3.WeightedCluster" | "extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster" => {
            json!({"clusters": [cluster()]})
        }
        "config.route.v3.WeightedCluster.ClusterWeight"
        | "extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight" => cluster(),
        "config.route.v3.DirectResponseAction" => json!({"status": 200}),
        "config.route.v3.RouteAction.RequestMirrorPolicy" => json!({"cluster": "m"}),
        "config.route.v3.RouteAction.HashPolicy" => json!({"header": {"header_name": "x-a"}}),
        "config.route.v3.RouteAction.HashPolicy.Header" => json!({"header_name": "x-a"}),
        "config.route.v3.RouteAction.HashPolicy.Cookie" | "config.route.v3.RouteAction.HashPolicy.QueryParameter" => {
            json!({"name": "a"})
        }
        "config.route.v3.RouteAction.HashPolicy.ConnectionProperties" => json!({"source_ip": true}),
        "type.v3.HashPolicy" => json!({"source_ip": {}}),
        "config.route.v3.RetryPolicy" => json!({"retry_on": "5xx,retriable-status-codes"}),
        "config.route.v3.RetryPolicy.RetryHostPredicate" => json!({"name": "envoy.retry_host_predicates.previous_hosts"}),
        "config.route.v3.RetryPolicy.RetryPriority" => json!({"name": "envoy.retry_priorities.previous_priorities"}),
        "config.core.v3.HeaderValueOption" => {
            let mut set = option();
            set["append_action"] = json!(2);
            json!([set, option(), {"header": {"key": "x-a", "value": "b"}, "append": false}])
        }
        "config.core.v3.HeaderValue" => json!([{"key": "x-a", "value": "b"}, {"key": "x-a", "raw_value": "eA=="}]),
        "config.route.v3.FilterConfig" => {
            json!([{"disabled": true}, {"config": any("extensions.filters.http.fault.v3.HTTPFault", json!({}))}])
        }
        _ => return None,
    })
}

fn matchers(name: &str) -> Option<Value> {
    Some(match name {
        "type.matcher.v3.RegexMatcher" => json!([{"regex": "x"}, {"regex": "^/x"}, {"regex": "PUT"}]),
        "type.matcher.v3.RegexMatchAndSubstitute" => json!({"pattern": {"regex": "^/x"}, "substitution": "/y"}),
        "type.matcher.v3.StringMatcher" => json!({"exact": "a.example"}),
        "type.matcher.v3.ListStringMatcher" => json!({"patterns": [{"exact": "x"}]}),
        "type.matcher.v3.PathMatcher" => json!({"path": {"exact": "/"}}),
        "config.route.v3.HeaderMatcher" => json!([
            {"name": "x-a"},
            {"name": "x-a", "string_match": {"exact": "b"}},
            {"name": "x-a", "string_match": {"exact": "b"}, "invert_match": true},
            {"name": ":method", "string_match": {"exact": "PUT"}},
        ]),
        "config.route.v3.QueryParameterMatcher" => json!({"name": "a"}),
        "type.v3.FractionalPercent" => json!({"numerator": 100}),
        "config.core.v3.RuntimeFractionalPercent" => json!({"default_value": {"numerator": 100}}),
        "config.core.v3.RuntimeFeatureFlag" => json!({"default_value": true}),
        "type.v3.Percent" => json!({"value": 40}),
        "type.v3.Int64Range" => json!([{"start": 201, "end": 203}, {"start": 100, "end": 600}]),
        "type.v3.HttpStatus" => json!({"code": 502}),
        "config.core.v3.CidrRange" => json!({"address_prefix": "10.0.0.0", "prefix_len": 8}),
        _ => return None,
    })
}

fn clusters(name: &str) -> Option<Value> {
    let policy = |kind: &str| {
        let kind = format!("extensions.load_balancing_policies.{kind}");
        json!({"typed_extension_config": {"name": "p", "typed_config": any(&kind, json!({}))}})
    };
    let check = |what: &str, how: Value| {
        let mut check = json!({"timeout": "1s", "interval": "1s", "unhealthy_threshold": 2, "healthy_threshold": 2});
        check[what] = how;
        check
    };
    Some(match name {
        "config.cluster.v3.Cluster" => json!([
            {"name": "c"},
            {"name": "c", "type": 3, "eds_cluster_config": {"eds_config": {"ads": {}}}},
            {"name": "c", "lb_policy": 2},
            {"name": "c", "lb_policy": 5},
        ]),
        "config.cluster.v3.Cluster.EdsClusterConfig" => json!({"eds_config": {"ads": {}}}),
        "config.cluster.v3.LoadBalancingPolicy" => json!({"policies": [policy("round_robin.v3.RoundRobin")]}),
        "config.cluster.v3.LoadBalancingPolicy.Policy" => policy("round_robin.v3.RoundRobin"),
        "extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" => {
            json!({"endpoint_picking_policy": {"policies": [policy("round_robin.v3.RoundRobin")]}})
        }
        "config.cluster.v3.OutlierDetection" => json!([
            {"enforcing_success_rate": 0},
            {"enforcing_consecutive_5xx": 0, "enforcing_consecutive_gateway_failure": 100, "consecutive_gateway_failure": 9},
            {"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 9},
            {"enforcing_consecutive_local_origin_failure": 0, "split_external_local_origin_errors": true},
        ]),
        "config.cluster.v3.CircuitBreakers" => json!({"thresholds": [{}]}),
        "config.core.v3.HealthCheck" => {
            json!([check("http_health_check", json!({"path": "/"})), check("tcp_health_check", json!({}))])
        }
        "config.core.v3.HealthCheck.HttpHealthCheck" => json!({"path": "/"}),
        "extensions.upstreams.http.v3.HttpProtocolOptions" => json!({"explicit_http_config": {"http2_protocol_options": {}}}),
        _ => return None,
    })
}

fn endpoints(name: &str) -> Option<Value> {
    let endpoint = || json!({"address": first("config.core.v3.Address")});
    Some(match name {
        "config.endpoint.v3.ClusterLoadAssignment" => {
            json!({"cluster_name": "c", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint()}]}]})
        }
        "config.endpoint.v3.LocalityLbEndpoints" => json!({"lb_endpoints": [{"endpoint": endpoint()}]}),
        "config.endpoint.v3.LbEndpoint" => json!({"endpoint": endpoint()}),
        "config.endpoint.v3.Endpoint" => endpoint(),
        "config.endpoint.v3.ClusterLoadAssignment.Policy.DropOverload" => {
            json!({"category": "throttle", "drop_percentage": {"numerator": 1}})
        }
        _ => return None,
    })
}

fn tls(name: &str) -> Option<Value> {
    let name = name.strip_prefix("extensions.transport_sockets.tls.v3.").or_else(|| name.strip_prefix("config.core.v3."))?;
    let material = || json!({"inline_string": "x"});
    let pair = || json!({"certificate_chain": material(), "private_key": material()});
    let secret = || json!({"name": "s", "sds_config": {"ads": {}}});
    let roots = || json!({"trusted_ca": material()});
    let shown = || json!({"tls_certificates": [pair()]});
    let both = || json!({"tls_certificates": [pair()], "validation_context": roots()});
    let context = |name: &str, value: Value| any(&format!("extensions.transport_sockets.tls.v3.{name}"), value);
    Some(match name {
        "TransportSocket" => json!([
            {"name": "tls", "typed_config": context("DownstreamTlsContext", json!({"common_tls_context": shown()}))},
            {"name": "tls", "typed_config": context("UpstreamTlsContext", json!({}))},
        ]),
        "DownstreamTlsContext" => json!([
            {"common_tls_context": shown()},
            {"common_tls_context": both(), "require_client_certificate": true},
        ]),
        "UpstreamTlsContext" => json!([{"common_tls_context": both()}, {}]),
        "CommonTlsContext" => json!([shown(), both()]),
        "CommonTlsContext.CombinedCertificateValidationContext" => {
            json!([{"default_validation_context": {}, "validation_context_sds_secret_config": secret()}])
        }
        "CertificateValidationContext" => json!([roots(), {"system_root_certs": {}}]),
        "SubjectAltNameMatcher" => json!({"san_type": 2, "matcher": {"exact": "a.example"}}),
        "TlsCertificate" => pair(),
        "SdsSecretConfig" => secret(),
        "Secret" => json!([{"name": "s", "tls_certificate": pair()}, {"name": "s", "validation_context": roots()}]),
        _ => return None,
    })
}

fn filters(name: &str) -> Option<Value> {
    let all = || json!({"default_value": {"numerator": 100}});
    let gzip = || any("extensions.compression.gzip.compressor.v3.Gzip", json!({}));
    let some = || json!({"numerator": 100});
    let name = name.strip_prefix("extensions.filters.").unwrap_or(name);
    Some(match name {
        "http.cors.v3.CorsPolicy" => json!({"allow_origin_string_match": [{"exact": "x"}]}),
        "http.csrf.v3.CsrfPolicy" => json!({"filter_enabled": all()}),
        "common.fault.v3.FaultDelay" => json!({"fixed_delay": "1s", "percentage": some()}),
        "http.fault.v3.FaultAbort" => json!({"http_status": 503, "percentage": some()}),
        "http.fault.v3.HTTPFault" => json!({"abort": {"http_status": 503, "percentage": some()}}),
        "http.header_mutation.v3.Mutations" => json!({"request_mutations": [{"remove": "x-a"}]}),
        "http.header_mutation.v3.HeaderMutation" | "http.header_mutation.v3.HeaderMutationPerRoute" => {
            json!({"mutations": {"request_mutations": [{"remove": "x-a"}]}})
        }
        "config.common.mutation_rules.v3.HeaderMutation" => {
            json!([{"remove": "x-a"}, {"append": first("config.core.v3.HeaderValueOption")}])
        }
        "http.buffer.v3.Buffer" => json!({"max_request_bytes": 9}),
        "http.buffer.v3.BufferPerRoute" => json!([{"disabled": true}, {"buffer": {"max_request_bytes": 9}}]),
        "http.local_ratelimit.v3.LocalRateLimit" => {
            let bucket = json!({"max_tokens": 9, "fill_interval": "1s"});
            json!([
                {"token_bucket": bucket, "filter_enabled": all(), "filter_enforced": all()},
                {"token_bucket": bucket, "filter_enabled": all(), "filter_enforced": all(), "always_consume_default_token_bucket": false,
                    "descriptors": [first("extensions.common.ratelimit.v3.LocalRateLimitDescriptor")],
                    "rate_limits": [first("config.route.v3.RateLimit")]},
            ])
        }
        "extensions.common.ratelimit.v3.LocalRateLimitDescriptor" => {
            json!({"entries": [{"key": "remote_address"}], "token_bucket": {"max_tokens": 3, "fill_interval": "7s"}})
        }
        "extensions.common.ratelimit.v3.RateLimitDescriptor.Entry" => json!({"key": "remote_address"}),
        "config.route.v3.RateLimit" => json!({"actions": [{"remote_address": {}}]}),
        "config.route.v3.RateLimit.Action" => json!({"remote_address": {}}),
        "type.v3.TokenBucket" => json!({"max_tokens": 9, "fill_interval": "1s"}),
        "http.compressor.v3.Compressor" => json!({"compressor_library": {"name": "x", "typed_config": gzip()}}),
        "http.compressor.v3.CompressorPerRoute" => json!([{"disabled": true}, {"overrides": {"response_direction_config": {}}}]),
        "http.compressor.v3.CompressorOverrides" => json!({"response_direction_config": {}}),
        _ => return None,
    })
}

fn guards(name: &str) -> Option<Value> {
    let anybody = || json!({"any": true});
    let policy = || json!({"permissions": [anybody()], "principals": [anybody()]});
    let rules = || json!({"action": 1, "policies": {"p": policy()}});
    let uri = || json!({"uri": "http://a", "cluster": "a", "timeout": "1s"});
    let name = name.strip_prefix("extensions.filters.http.").unwrap_or(name);
    Some(match name {
        "rbac.v3.RBAC" => json!({"rules": rules()}),
        "rbac.v3.RBACPerRoute" => json!({"rbac": {"rules": rules()}}),
        "config.rbac.v3.RBAC" => rules(),
        "config.rbac.v3.Policy" => policy(),
        "config.rbac.v3.Permission" | "config.rbac.v3.Principal" => anybody(),
        "config.rbac.v3.Permission.Set" => json!({"rules": [anybody()]}),
        "config.rbac.v3.Principal.Set" => json!({"ids": [anybody()]}),
        "config.core.v3.HttpUri" => uri(),
        "config.core.v3.GrpcService" => json!({"envoy_grpc": {"cluster_name": "a"}}),
        "config.core.v3.GrpcService.EnvoyGrpc" => json!({"cluster_name": "a"}),
        "ext_authz.v3.ExtAuthz" => {
            json!([{"http_service": {"server_uri": uri()}}, {"grpc_service": {"envoy_grpc": {"cluster_name": "a"}}}])
        }
        "ext_authz.v3.HttpService" => json!({"server_uri": uri()}),
        "ext_authz.v3.BufferSettings" => json!({"max_request_bytes": 9}),
        "ext_authz.v3.ExtAuthzPerRoute" => json!([{"disabled": true}, {"check_settings": {}}]),
        _ => return None,
    })
}

fn tokens(name: &str) -> Option<Value> {
    let name = name.strip_prefix("extensions.filters.http.jwt_authn.v3.")?;
    let keys = || json!({"inline_string": "{\"keys\": [{\"kty\": \"EC\"}]}"});
    let uri = || json!({"uri": "http://a", "cluster": "a", "timeout": "1s"});
    let rule = || json!({"match": {"prefix": "/"}, "requires": {"provider_name": "p"}});
    Some(match name {
        "JwtAuthentication" => json!({"providers": {"p": {"local_jwks": keys()}}, "rules": [rule()]}),
        "JwtProvider" => json!([{"local_jwks": keys()}, {"remote_jwks": {"http_uri": uri()}}]),
        "RemoteJwks" => json!({"http_uri": uri()}),
        "JwtHeader" => json!({"name": "x-a"}),
        "JwtClaimToHeader" => json!({"header_name": "x-a", "claim_name": "b"}),
        "RequirementRule" => json!([rule(), {"match": {"prefix": "/"}}]),
        "JwtRequirement" | "ProviderWithAudiences" => json!({"provider_name": "p"}),
        "JwtRequirementOrList" => json!([
            {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]},
            {"requirements": [{"allow_missing": {}}, {"provider_name": "p"}]},
        ]),
        "PerRouteConfig" => json!([{"disabled": true}, {"requirement_name": "p"}]),
        _ => return None,
    })
}
