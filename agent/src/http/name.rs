//! Field names that the data path itself looks at, as a number, so that finding one needs no string comparison.

use super::chars::short;

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// A field name that the data path itself looks at; all others are `Other`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            /// Any other name.
            Other,
            $($(#[$doc])* $variant,)*
        }

        impl Name {
            /// Lower-case text, empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Name::Other => "",
                    $(Name::$variant => $text,)*
                }
            }

            /// All known names.
            pub(in crate::http) const KNOWN: &'static [Name] = &[$(Name::$variant,)*];
        }
    };
}

names! {
    /// RFC 9110 section 7.2.
    Host = "host",
    /// RFC 9110 section 12.5.1.
    Accept = "accept",
    /// RFC 9110 section 7.6.1.
    Connection = "connection",
    /// RFC 9110 section 10.1.5.
    UserAgent = "user-agent",
    /// RFC 9110 section 8.6.
    ContentLength = "content-length",
    /// RFC 9110 section 8.3.
    ContentType = "content-type",
    /// RFC 9112 section 6.1.
    TransferEncoding = "transfer-encoding",
    /// RFC 9110 section 10.1.1.
    Expect = "expect",
    /// RFC 9110 section 7.8.
    Upgrade = "upgrade",
    /// RFC 9110 section 10.1.4.
    Te = "te",
    /// RFC 9110 section 6.6.2.
    Trailer = "trailer",
    /// Hop-by-hop by custom, RFC 9110 section 7.6.1.
    KeepAlive = "keep-alive",
    /// Hop-by-hop by custom, RFC 9110 section 7.6.1.
    ProxyConnection = "proxy-connection",
    /// RFC 9110 section 11.7.2.
    ProxyAuthorization = "proxy-authorization",
    /// RFC 9110 section 11.7.1.
    ProxyAuthenticate = "proxy-authenticate",
    /// RFC 9113 section 3.2.1 (obsolete).
    Http2Settings = "http2-settings",
    /// RFC 6265.
    Cookie = "cookie",
    /// RFC 9110 section 11.6.2.
    Authorization = "authorization",
    /// Set by proxies.
    XForwardedFor = "x-forwarded-for",
    /// Set by proxies.
    XForwardedProto = "x-forwarded-proto",
    /// Set by proxies.
    XForwardedHost = "x-forwarded-host",
    /// Set by proxies.
    XForwardedPort = "x-forwarded-port",
    /// Set by proxies.
    XRealIp = "x-real-ip",
    /// RFC 7239.
    Forwarded = "forwarded",
    /// RFC 9110 section 7.6.3.
    Via = "via",
    /// RFC 9110 section 10.2.4.
    Server = "server",
    /// RFC 9110 section 6.6.1.
    Date = "date",
    /// W3C Trace Context.
    Traceparent = "traceparent",
    /// W3C Trace Context.
    Tracestate = "tracestate",
    /// RFC 9110 section 8.4.
    ContentEncoding = "content-encoding",
    /// RFC 9110 section 10.2.2.
    Location = "location",
    /// Fetch standard.
    Origin = "origin",
    /// Client certificate as an Envoy proxy reports it.
    XForwardedClientCert = "x-forwarded-client-cert",
    /// No field of HTTP: CGI programs read it as `HTTP_PROXY`, the proxy that they shall use (CVE-2016-5385).
    Proxy = "proxy",
    /// De-facto request id.
    XRequestId = "x-request-id",
    /// gRPC over HTTP/2.
    GrpcStatus = "grpc-status",
}

/// The names by a hash of their length and three of their letters, free of collisions: finding one costs one comparison.
static TABLE: [Name; 256] = match table(SEED) {
    Some(table) => table,
    None => [Name::Other; 256],
};

/// The first multiplier that gives each name a slot of its own; the compiler looks for it.
const SEED: u32 = seed();

const fn seed() -> u32 {
    let mut seed = 0x9e37_79b1;
    while table(seed).is_none() {
        seed += 2;
    }
    seed
}

const fn table(seed: u32) -> Option<[Name; 256]> {
    let mut table = [Name::Other; 256];
    let mut at = 0;
    while at < Name::KNOWN.len() {
        let name = Name::KNOWN[at];
        let slot = slot(name.as_str().as_bytes(), seed);
        if !matches!(table[slot], Name::Other) {
            return None;
        }
        table[slot] = name;
        at += 1;
    }
    Some(table)
}

/// Slot of a name, not empty, whatever its case.
const fn slot(text: &[u8], seed: u32) -> usize {
    let len = text.len();
    let (first, late, last) = (text[0] | 0x20, text[len * 3 / 4] | 0x20, text[len - 1] | 0x20);
    let key = u32::from_le_bytes([len as u8, first, late, last]);
    (key.wrapping_mul(seed) >> 24) as usize
}

impl Name {
    /// The name spelled by `text` in any case.
    pub fn find(text: &[u8]) -> Name {
        if text.is_empty() {
            return Name::Other;
        }
        let candidate = TABLE[slot(text, SEED)];
        if is_spelled(candidate.as_str().as_bytes(), text) { candidate } else { Name::Other }
    }

    /// The same for a text that stands in the code, not empty.
    pub(super) const fn spelled(text: &str) -> Name {
        let candidate = TABLE[slot(text.as_bytes(), SEED)];
        if candidate.as_str().as_bytes().eq_ignore_ascii_case(text.as_bytes()) { candidate } else { Name::Other }
    }

    /// The bit of a name that is no known one in a set of such names; several names share one. Of letters only those five bits count that
    /// are the same in both cases. With these factors usual fields share few bits with those that filters set.
    #[inline(always)]
    pub(super) const fn other_bit(text: &[u8]) -> u32 {
        let len = text.len();
        if len == 0 {
            return 0;
        }
        let (late, last) = (text[len * 3 / 4] as usize, text[len - 1] as usize);
        1 << ((last + late * 5 + len * 21) & 31)
    }

    /// The bit of this name in a set of names.
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The fields that speak only to the next hop, as a set of [`Name::bit`]s.
    pub(crate) const HOP_BY_HOP: u64 = {
        let (mut set, mut at) = (0, 0);
        while at < Name::KNOWN.len() {
            if Name::KNOWN[at].is_hop_by_hop() {
                set |= Name::KNOWN[at].bit();
            }
            at += 1;
        }
        set
    };

    /// Whether the field speaks only to the next hop (RFC 9110 section 7.6.1) and must not be forwarded.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::TransferEncoding
                | Name::Upgrade
                | Name::Te
                | Name::Http2Settings
                | Name::ProxyAuthenticate
                | Name::ProxyAuthorization
                | Name::Proxy
        )
    }
}

/// Whether `text` is `name`, which is in lower case, in any case. Eight letters at a time: a byte may differ in the bit of its case, and only where the name
/// has a letter, which are the bytes of names with bit 6 set.
fn is_spelled(name: &[u8], text: &[u8]) -> bool {
    if name.len() != text.len() {
        return false;
    }
    let differs = |name: u64, text: u64| (name ^ text) & !(name >> 1 & 0x2020_2020_2020_2020) != 0;
    let (Some(name_end), Some(text_end)) = (name.last_chunk::<8>(), text.last_chunk::<8>()) else {
        return !name.is_empty() && !differs(short(name), short(text));
    };
    let words = name.as_chunks::<8>().0.iter().zip(text.as_chunks::<8>().0);
    !differs(u64::from_le_bytes(*name_end), u64::from_le_bytes(*text_end))
        && words.fold(true, |same, (name, text)| same & !differs(u64::from_le_bytes(*name), u64::from_le_bytes(*text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_close_to_it() {
        for &name in Name::KNOWN {
            let text = name.as_str();
            assert_eq!(Name::find(text.as_bytes()), name);
            assert_eq!(Name::find(text.to_ascii_uppercase().as_bytes()), name);
            for at in 0..text.len() {
                for byte in 0..=255u8 {
                    let mut other = text.as_bytes().to_vec();
                    other[at] = byte;
                    let same = other.eq_ignore_ascii_case(text.as_bytes());
                    assert_eq!(Name::find(&other) == name, same, "{other:?}");
                }
            }
        }
        assert!(Name::KNOWN.len() < 64, "sets of names are 64 bits wide");
        assert_eq!(Name::find(b""), Name::Other);
    }

    proptest! {
        #[test]
        fn finding_is_comparing_with_all(text in proptest::collection::vec(any::<u8>(), 0..24)) {
            let found = Name::KNOWN.iter().copied().find(|name| text.eq_ignore_ascii_case(name.as_str().as_bytes()));
            prop_assert_eq!(Name::find(&text), found.unwrap_or(Name::Other));
        }
    }
}
