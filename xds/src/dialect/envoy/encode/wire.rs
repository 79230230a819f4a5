//! Small messages that many resources of Envoy hold. It knows no resource.

use std::time::Duration;

use heddle_proto::envoy::config::core::v3 as base;
use heddle_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use heddle_proto::envoy::r#type::matcher::v3 as matcher;
use heddle_proto::envoy::r#type::v3 as kinds;
use prost::{Message, Name};
use prost_types::Any;

use super::re2;

/// What patterns see alike in every version of Envoy: from 1.40 on they are matched byte by byte, before they did not see bytes that are not UTF-8.
pub(super) const ASCII: &str = r"[\x00-\x7f]*";
/// Whatever stands around a pattern: any bytes, in UTF-8 or not.
pub(super) const ANY: &str = r"\C*";

/// A message with its type.
pub(super) fn any<M: Message + Name>(message: &M) -> Option<Any> {
    Some(Any { type_url: M::type_url(), value: message.encode_to_vec() })
}

/// The longest span of time that Envoy is told: a hundred years. It counts nanoseconds from a time before now in 63 bits.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A span of time. What is longer than the longest never ends for anybody who waits.
pub(super) fn span(span: Duration) -> Option<prost_types::Duration> {
    let span = span.min(LONGEST);
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    Some(prost_types::Duration { seconds, nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default() })
}

/// From the stream of all types.
pub(super) fn ads() -> Option<base::ConfigSource> {
    Some(base::ConfigSource {
        resource_api_version: base::ApiVersion::V3.into(),
        config_source_specifier: Some(base::config_source::ConfigSourceSpecifier::Ads(base::AggregatedConfigSource {})),
        ..Default::default()
    })
}

/// A secret by name.
pub(super) fn secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: ads() }
}

/// An address and port.
pub(super) fn address(host: &str, port: u16) -> base::Address {
    let socket = base::SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(base::socket_address::PortSpecifier::PortValue(port.into())),
        ..Default::default()
    };
    base::Address { address: Some(base::address::Address::SocketAddress(socket)) }
}

/// A network.
pub(super) fn network(network: &ipnet::IpNet) -> base::CidrRange {
    base::CidrRange { address_prefix: network.network().to_string(), prefix_len: Some(network.prefix_len().into()) }
}

/// This text.
pub(super) fn exact(text: &str) -> matcher::StringMatcher {
    text_matcher(matcher::string_matcher::MatchPattern::Exact(text.to_owned()))
}

/// A text that a regular expression matches as a whole.
pub(super) fn regex(pattern: &str) -> matcher::StringMatcher {
    text_matcher(matcher::string_matcher::MatchPattern::SafeRegex(whole(pattern)))
}

pub(super) fn text_matcher(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) }
}

/// A regular expression. Envoy takes small ones alone where they do not say themselves how large they may be; it counts that field among old ones and warns of
/// it, so that those which are small in any case do not say it.
pub(super) fn whole(pattern: &str) -> matcher::RegexMatcher {
    use matcher::regex_matcher::{EngineType, GoogleRe2};
    let large = re2::size(pattern) > re2::USUAL;
    let engine = || EngineType::GoogleRe2(GoogleRe2 { max_program_size: Some(u32::MAX) });
    matcher::RegexMatcher { regex: pattern.to_owned(), engine_type: large.then(engine) }
}

/// A share in percent.
pub(super) fn percent(percent: u32) -> kinds::FractionalPercent {
    kinds::FractionalPercent { numerator: percent, denominator: kinds::fractional_percent::DenominatorType::Hundred.into() }
}

/// Every request.
pub(super) fn always() -> base::RuntimeFractionalPercent {
    base::RuntimeFractionalPercent { default_value: Some(percent(100)), ..Default::default() }
}

/// A header field that is set, or added to those that are there.
pub(super) fn header(name: &str, value: &str, add: bool) -> base::HeaderValueOption {
    use base::header_value_option::HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
    base::HeaderValueOption {
        header: Some(base::HeaderValue { key: name.to_owned(), value: escaped(value), ..Default::default() }),
        append_action: if add { AppendIfExistsOrAdd } else { OverwriteIfExistsOrAdd }.into(),
        // Without it what is set to nothing would stay what the client said.
        keep_empty_value: value.is_empty(),
        ..Default::default()
    }
}

/// A header field that is set to what Envoy makes of a text with its variables.
pub(super) fn formatted(name: &str, value: &str) -> base::HeaderValueOption {
    let mut option = header(name, "", false);
    option.keep_empty_value = false;
    if let Some(header) = &mut option.header {
        header.value = value.to_owned();
    }
    option
}

/// A text in which `%` begins nothing.
pub(super) fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}
