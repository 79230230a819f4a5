//! W3C Trace Context (level 1) and the decision whether a request is traced, made before any span. Values only: no clock, no exporter.

use crate::hex;

/// Longest `tracestate` that is passed on, all its header lines together.
const MAX_STATE: usize = 4096;
/// Most members of a `tracestate` (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// What a caller said about its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Names the trace; never zero.
    pub trace_id: [u8; 16],
    /// The caller's span; never zero.
    pub parent_id: [u8; 8],
    /// Whether the caller records it.
    pub sampled: bool,
    /// What tracing systems told each other, to be passed on.
    pub state: Option<String>,
}

impl TraceContext {
    /// Reads `traceparent` and the lines of `tracestate`. `None` when the first is malformed: the trace then starts here. A malformed `tracestate` alone is
    /// dropped (section 4.3).
    pub fn parse<'h>(traceparent: &[u8], tracestate: impl IntoIterator<Item = &'h [u8]>) -> Option<TraceContext> {
        let parent = std::str::from_utf8(traceparent).ok()?;
        let (version, rest) = (byte(parent.get(0..2)?)?, parent.get(55..)?);
        let dashes = [2, 35, 52].iter().all(|at| parent.as_bytes().get(*at) == Some(&b'-'));
        // Later versions may only add fields; this one has none to add (section 3.2.4).
        let ends_well = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        if version == 0xff || !dashes || !ends_well {
            return None;
        }
        let trace_id = bytes::<16>(parent.get(3..35)?)?;
        let parent_id = bytes::<8>(parent.get(36..52)?)?;
        let flags = byte(parent.get(53..55)?)?;
        if trace_id == [0; 16] || parent_id == [0; 8] {
            return None;
        }
        Some(TraceContext { trace_id, parent_id, sampled: flags & 1 == 1, state: state(tracestate) })
    }
}

/// Which requests without a parent are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// A trace is recorded when the last 63 bits of its id are below this, so that all services with one ratio agree.
    below: u64,
}

impl Sampler {
    /// Traces `ratio` of them: 0 none, 1 all.
    #[must_use]
    pub fn new(ratio: f64) -> Sampler {
        const ALL: u64 = 1 << 63;
        // Saturates: a ratio outside 0 to 1 is none or all. The product is at most 2^63, which fits.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let below = if ratio >= 1.0 { ALL } else { (ratio.max(0.0) * ALL as f64) as u64 };
        Sampler { below }
    }

    fn samples(self, trace_id: &[u8; 16]) -> bool {
        let mut last = [0; 8];
        last.copy_from_slice(&trace_id[8..]);
        u64::from_be_bytes(last) >> 1 < self.below
    }
}

/// The trace of one request of ours: what is sent upstream, and whether a span is exported at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTrace {
    /// Names the trace.
    pub trace_id: [u8; 16],
    /// Names our span.
    pub span_id: [u8; 8],
    /// The caller's span.
    pub parent_id: Option<[u8; 8]>,
    /// Whether a span is exported.
    pub sampled: bool,
    /// The `tracestate` that is passed on.
    pub state: Option<String>,
}

impl RequestTrace {
    /// Decides: a request with a parent follows it, another one follows `sampler`. `rng` makes the ids.
    pub fn begin(incoming: Option<TraceContext>, sampler: Sampler, rng: &mut fastrand::Rng) -> RequestTrace {
        let span_id = span_id(rng);
        match incoming {
            Some(TraceContext { trace_id, parent_id, sampled, state }) => {
                RequestTrace { trace_id, span_id, parent_id: Some(parent_id), sampled, state }
            }
            None => {
                let trace_id = rng.u128(1..).to_be_bytes();
                RequestTrace { trace_id, span_id, parent_id: None, sampled: sampler.samples(&trace_id), state: None }
            }
        }
    }

    /// The same trace with a new span below this one, for an attempt upstream.
    #[must_use]
    pub fn child(&self, rng: &mut fastrand::Rng) -> RequestTrace {
        RequestTrace { span_id: span_id(rng), parent_id: Some(self.span_id), ..self.clone() }
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        let mut text = String::with_capacity(32);
        hex::push(&mut text, &self.trace_id);
        text
    }

    /// The id of our span, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id_hex(&self) -> String {
        let mut text = String::with_capacity(16);
        hex::push(&mut text, &self.span_id);
        text
    }

    /// The `traceparent` to send upstream.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let mut text = String::with_capacity(55);
        text.push_str("00-");
        hex::push(&mut text, &self.trace_id);
        text.push('-');
        hex::push(&mut text, &self.span_id);
        text.push_str(if self.sampled { "-01" } else { "-00" });
        text
    }
}

fn span_id(rng: &mut fastrand::Rng) -> [u8; 8] {
    rng.u64(1..).to_be_bytes()
}

/// Two lower-case hexadecimal digits.
fn byte(text: &str) -> Option<u8> {
    bytes::<1>(text).map(|[byte]| byte)
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The joined members of all lines; `None` when there are none or one is malformed.
fn state<'h>(lines: impl IntoIterator<Item = &'h [u8]>) -> Option<String> {
    let mut keys: Vec<String> = Vec::new();
    let mut joined = String::new();
    for line in lines {
        for member in std::str::from_utf8(line).ok()?.split(',') {
            let member = member.trim_matches([' ', '\t']);
            if member.is_empty() {
                continue;
            }
            let (key, value) = member.split_once('=')?;
            let fits = keys.len() < MAX_MEMBERS && joined.len() + member.len() < MAX_STATE;
            if !fits || !key_fits(key) || !value_fits(value) || keys.iter().any(|known| known == key) {
                return None;
            }
            keys.push(key.to_owned());
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(member);
        }
    }
    (!joined.is_empty()).then_some(joined)
}

/// `simple-key` or `tenant@system` (section 3.3.1.3.1).
fn key_fits(key: &str) -> bool {
    let part = |text: &str, longest: usize, digit_first: bool| {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || (digit_first && b.is_ascii_digit()));
        first
            && text.len() <= longest
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'*' | b'/'))
    };
    match key.split_once('@') {
        Some((tenant, system)) => part(tenant, 241, true) && part(system, 14, false),
        None => part(key, 256, false),
    }
}

/// Printable ASCII without `,` and `=`, not ending in a space (section 3.3.1.3.2).
fn value_fits(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && !value.ends_with(' ')
        && value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'='))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parse(parent: &str, state: &[&str]) -> Option<TraceContext> {
        TraceContext::parse(parent.as_bytes(), state.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn a_parent_is_followed_and_passed_on() {
        let context = parse(PARENT, &["rojo=00f067aa0ba902b7", " congo=t61rcWkgMzE , ,a@b=c d"]).unwrap();
        assert_eq!(context.state.as_deref(), Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE,a@b=c d"));
        let mut rng = fastrand::Rng::with_seed(3);
        let ours = RequestTrace::begin(Some(context.clone()), Sampler::new(0.0), &mut rng);
        assert!(ours.sampled && ours.parent_id == Some(context.parent_id) && ours.trace_id == context.trace_id);
        let sent = parse(&ours.traceparent(), &[]).unwrap();
        assert_eq!((sent.trace_id, sent.parent_id, sent.sampled), (ours.trace_id, ours.span_id, true));
        let child = ours.child(&mut rng);
        assert!(child.parent_id == Some(ours.span_id) && child.span_id != ours.span_id && child.trace_id == ours.trace_id);
        let quiet = parse(&PARENT.replace("-01", "-00"), &[]);
        assert!(!RequestTrace::begin(quiet, Sampler::new(1.0), &mut rng).sampled, "the parent decides");
    }

    #[test]
    fn malformed_parents_start_a_new_trace() {
        let wrong = [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ];
        for parent in wrong {
            assert_eq!(parse(parent, &[]), None, "{parent}");
        }
        assert!(parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-later", &[]).unwrap().sampled);
    }

    #[test]
    fn a_malformed_state_is_dropped_alone() {
        let long = format!("a={}", "x".repeat(257));
        let many: String = (0..33).map(|i| format!("k{i}=v,")).collect();
        for state in ["a", "A=1", "1=1", "a=1,a=2", "a=b=c", "a=\u{e9}", "a=", "@a=1", "t@=1", "t@1=1", &long, &many] {
            assert_eq!(parse(PARENT, &[state]).unwrap().state, None, "{state}");
        }
        assert_eq!(parse(PARENT, &["", " , "]).unwrap().state, None);
        assert_eq!(parse(PARENT, &["1t@s=1"]).unwrap().state.as_deref(), Some("1t@s=1"));
    }

    #[test]
    fn the_ratio_is_kept() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut sampled =
            |ratio: f64| (0..10_000).filter(|_| RequestTrace::begin(None, Sampler::new(ratio), &mut rng).sampled).count();
        assert_eq!((sampled(0.0), sampled(1.0), sampled(-1.0), sampled(f64::NAN)), (0, 10_000, 0, 0));
        assert!((800..1200).contains(&sampled(0.1)));
    }

    proptest! {
        #[test]
        fn random_headers_never_panic(parent in ".{0,60}", state in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3)) {
            let _ = TraceContext::parse(parent.as_bytes(), state.iter().map(Vec::as_slice));
        }

        #[test]
        fn mutated_parents_never_panic(at in 0..55usize, byte in any::<u8>(), cut in 0..56usize) {
            let mut parent = PARENT.as_bytes().to_vec();
            parent[at] = byte;
            parent.truncate(cut);
            let _ = TraceContext::parse(&parent, []);
        }

        #[test]
        fn what_is_sent_can_be_read(seed in any::<u64>(), ratio in 0.0..1.0f64) {
            let ours = RequestTrace::begin(None, Sampler::new(ratio), &mut fastrand::Rng::with_seed(seed));
            let read = parse(&ours.traceparent(), &[]).unwrap();
            prop_assert_eq!((read.trace_id, read.parent_id, read.sampled), (ours.trace_id, ours.span_id, ours.sampled));
        }
    }
}
