//! What browsers are told, laid out once: the fields that all are told and those that only clients with TLS are. It knows no requests.

use super::config::Config;
use crate::http::Fields;

/// The fields for everybody.
pub(super) fn for_all(config: &Config) -> Fields {
    let mut fields = Fields::new();
    let mut tell = |name: &str, value: &str| {
        if !value.is_empty() {
            fields.append(name, value);
        }
    };
    tell("X-Frame-Options", either(&config.custom_frame_options_value, config.frame_deny, "DENY"));
    tell("X-Content-Type-Options", either("", config.content_type_nosniff, "nosniff"));
    tell("X-XSS-Protection", either(&config.custom_browser_xss_value, config.browser_xss_filter, "1; mode=block"));
    tell("Content-Security-Policy", &config.content_security_policy);
    tell("Content-Security-Policy-Report-Only", &config.content_security_policy_report_only);
    tell("Referrer-Policy", &config.referrer_policy);
    tell("Permissions-Policy", &config.permissions_policy);
    if config.force_sts_header {
        tell("Strict-Transport-Security", &transport(config));
    }
    fields.laid_out()
}

/// The fields for those that came by TLS.
pub(super) fn for_tls(config: &Config) -> Fields {
    let mut fields = Fields::new();
    if config.is_development {
        return fields;
    }
    let transport = transport(config);
    if !transport.is_empty() && !config.force_sts_header {
        fields.append("Strict-Transport-Security", transport);
    }
    if !config.public_key.is_empty() {
        fields.append("Public-Key-Pins", &config.public_key);
    }
    fields.laid_out()
}

fn either<'a>(custom: &'a str, on: bool, usual: &'a str) -> &'a str {
    match (custom, on) {
        ("", true) => usual,
        ("", false) => "",
        (custom, _) => custom,
    }
}

/// RFC 6797 section 6.1, empty when there is nothing to tell.
fn transport(config: &Config) -> String {
    if config.sts_seconds == 0 || config.is_development {
        return String::new();
    }
    let subdomains = if config.sts_include_subdomains { "; includeSubDomains" } else { "" };
    let preload = if config.sts_preload { "; preload" } else { "" };
    format!("max-age={}{subdomains}{preload}", config.sts_seconds)
}
