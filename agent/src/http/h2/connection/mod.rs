//! One HTTP/2 connection of either side as a machine: bytes in, messages out, and the other way round (RFC 9113). It knows no sockets and waits
//! for nobody.
//!
//! What comes is read by [`Connection::receive`]; what a user of a stream says is framed at once, or when the windows of the peer open, into
//! [`Connection::output`]. Whoever waits for content, for room or for the end of a stream leaves a waker.

mod ending;
mod glitches;
mod heads;
mod output;
mod pull;
mod receive;
mod send;
#[cfg(test)]
mod simulation;
mod stream;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use heddle_node::clock::Instant;

use self::ending::{Buried, Leaving};
use self::glitches::Glitches;
use self::heads::{Block, Codec};
use self::table::Table;
use super::frame::{DEFAULT_WINDOW, PREFACE, Role, Setting, Settings, write_ping, write_settings, write_window_update};
use crate::http::h1::HeadLimits;

pub use self::heads::{Event, Request};
pub use self::output::Output;
pub use self::stream::{By, Lost};
pub use self::table::StreamKey;

/// How a connection is run.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Bytes of a stream that the peer may send before they are pulled; not below the protocol's default.
    pub stream_window: u32,
    /// The same for all streams together.
    pub connection_window: u32,
    /// Longest payload of a frame that is taken.
    pub max_frame_size: u32,
    /// Streams at once that the peer may open.
    pub max_streams: u32,
    /// Bounds on heads and trailers.
    pub heads: HeadLimits,
    /// Suspicious frames that are borne in ten seconds.
    pub glitch_budget: u32,
}

impl Config {
    /// Places that streams can take: those that have ended on the wire and are still held included.
    pub fn max_places(&self) -> usize {
        self.max_streams as usize * 2
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    config: Config,
    peer: Settings,
    /// Octets of the preface that are still to come.
    preface: &'static [u8],
    /// Whether the peer's first settings have come, which must come first.
    greeted: bool,
    /// Whether the peer keeps to our settings.
    acknowledged: bool,
    streams: Table,
    /// The stream that a frame was last for: content often comes in a row.
    recent: Option<StreamKey>,
    codec: Codec,
    /// A field block that is not complete.
    block: Option<Block>,
    /// Highest stream that the peer has opened.
    last_peer: u32,
    /// Next stream that we open.
    next_own: u32,
    /// What the peer may still send on all streams, and what of it was pulled and not yet given back.
    window: i64,
    owed: u32,
    /// What the peer takes on all streams.
    send_window: i64,
    /// Streams that can send, each in its turn.
    line: VecDeque<StreamKey>,
    buried: Buried,
    leaving: Leaving,
    /// The last stream that the peer will look at, once it has said so.
    peer_last: Option<u32>,
    glitches: Glitches,
    out: Output,
}

impl Connection {
    /// The end that a client connects to.
    pub fn server(config: Config) -> Connection {
        let mut connection = Connection::new(Role::Server, config);
        connection.preface = PREFACE;
        let settings = [(Setting::MaxConcurrentStreams, config.max_streams), (Setting::EnableConnectProtocol, 1)];
        connection.greet(&settings);
        connection
    }

    /// The end that connects to a server.
    pub fn client(config: Config) -> Connection {
        let mut connection = Connection::new(Role::Client, config);
        connection.out.gathered().extend_from_slice(PREFACE);
        connection.greet(&[(Setting::EnablePush, 0)]);
        connection
    }

    fn new(role: Role, config: Config) -> Connection {
        debug_assert!(config.stream_window >= DEFAULT_WINDOW && config.connection_window >= DEFAULT_WINDOW);
        Connection {
            role,
            config,
            peer: Settings::default(),
            preface: &[],
            greeted: false,
            acknowledged: false,
            streams: Table::default(),
            recent: None,
            codec: Codec::new(),
            block: None,
            last_peer: 0,
            next_own: 1,
            window: i64::from(config.connection_window),
            owed: 0,
            send_window: i64::from(DEFAULT_WINDOW),
            line: VecDeque::new(),
            buried: Buried::default(),
            leaving: Leaving::No,
            peer_last: None,
            glitches: Glitches::new(config.glitch_budget),
            out: Output::default(),
        }
    }

    fn greet(&mut self, own: &[(Setting, u32)]) {
        let shared = [
            (Setting::InitialWindowSize, self.config.stream_window),
            (Setting::MaxFrameSize, self.config.max_frame_size),
            (Setting::MaxHeaderListSize, self.config.heads.max_bytes as u32),
        ];
        let more = self.config.connection_window - DEFAULT_WINDOW;
        let out = self.out.gathered();
        write_settings(out, &[own, &shared].concat());
        if more > 0 {
            write_window_update(out, 0, more);
        }
    }

    /// Bytes on their way to the peer. [`Connection::fill`] puts there what the windows allow.
    pub fn output(&mut self) -> &mut Output {
        &mut self.out
    }

    /// Whether something can be sent now.
    pub fn has_to_send(&self) -> bool {
        !self.out.is_empty() || (!self.line.is_empty() && self.send_window > 0)
    }

    /// Asks the peer for a sign of life, which comes as [`Event::Pong`].
    pub fn ping(&mut self, opaque: [u8; 8]) {
        write_ping(self.out.gathered(), false, opaque);
    }

    /// The peer's settings as far as they are known.
    pub fn peer(&self) -> &Settings {
        &self.peer
    }

    /// Whether the peer's settings have come.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Streams that have not ended on the wire.
    pub fn open_streams(&self) -> usize {
        self.streams.open_count()
    }

    /// Since when a field block is not complete.
    pub fn block_since(&self) -> Option<Instant> {
        self.block.as_ref().map(|block| block.since)
    }

    /// Gives back the memory that only a busy connection needs.
    pub fn slim(&mut self) {
        self.out.slim();
        self.streams.slim();
        self.codec.slim();
        if self.line.is_empty() {
            self.line = VecDeque::new();
        }
    }
}
