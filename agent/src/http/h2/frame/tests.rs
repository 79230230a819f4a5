//! Frames written and read again, and those that must be refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::settings::MAX_FRAME_SIZE;
use super::*;

/// All frames in `bytes`.
fn read(mut bytes: &[u8]) -> Result<Vec<Frame<'_>>, Violation> {
    let mut frames = Vec::new();
    while let Some(header) = FrameHeader::peek(bytes) {
        let (frame, rest) = bytes.split_at(header.total());
        frames.push(Frame::parse(header, &frame[HEADER_LEN..])?);
        bytes = rest;
    }
    assert!(bytes.is_empty());
    Ok(frames)
}

fn parse(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Frame<'_>, Violation> {
    Frame::parse(FrameHeader { length: payload.len() as u32, kind, flags, stream }, payload)
}

#[test]
fn what_is_written_is_read() {
    let mut out = Vec::new();
    write_settings(&mut out, &[(Setting::MaxFrameSize, 1 << 20), (Setting::EnableConnectProtocol, 1)]);
    write_settings_ack(&mut out);
    write_ping(&mut out, false, *b"12345678");
    write_ping(&mut out, true, *b"12345678");
    write_goaway(&mut out, 7, ErrorCode::ENHANCE_YOUR_CALM, b"calm");
    write_reset(&mut out, 3, ErrorCode::CANCEL);
    write_window_update(&mut out, 0, MAX_WINDOW);
    write_window_update(&mut out, 5, 1);
    write_data_header(&mut out, 9, 2, true);
    out.extend_from_slice(b"ab");
    let settings = [0, 5, 0, 16, 0, 0, 0, 8, 0, 0, 0, 1];
    let expected = [
        Frame::Settings(&settings),
        Frame::SettingsAck,
        Frame::Ping { ack: false, opaque: *b"12345678" },
        Frame::Ping { ack: true, opaque: *b"12345678" },
        Frame::GoAway { last: 7, code: ErrorCode::ENHANCE_YOUR_CALM, debug: b"calm" },
        Frame::Reset { stream: 3, code: ErrorCode::CANCEL },
        Frame::WindowUpdate { stream: 0, increment: MAX_WINDOW },
        Frame::WindowUpdate { stream: 5, increment: 1 },
        Frame::Data { stream: 9, end_stream: true, data: b"ab", flow: 2 },
    ];
    assert_eq!(read(&out).unwrap(), expected);
}

#[test]
fn padding_and_priorities_are_read_over() {
    let data = parse(0, flags::PADDED, 1, &[2, b'a', 0, 0]).unwrap();
    assert_eq!(data, Frame::Data { stream: 1, end_stream: false, data: b"a", flow: 4 });
    let all = flags::PADDED | flags::PRIORITY | flags::END_HEADERS | flags::END_STREAM;
    let headers = parse(1, all, 1, &[1, 0, 0, 0, 1, 9, b'h', 0]).unwrap();
    assert_eq!(headers, Frame::Headers { stream: 1, end_stream: true, end_headers: true, fragment: b"h" });
    assert_eq!(parse(2, 0, 1, &[0; 5]), Ok(Frame::Priority));
    assert_eq!(parse(77, 255, 1, b"?"), Ok(Frame::Unknown));
    assert_eq!(FrameHeader::parse(&[0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).stream, MAX_STREAM);
}

#[test]
fn what_a_frame_cannot_be_is_refused_as_far_as_it_reaches() {
    let protocol = (ErrorCode::PROTOCOL_ERROR, Scope::Connection);
    let size = (ErrorCode::FRAME_SIZE_ERROR, Scope::Connection);
    let long = flags::PADDED | flags::PRIORITY;
    for (kind, flags, stream, payload, expected) in [
        (0, 0, 0, &b"x"[..], protocol),
        (0, flags::PADDED, 1, b"", size),
        (0, flags::PADDED, 1, &[3, 0, 0], protocol),
        (1, 0, 0, b"", protocol),
        (1, flags::PRIORITY, 1, b"1234", size),
        (1, long, 1, &[1, 0, 0, 0, 0, 0], size),
        (2, 0, 0, &[0; 5], protocol),
        (2, 0, 3, &[0; 4], (ErrorCode::FRAME_SIZE_ERROR, Scope::Stream(3))),
        (3, 0, 0, &[0; 4], protocol),
        (3, 0, 1, &[0; 3], size),
        (4, 0, 1, b"", protocol),
        (4, 0, 0, &[0; 5], size),
        (4, flags::ACK, 0, &[0; 6], size),
        (5, 0, 1, &[0; 4], protocol),
        (6, 0, 1, &[0; 8], protocol),
        (6, 0, 0, &[0; 7], size),
        (7, 0, 1, &[0; 8], protocol),
        (7, 0, 0, &[0; 7], size),
        (8, 0, 0, &[0; 4], protocol),
        (8, 0, 3, &[0x80, 0, 0, 0], (ErrorCode::PROTOCOL_ERROR, Scope::Stream(3))),
        (8, 0, 3, &[0; 5], size),
        (9, 0, 0, b"", protocol),
    ] {
        let violation = parse(kind, flags, stream, payload).unwrap_err();
        assert_eq!((violation.code, violation.scope), expected, "type {kind}: {violation}");
    }
    let header = FrameHeader { length: 16_385, kind: 0, flags: 0, stream: 1 };
    assert_eq!(header.check_length(DEFAULT_FRAME_SIZE).unwrap_err().code, ErrorCode::FRAME_SIZE_ERROR);
    assert_eq!(header.check_length(16_385), Ok(()));
}

#[test]
fn settings_are_taken_in_order_and_checked() {
    let entries = |list: &[(u16, u32)]| {
        list.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect::<Vec<_>>()
    };
    let mut settings = Settings::default();
    let all = [(1, 0), (1, 8_192), (2, 0), (3, 7), (4, 1 << 20), (5, 1 << 15), (6, 99), (8, 1), (4_711, 5)];
    assert_eq!(settings.apply(&entries(&all), Role::Server), Ok(Some(0)));
    let expected = Settings {
        header_table_size: 8_192,
        enable_push: false,
        max_concurrent_streams: Some(7),
        initial_window_size: 1 << 20,
        max_frame_size: 1 << 15,
        max_header_list_size: Some(99),
        enable_connect_protocol: true,
    };
    assert_eq!(settings, expected);
    assert_eq!(settings.apply(&[], Role::Server), Ok(None));
    for (by, name, value, code) in [
        (Role::Client, 2, 2, ErrorCode::PROTOCOL_ERROR),
        (Role::Server, 2, 1, ErrorCode::PROTOCOL_ERROR),
        (Role::Client, 4, MAX_WINDOW + 1, ErrorCode::FLOW_CONTROL_ERROR),
        (Role::Client, 5, DEFAULT_FRAME_SIZE - 1, ErrorCode::PROTOCOL_ERROR),
        (Role::Client, 5, MAX_FRAME_SIZE + 1, ErrorCode::PROTOCOL_ERROR),
        (Role::Server, 8, 2, ErrorCode::PROTOCOL_ERROR),
        (Role::Server, 8, 0, ErrorCode::PROTOCOL_ERROR),
    ] {
        let violation = settings.apply(&entries(&[(name, value)]), by).unwrap_err();
        assert_eq!((violation.code, violation.scope), (code, Scope::Connection), "{name}: {value}");
    }
}

#[test]
fn codes_have_names() {
    assert_eq!(ErrorCode(13).to_string(), "HTTP_1_1_REQUIRED");
    assert_eq!(ErrorCode(99).to_string(), "error code 99");
}

proptest! {
    #[test]
    fn a_block_is_split_as_the_peer_wants_it(before in 0usize..20, len in 0usize..200, most in 1u32..60, end: bool) {
        let mut out = vec![0; before];
        let open = begin_block(&mut out, 5);
        let content: Vec<u8> = (0..len).map(|at| at as u8).collect();
        out.extend_from_slice(&content);
        open.finish(&mut out, end, most);
        let mut joined = Vec::new();
        let frames = read(&out[before..]).unwrap();
        let count = frames.len();
        prop_assert_eq!(count, len.div_ceil(most as usize).max(1));
        for (at, frame) in frames.into_iter().enumerate() {
            let (fragment, complete) = match frame {
                Frame::Headers { stream: 5, end_stream, end_headers, fragment } if at == 0 && end_stream == end => (fragment, end_headers),
                Frame::Continuation { stream: 5, end_headers, fragment } if at > 0 => (fragment, end_headers),
                other => panic!("{other:?}"),
            };
            prop_assert!(fragment.len() <= most as usize);
            prop_assert_eq!(complete, at + 1 == count);
            joined.extend_from_slice(fragment);
        }
        prop_assert_eq!(joined, content);
    }

    #[test]
    fn no_payload_panics(kind in 0u8..12, flags: u8, stream in 0u32..4, payload in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(Frame::Settings(entries)) = parse(kind, flags, stream, &payload) {
            let _ = Settings::default().apply(entries, Role::Client);
        }
    }

    #[test]
    fn headers_are_read_as_written(length in 0..=MAX_FRAME_SIZE, kind: u8, flags: u8, stream in 0..=MAX_STREAM) {
        let header = FrameHeader { length, kind, flags, stream };
        prop_assert_eq!(FrameHeader::parse(&header.octets()), header);
    }
}
