//! A client and a server exchange messages over a wire that cuts their bytes anywhere: everything arrives whole and in order, windows hold,
//! and memory stays within them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use heddle_node::clock;
use proptest::prelude::*;

use super::*;
use crate::http::h2::message::{WireLength, write_request, write_response};
use crate::http::{Fields, Frame, Method, RequestHead, ResponseHead};

/// The byte that stands at a place of a body.
fn byte(stream: u32, at: usize) -> u8 {
    (stream as usize * 31 + at * 7 + (at >> 8)) as u8
}

/// One direction of an exchange, seen from its sender.
struct Sending {
    len: usize,
    sent: usize,
    trailers: bool,
    ended: bool,
}

/// One direction of an exchange, seen from its receiver.
#[derive(Default)]
struct Receiving {
    len: usize,
    received: usize,
    trailers: bool,
    ended: bool,
}

/// One end with its users.
struct Side {
    machine: Connection,
    input: BytesMut,
    streams: HashMap<u32, (StreamKey, Sending, Receiving)>,
    /// Streams that were cancelled.
    lost: usize,
    done: usize,
}

const CONFIG: Config = Config {
    stream_window: 70_000,
    connection_window: 150_000,
    max_frame_size: 16_384,
    max_streams: 8,
    heads: HeadLimits {
        max_bytes: 16_384,
        max_field: 8192,
        max_fields: 50,
        max_target: 4096,
        connect: false,
        any_authority: false,
    },
    glitch_budget: 1_000_000,
};

fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

impl Side {
    fn new(machine: Connection) -> Side {
        Side { machine, input: BytesMut::new(), streams: HashMap::new(), lost: 0, done: 0 }
    }

    /// Sends a piece on a stream, where there is room.
    fn speak(&mut self, stream: u32, piece: usize) {
        let (key, sending, _) = self.streams.get_mut(&stream).unwrap();
        if sending.ended || !matches!(self.machine.poll_room(*key, &nobody()), Poll::Ready(Ok(()))) {
            return;
        }
        let len = piece.min(sending.len - sending.sent);
        let bytes: Vec<u8> = (sending.sent..sending.sent + len).map(|at| byte(stream, at)).collect();
        sending.sent += len;
        let all = sending.sent == sending.len;
        sending.ended = all;
        self.machine.send_data(*key, Bytes::from(bytes), all && !sending.trailers).unwrap();
        if all && sending.trailers {
            let mut trailers = Box::<Fields>::default();
            trailers.append("sum", sending.len.to_string());
            self.machine.send_trailers(*key, trailers).unwrap();
        }
    }

    /// Pulls a piece of a stream, where there is one.
    fn listen(&mut self, stream: u32) {
        let (key, _, receiving) = self.streams.get_mut(&stream).unwrap();
        if receiving.ended {
            return;
        }
        match self.machine.poll_frame(*key, &nobody()) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => {
                let right = bytes.iter().enumerate().all(|(at, found)| *found == byte(stream, receiving.received + at));
                assert!(right, "stream {stream} behind {}", receiving.received);
                receiving.received += bytes.len();
            }
            Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => {
                assert!(receiving.trailers);
                assert_eq!(trailers.get("sum"), Some(receiving.len.to_string().as_bytes()));
                receiving.trailers = false;
            }
            Poll::Ready(Some(Err(lost))) => panic!("stream {stream}: {lost:?}"),
            Poll::Ready(None) => {
                assert_eq!((receiving.received, receiving.trailers), (receiving.len, false));
                receiving.ended = true;
            }
        }
    }

    fn cancel(&mut self, stream: u32) {
        let (key, ..) = self.streams.remove(&stream).unwrap();
        self.machine.reset(key, crate::http::h2::frame::ErrorCode::CANCEL);
        self.machine.release(key);
        self.lost += 1;
    }

    /// Lets go of what has ended, and of what the other side has cancelled.
    fn tidy(&mut self) {
        let machine = &mut self.machine;
        let (lost, done) = (&mut self.lost, &mut self.done);
        self.streams.retain(|_, (key, sending, receiving)| {
            let gone = machine.poll_lost(*key, &nobody()).is_ready();
            let flushed = sending.ended && matches!(machine.poll_flushed(*key, &nobody()), Poll::Ready(Ok(())));
            if gone || (flushed && receiving.ended) {
                machine.release(*key);
                *if gone { &mut *lost } else { &mut *done } += 1;
                return false;
            }
            true
        });
    }

    /// What must hold at any time.
    fn check(&mut self) {
        let machine = &mut self.machine;
        assert!(machine.window >= 0 && machine.send_window >= 0);
        assert!(machine.open_streams() <= CONFIG.max_streams as usize);
        let mut held = 0;
        for stream in machine.streams.iter_mut() {
            assert!(stream.incoming.window >= 0 && stream.incoming.queued <= CONFIG.stream_window as usize);
            held += stream.incoming.queued;
        }
        assert!(held <= CONFIG.connection_window as usize);
        assert!(machine.out.len() < 64 * 1024 + 32 * 1024, "{} bytes wait", machine.out.len());
    }

    /// Moves at most `most` bytes to the other side.
    fn write(&mut self, other: &mut Side, most: usize) {
        self.machine.fill();
        let bytes: Vec<u8> = self.machine.out.slices().iter().flat_map(|slice| slice.to_vec()).take(most).collect();
        self.machine.out.advance(bytes.len());
        other.input.extend_from_slice(&bytes);
    }
}

/// What a request and its answer are like.
#[derive(Debug, Clone)]
struct Plan {
    request: usize,
    response: usize,
    trailers: bool,
    announced: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let len = prop_oneof![Just(0_usize), 1..200_usize, 4000..5000_usize, 0..300_000_usize];
    (len.clone(), len, any::<bool>(), any::<bool>()).prop_map(|(request, response, trailers, announced)| Plan {
        request,
        response,
        trailers,
        announced,
    })
}

fn ask(client: &mut Side, plan: &Plan) -> bool {
    // Until the server has said how many it takes, a client may open more (RFC 9113 section 5.1.2), and some would be refused.
    if client.machine.peer.max_concurrent_streams.is_none() {
        return false;
    }
    let head = RequestHead {
        method: Method::Post,
        path: format!("/{}/{}/{}", plan.request, plan.response, plan.trailers),
        authority: "a".into(),
        ..RequestHead::default()
    };
    let length = if plan.announced { WireLength::Known(plan.request as u64) } else { WireLength::Absent };
    let end = plan.request == 0 && !plan.trailers;
    let Some(key) = client.machine.open(end, false, |encoder, out| write_request(encoder, out, &head, "a", false, length)) else {
        return false;
    };
    let sending = Sending { len: plan.request, sent: 0, trailers: plan.trailers, ended: end };
    let receiving = Receiving { len: plan.response, trailers: plan.trailers, ..Receiving::default() };
    client.streams.insert(key.id(), (key, sending, receiving));
    true
}

fn hear_client(client: &mut Side) {
    while client.machine.receive(&mut client.input, clock::now()).unwrap().is_some() {}
    for (key, ..) in client.streams.values() {
        if let Poll::Ready(Ok(head)) = client.machine.poll_head(*key, &nobody()) {
            assert_eq!(head.status, 200);
        }
    }
}

fn hear_server(server: &mut Side) {
    while let Some(event) = server.machine.receive(&mut server.input, clock::now()).unwrap() {
        let Event::Request(request) = event else { panic!("{event:?}") };
        let numbers: Vec<_> = request.head.path.split('/').collect();
        let (asked, answer, trailers) = (numbers[1].parse().unwrap(), numbers[2].parse().unwrap(), numbers[3] == "true");
        let sending = Sending { len: answer, sent: 0, trailers, ended: false };
        let receiving = Receiving { len: asked, trailers, ..Receiving::default() };
        let head = ResponseHead::new(200);
        let length = if answer % 2 == 0 { WireLength::Known(answer as u64) } else { WireLength::Absent };
        let encode = |encoder: &mut _, out: &mut _| write_response(encoder, out, &head, length, None);
        server.machine.send_head(request.key, false, encode).unwrap();
        server.streams.insert(request.key.id(), (request.key, sending, receiving));
    }
}

/// Runs the plans to their end; whether each side saw as many ends and losses as the other.
fn run(plans: &[Plan], seed: u64, cancels: bool) -> (Side, Side) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut client, mut server) = (Side::new(Connection::client(CONFIG)), Side::new(Connection::server(CONFIG)));
    let mut plans = plans.iter().peekable();
    let mut idle = 0;
    while plans.peek().is_some() || !client.streams.is_empty() || !server.streams.is_empty() {
        idle += 1;
        assert!(idle < 200_000, "it does not end");
        if let Some(plan) = plans.peek()
            && dice.u8(..4) == 0
            && ask(&mut client, plan)
        {
            plans.next();
        }
        let (near, far) = if dice.bool() { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let streams: Vec<u32> = near.streams.keys().copied().collect();
        if !streams.is_empty() {
            let stream = streams[dice.usize(..streams.len())];
            match dice.u8(..20) {
                0 if cancels && dice.u8(..8) == 0 => near.cancel(stream),
                0..10 => near.speak(stream, dice.usize(..40_000)),
                _ => near.listen(stream),
            }
        }
        let most = if dice.bool() { dice.usize(..20) } else { dice.usize(..60_000) };
        near.write(far, most);
        hear_client(&mut client);
        hear_server(&mut server);
        for side in [&mut client, &mut server] {
            side.tidy();
            side.check();
        }
    }
    (client, server)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_whole(plans in prop::collection::vec(plan(), 1..12), seed: u64) {
        let (mut client, mut server) = run(&plans, seed, false);
        prop_assert_eq!((client.done, server.done, client.lost + server.lost), (plans.len(), plans.len(), 0));
        for side in [&mut client, &mut server] {
            prop_assert!(side.machine.streams.is_empty() && side.machine.open_streams() == 0);
            side.machine.slim();
        }
    }

    #[test]
    fn what_is_cancelled_harms_no_other(plans in prop::collection::vec(plan(), 1..20), seed: u64) {
        let (mut client, mut server) = run(&plans, seed, true);
        // What is still on its way belongs to streams that were cancelled.
        for _ in 0..10_000 {
            client.write(&mut server, 10_000);
            server.write(&mut client, 10_000);
            hear_client(&mut client);
            hear_server(&mut server);
            server.tidy();
        }
        for side in [&client, &server] {
            prop_assert!(side.machine.streams.is_empty() && side.machine.line.is_empty() && side.machine.out.is_empty());
            // Nothing of the window is lost: what was not given back yet is owed.
            prop_assert_eq!(side.machine.window + i64::from(side.machine.owed), i64::from(CONFIG.connection_window));
        }
    }
}
