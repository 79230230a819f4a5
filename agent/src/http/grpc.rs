//! Answers as clients of gRPC read them: a status of theirs by that of HTTP, and a text as its message. It knows no reasons and no bodies.

use super::{FieldName, Name, ResponseHead};

/// The media type of calls and of their answers.
pub const GRPC: &str = "application/grpc";
/// The status of what was not there in time.
const DEADLINE_EXCEEDED: &str = "4";
const MESSAGE: FieldName = FieldName::of("grpc-message");

/// Whether a media type is one of gRPC. That of gRPC-Web is another one.
pub fn is_grpc(kind: &[u8]) -> bool {
    matches!(kind.strip_prefix(GRPC.as_bytes()), Some([] | [b'+' | b';' | b' ', ..]))
}

/// Says status and message in a head whose body is gone.
pub fn tell(head: &mut ResponseHead, message: &[u8]) {
    let coded = head.fields.contains_known(Name::ContentEncoding);
    head.fields.remove_known(Name::ContentLength);
    head.fields.remove_known(Name::ContentEncoding);
    head.fields.set_known(Name::GrpcStatus, code(head.status));
    head.fields.remove_named(&MESSAGE);
    if !message.is_empty() && !coded {
        head.fields.set_named(&MESSAGE, escaped(message));
    }
}

/// Makes a head an answer that is nothing but a head (Trailers-Only, "Responses" of "gRPC over HTTP2"): clients take what has another status for no answer.
pub fn answer(head: &mut ResponseHead, message: &[u8]) {
    tell(head, message);
    head.status = 200;
    head.fields.set_known(Name::ContentType, GRPC);
}

/// Says in such a head that an endpoint did not answer in time, as Envoy does: DEADLINE_EXCEEDED, which callers do not send again as they do what is unavailable.
///
/// An endpoint that says it of itself, as a sidecar does whose application is slow, is not judged by it: who calls with a deadline of nothing brings it about,
/// too. A slow instance is found by the limits of those who call it.
pub fn tell_late(head: &mut ResponseHead) {
    head.fields.set_known(Name::GrpcStatus, DEADLINE_EXCEEDED);
}

/// The status of HTTP by which an endpoint is judged that says one of gRPC. That of others tells of the call, which whoever makes it can bring about (a deadline of
/// nothing, an argument that is none), and not of the endpoint.
pub(super) fn meant(code: &[u8]) -> u16 {
    match code {
        b"8" => 429,
        b"14" => 503,
        _ => 200,
    }
}

/// The status of gRPC for one of HTTP ("HTTP to gRPC Status Code Mapping" of gRPC), but for 429: of what is unavailable endpoints are taken out, and whoever asks too
/// often is to blame for that itself.
fn code(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 => "8",
        502..=504 => "14",
        _ => "2",
    }
}

/// A message as the field holds it ("Responses" of "gRPC over HTTP2").
fn escaped(message: &[u8]) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            byte => out.push(char::from(*byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_all_head_and_keeps_what_says_when_to_come_again() {
        let mut head = ResponseHead::new(429);
        head.fields.append("retry-after", "3");
        head.fields.append("content-type", "application/json");
        head.fields.append("content-length", "9");
        answer(&mut head, "zu viel, 100 % \u{e4}".as_bytes());
        let said = ["content-type", "grpc-status", "grpc-message", "retry-after", "content-length"];
        let said = said.map(|name| head.fields.get_str(name));
        assert_eq!(head.status, 200);
        assert_eq!(said, [Some(GRPC), Some("8"), Some("zu viel, 100 %25 %C3%A4"), Some("3"), None]);
    }

    #[test]
    fn an_endpoint_is_judged_by_what_its_status_of_grpc_means() {
        let judged = |status, code: Option<&'static str>| {
            let mut head = ResponseHead::new(status);
            code.into_iter().for_each(|code| head.fields.append("grpc-status", code));
            head.outcome()
        };
        let all = [
            (Some("14"), 503),
            (Some("8"), 429),
            (Some("4"), 200),
            (Some("13"), 200),
            (Some("0"), 200),
            (Some("x"), 200),
            (None, 200),
        ];
        for (code, status) in all {
            assert_eq!(judged(200, code), status, "{code:?}");
        }
        assert_eq!(judged(504, Some("0")), 504);
        // Of our own refusals those take an endpoint out that would have done so in the words of HTTP.
        for status in [400, 401, 403, 404, 405, 408, 413, 421, 429, 500, 502, 503, 504] {
            let bad = |status: u16| (500..=504).contains(&status) && status != 500;
            let mut head = ResponseHead::new(status);
            answer(&mut head, b"");
            assert_eq!((bad(head.outcome()), head.outcome() == 429), (bad(status), status == 429), "{status}");
        }
        // But for our own limit of time, which tells of the call.
        let mut late = ResponseHead::new(504);
        answer(&mut late, b"");
        tell_late(&mut late);
        assert_eq!((late.fields.get_str("grpc-status"), late.outcome()), (Some("4"), 200));
    }
}
