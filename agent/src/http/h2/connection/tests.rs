//! Stories of one end: what a peer may and may not send, and in which order its own words go out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use heddle_node::clock;

use super::*;
use crate::http::Frame;
use crate::http::h2::frame::{ErrorCode, Violation};

const CONFIG: Config = Config {
    stream_window: 65_535,
    connection_window: 200_000,
    max_frame_size: 16_384,
    max_streams: 4,
    heads: HeadLimits { max_bytes: 1000, max_field: 500, max_fields: 10, max_target: 100, connect: false, any_authority: false },
    glitch_budget: 50,
};

fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        entries.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(4, 0, 0, &payload)
}

/// Literal fields without indexing and without Huffman coding.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/p"), (":authority", "a")];

fn get(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &block(&GET))
}

fn post(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, &block(&GET))
}

fn data(stream: u32, len: usize, end: bool) -> Vec<u8> {
    frame(0, u8::from(end), stream, &vec![b'x'; len])
}

fn update(stream: u32, by: u32) -> Vec<u8> {
    frame(8, 0, stream, &by.to_be_bytes())
}

/// One end and what it has said.
struct End {
    machine: Connection,
    keys: Vec<StreamKey>,
    events: Vec<Event>,
}

impl End {
    fn server() -> End {
        let mut end = End { machine: Connection::server(CONFIG), keys: Vec::new(), events: Vec::new() };
        end.hear(&[&PREFACE[..], &settings(&[])].concat()).unwrap();
        end.said();
        end
    }

    fn client() -> End {
        let mut end = End { machine: Connection::client(CONFIG), keys: Vec::new(), events: Vec::new() };
        end.hear(&settings(&[])).unwrap();
        end.said();
        end
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut input = BytesMut::from(bytes);
        while let Some(event) = self.machine.receive(&mut input, clock::now())? {
            if let Event::Request(request) = &event {
                self.keys.push(request.key);
            }
            self.events.push(event);
        }
        Ok(())
    }

    /// Frames that go out: kind, flags, stream, payload.
    fn said(&mut self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        loop {
            self.machine.fill();
            let more: Vec<u8> = self.machine.output().slices().iter().flat_map(|slice| slice.to_vec()).collect();
            if more.is_empty() {
                break;
            }
            self.machine.output().advance(more.len());
            bytes.extend_from_slice(&more);
        }
        let mut rest = bytes.strip_prefix(&PREFACE[..]).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            let stream = u32::from_be_bytes(rest[5..9].try_into().unwrap());
            frames.push((rest[3], rest[4], stream, rest[9..9 + length].to_vec()));
            rest = &rest[9 + length..];
        }
        frames
    }

    /// The code of the reset that goes out for a stream.
    fn reset_of(&mut self, stream: u32) -> Option<u32> {
        let said = self.said();
        let reset = said.iter().find(|(kind, _, on, _)| (*kind, *on) == (3, stream))?;
        Some(u32::from_be_bytes(reset.3[..].try_into().unwrap()))
    }

    fn answer(&mut self, key: StreamKey, body: usize) {
        self.machine.send_head(key, body == 0, |encoder, out| write_status(encoder, out, 200)).unwrap();
        if body > 0 {
            self.machine.send_data(key, Bytes::from(vec![b'y'; body]), true).unwrap();
        }
    }

    /// Opens a stream with a request.
    fn ask(&mut self, end: bool) -> StreamKey {
        self.machine.open(end, false, |_, out| out.extend_from_slice(&block(&GET))).unwrap()
    }
}

fn write_status(_: &mut crate::http::h2::hpack::Encoder, out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(&block(&[(":status", &status.to_string())]));
}

fn status(code: &str, flags: u8, stream: u32) -> Vec<u8> {
    frame(1, flags, stream, &block(&[(":status", code)]))
}

#[test]
fn a_server_greets_and_hears_the_preface_in_pieces() {
    let mut end = End { machine: Connection::server(CONFIG), keys: Vec::new(), events: Vec::new() };
    for piece in PREFACE.chunks(5) {
        end.hear(piece).unwrap();
        assert!(!end.machine.is_greeted());
    }
    end.hear(&settings(&[(3, 7)])).unwrap();
    assert_eq!(end.machine.peer().max_concurrent_streams, Some(7));
    let kinds: Vec<_> = end.said().iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
    assert_eq!(kinds, [(4, 0), (8, 0), (4, 1)]);
    let mut wrong = BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..]);
    assert!(Connection::server(CONFIG).receive(&mut wrong, clock::now()).is_err());
}

#[test]
fn what_ends_the_connection() {
    let cases: Vec<(&str, u32, Vec<u8>)> = vec![
        ("content of an idle stream", 1, data(1, 1, true)),
        ("a window of an idle stream", 1, update(1, 1)),
        ("a reset of an idle stream", 1, frame(3, 0, 1, &[0; 4])),
        ("an even stream", 1, get(2)),
        ("CONTINUATION alone", 1, frame(9, 4, 1, &[])),
        ("a frame within a block", 1, [frame(1, 1, 1, &block(&GET)), frame(6, 0, 0, &[0; 8])].concat()),
        ("another stream's CONTINUATION", 1, [frame(1, 1, 1, &block(&GET)), frame(9, 4, 3, &[])].concat()),
        ("a frame that is too long", 6, vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1]),
        ("too much for the window of the connection", 3, update(0, (1 << 31) - 1)),
        ("a window that is too large", 3, settings(&[(4, 1 << 31)])),
        ("windows that grow too large", 3, [get(1), update(1, (1 << 31) - 1 - 65_535), settings(&[(4, 65_536)])].concat()),
        ("a block that cannot be decoded", 9, frame(1, 5, 1, &[0x80])),
        ("a block that is far too long", 11, [frame(1, 1, 1, &[0; 1500]), frame(9, 0, 1, &[0; 1500])].concat()),
        ("pushing", 1, frame(5, 4, 1, &[0, 0, 0, 2])),
    ];
    for (name, code, bytes) in cases {
        let mut end = End::server();
        let violation = end.hear(&bytes).expect_err(name);
        assert_eq!(violation.code.0, code, "{name}: {violation}");
    }
    let mut end = End { machine: Connection::server(CONFIG), keys: Vec::new(), events: Vec::new() };
    assert!(end.hear(&[&PREFACE[..], &get(1)].concat()).is_err(), "settings come first");
}

#[test]
fn what_ends_a_stream_and_no_other() {
    let cases: Vec<(&str, u32, Vec<u8>)> = vec![
        ("content behind the end", 5, [get(1), data(1, 1, true)].concat()),
        ("too much content", 3, [post(1), (0..5).flat_map(|_| data(1, 16_000, false)).collect()].concat()),
        ("a window that opens by nothing", 1, [post(1), update(1, 0)].concat()),
        ("a window that grows too large", 3, [post(1), update(1, (1 << 31) - 1)].concat()),
        ("trailers that are not the end", 1, [post(1), frame(1, 4, 1, &block(&[("a", "b")]))].concat()),
        ("trailers behind the end", 5, [get(1), frame(1, 5, 1, &block(&[("a", "b")]))].concat()),
        ("a stream too many", 7, [get(3), get(5), get(7), get(9), get(11)].concat().into_iter().collect()),
    ];
    for (name, code, bytes) in cases {
        let mut end = End::server();
        end.hear(&bytes).expect(name);
        let stream = if code == 7 { 11 } else { 1 };
        assert_eq!(end.reset_of(stream), Some(code), "{name}");
        assert!(end.hear(&frame(6, 0, 0, &[0; 8])).is_ok());
    }
}

#[test]
fn content_of_a_stream_that_we_have_reset_is_borne_as_far_as_its_window_went() {
    let mut end = End::server();
    end.hear(&post(1)).unwrap();
    let key = end.keys[0];
    end.machine.reset(key, ErrorCode::CANCEL);
    end.machine.release(key);
    for _ in 0..4 {
        end.hear(&data(1, 16_000, false)).unwrap();
    }
    let said = end.said();
    assert_eq!(said.iter().filter(|(kind, ..)| *kind == 3).count(), 1, "{said:?}");
    assert_eq!(end.machine.window + i64::from(end.machine.owed), i64::from(CONFIG.connection_window));
    assert_eq!(end.hear(&data(1, 16_000, false)).map_err(|violation| violation.code), Err(ErrorCode::FLOW_CONTROL_ERROR));
}

#[test]
fn what_was_thrown_away_is_never_taken_for_a_whole_message() {
    for end_comes in [false, true] {
        let mut end = End::server();
        end.hear(&[post(1), data(1, 16_000, false)].concat()).unwrap();
        let key = end.keys[0];
        assert!(matches!(end.machine.poll_frame(key, &nobody()), Poll::Ready(Some(Ok(Frame::Data(_))))));
        end.answer(key, 0);
        assert!(end.machine.poll_heard(key, &nobody()).is_pending());
        end.hear(&data(1, 16_000, end_comes)).unwrap();
        assert_eq!(end.machine.poll_heard(key, &nobody()).is_ready(), end_comes);
        // Somebody may still have the body in hand.
        assert_eq!(end.machine.remaining(key), None);
        assert!(matches!(end.machine.poll_frame(key, &nobody()), Poll::Ready(Some(Err(_)))), "{end_comes}");
    }
}

#[test]
fn who_is_no_longer_wanted_may_say_no_more_than_the_window_allows() {
    let mut end = End::server();
    end.hear(&post(1)).unwrap();
    let key = end.keys[0];
    end.answer(key, 0);
    end.said();
    for _ in 0..4 {
        end.hear(&data(1, 16_000, false)).unwrap();
        assert!(end.machine.poll_heard(key, &nobody()).is_pending());
    }
    assert!(end.said().iter().all(|(kind, _, stream, _)| (*kind, *stream) != (8, 1)), "its window is not opened again");
    end.hear(&data(1, 16_000, false)).unwrap();
    assert_eq!(end.reset_of(1), Some(3));
    assert!(end.machine.poll_heard(key, &nobody()).is_ready());
    end.machine.release(key);
    assert!(end.machine.streams.is_empty());
}

#[test]
fn windows_open_with_the_pulling_and_not_before() {
    let mut end = End::server();
    end.hear(&[post(1), data(1, 16_000, false), data(1, 16_000, false), data(1, 16_000, false)].concat()).unwrap();
    assert!(end.said().iter().all(|(kind, ..)| *kind != 8));
    assert_eq!(end.machine.remaining(end.keys[0]), None);
    let mut pulled = 0;
    while let Poll::Ready(Some(Ok(Frame::Data(bytes)))) = end.machine.poll_frame(end.keys[0], &nobody()) {
        pulled += bytes.len();
    }
    assert_eq!(pulled, 48_000);
    let updates: Vec<_> = end.said().into_iter().filter(|(kind, ..)| *kind == 8).collect();
    assert_eq!(updates, [(8, 0, 1, 48_000_u32.to_be_bytes().to_vec())], "one for all three");
}

#[test]
fn small_answers_of_one_turn_lie_in_one_piece() {
    let mut end = End::server();
    end.hear(&[get(1), get(3), get(5), get(7)].concat()).unwrap();
    for key in end.keys.clone() {
        end.answer(key, 60);
        end.machine.release(key);
    }
    end.machine.fill();
    let one = end.machine.output().single().expect("one piece").len();
    assert!(one > 4 * 60);
    let order: Vec<_> = end.said().iter().map(|(kind, flags, stream, _)| (*kind, *flags, *stream)).collect();
    assert_eq!(order, [(1, 4, 1), (0, 1, 1), (1, 4, 3), (0, 1, 3), (1, 4, 5), (0, 1, 5), (1, 4, 7), (0, 1, 7)]);
    assert!(end.machine.streams.is_empty());
}

#[test]
fn large_answers_take_turns_and_wait_for_windows() {
    let mut end = End::server();
    end.hear(&[get(1), get(3), update(0, 1 << 20)].concat()).unwrap();
    for key in end.keys.clone() {
        end.answer(key, 100_000);
    }
    let said = end.said();
    let order: Vec<_> = said.iter().filter(|(kind, ..)| *kind == 0).map(|(_, _, stream, _)| *stream).collect();
    assert_eq!(order, [1, 3, 1, 3, 1, 3, 1, 3]);
    let sent: usize = said.iter().filter(|(kind, ..)| *kind == 0).map(|(.., payload)| payload.len()).sum();
    assert_eq!(sent, 2 * 65_535);
    // A smaller initial window takes back what was not used, and more: only what is beyond it can be sent then.
    end.hear(&[settings(&[(4, 10_000)]), update(1, 60_000)].concat()).unwrap();
    let sent: usize = end.said().iter().filter(|(kind, ..)| *kind == 0).map(|(.., payload)| payload.len()).sum();
    assert_eq!(sent, 60_000 - 55_535);
    end.hear(&settings(&[(4, 100_000)])).unwrap();
    let last: Vec<_> = end.said().into_iter().filter(|(kind, flags, ..)| (*kind, *flags) == (0, 1)).map(|f| f.2).collect();
    assert_eq!(last, [1, 3]);
}

#[test]
fn goodbye_is_said_in_two_steps() {
    let mut end = End::server();
    end.hear(&get(1)).unwrap();
    end.machine.leave();
    let said = end.said();
    assert_eq!((said[0].0, &said[0].3[..4], said[1].0), (7, &[0x7f, 0xff, 0xff, 0xff][..], 6));
    // A request that was on its way is served.
    end.hear(&[get(3), frame(6, 1, 0, &said[1].3), get(5)].concat()).unwrap();
    let said = end.said();
    assert_eq!((said.len(), said[0].0, &said[0].3[..4]), (1, 7, &[0, 0, 0, 3][..]));
    assert_eq!(end.keys.len(), 2);
    assert!(!end.machine.is_finished());
    for key in end.keys.clone() {
        end.answer(key, 0);
        end.machine.release(key);
    }
    assert!(end.machine.is_finished());
}

#[test]
fn a_client_keeps_the_answer_of_a_server_that_wants_no_more_of_the_request() {
    let mut end = End::client();
    let key = end.ask(false);
    end.hear(&[status("200", 4, 1), data(1, 5, true), frame(3, 0, 1, &[0; 4])].concat()).unwrap();
    assert!(end.machine.send_data(key, Bytes::from_static(b"more"), false).is_err());
    assert!(matches!(end.machine.poll_head(key, &nobody()), Poll::Ready(Ok(head)) if head.status == 200));
    assert!(matches!(end.machine.poll_frame(key, &nobody()), Poll::Ready(Some(Ok(Frame::Data(_))))));
    assert!(matches!(end.machine.poll_frame(key, &nobody()), Poll::Ready(None)));
    end.machine.release(key);
    assert!(end.machine.streams.is_empty());
}

#[test]
fn a_client_knows_which_streams_nobody_has_looked_at() {
    let mut end = End::client();
    let keys = [end.ask(true), end.ask(true), end.ask(true)];
    end.hear(&[frame(3, 0, 3, &[0, 0, 0, 7]), frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0])].concat()).unwrap();
    let lost: Vec<_> = keys.iter().map(|key| end.machine.poll_lost(*key, &nobody())).collect();
    let untouched = Poll::Ready(Lost { code: ErrorCode::REFUSED_STREAM, by: By::Untouched });
    assert_eq!(lost, [Poll::Pending, untouched, untouched]);
    assert!(end.machine.is_going() && end.machine.open(true, false, |_, _| {}).is_none());
}

#[test]
fn answers_without_content_state_the_length_of_what_they_do_not_bring() {
    for (bodiless, code, accepted) in [(true, "200", true), (false, "304", true), (false, "200", false)] {
        let mut end = End::client();
        let key = end.machine.open(true, bodiless, |_, out| out.extend_from_slice(&block(&GET))).unwrap();
        let head = block(&[(":status", code), ("content-length", "5")]);
        end.hear(&frame(1, 5, 1, &head)).unwrap();
        assert_eq!(matches!(end.machine.poll_head(key, &nobody()), Poll::Ready(Ok(_))), accepted, "{code}");
    }
}

#[test]
fn what_follows_a_connect_has_no_length() {
    for (connects, code) in [(true, "200"), (false, "200"), (true, "407")] {
        let mut end = End::client();
        let key = end.machine.open(false, false, |_, out| out.extend_from_slice(&block(&GET))).unwrap();
        if connects {
            end.machine.connects(key);
        }
        end.hear(&frame(1, 4, 1, &block(&[(":status", code), ("content-length", "0")]))).unwrap();
        assert!(matches!(end.machine.poll_head(key, &nobody()), Poll::Ready(Ok(_))));
        end.hear(&frame(0, 0, 1, b"bytes")).unwrap();
        assert_eq!(end.machine.poll_lost(key, &nobody()).is_pending(), connects && code == "200", "{connects} {code}");
    }
}

#[test]
fn a_client_opens_no_more_streams_than_the_server_takes() {
    let mut end = End::client();
    end.hear(&settings(&[(3, 1)])).unwrap();
    let first = end.ask(true);
    assert!(end.machine.open(true, false, |_, _| {}).is_none());
    end.hear(&status("204", 5, 1)).unwrap();
    end.machine.release(first);
    assert_eq!(end.ask(true).id(), 3);
}
