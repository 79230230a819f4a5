//! What comes: frames, judged by the state of their stream and by the windows (RFC 9113 sections 5 and 6). It sends only what they call for.

use bytes::{Buf, BytesMut};
use heddle_node::clock::Instant;

use super::Connection;
use super::ending::FAREWELL;
use super::heads::Event;
use super::stream::{By, JOIN_MAX, Lost, wake};
use super::table::StreamKey;
use crate::http::h2::frame::{
    ErrorCode, Frame, FrameHeader, HEADER_LEN, Kind, MAX_WINDOW, Role, Violation, write_ping, write_settings_ack,
};

impl Connection {
    /// Reads what has come up to the next event; `None` when more must come first. What was read is taken off `input`, which must have room
    /// for a whole frame.
    pub fn receive(&mut self, input: &mut BytesMut, now: Instant) -> Result<Option<Event>, Violation> {
        if !self.take_preface(input)? {
            return Ok(None);
        }
        loop {
            let Some(header) = FrameHeader::peek(input) else { return Ok(None) };
            header.check_length(self.config.max_frame_size)?;
            self.check_order(header)?;
            if input.len() < header.total() {
                return Ok(None);
            }
            let done = if header.kind == Kind::Data as u8 {
                self.take_data(header, input, now).map(|()| None)
            } else {
                let done = Frame::parse(header, &input[HEADER_LEN..header.total()]).and_then(|frame| self.take(frame, now));
                input.advance(header.total());
                done
            };
            let event = match done {
                Ok(event) => event,
                Err(violation) => {
                    self.contain(violation, now)?;
                    None
                }
            };
            if self.glitches.exhausted() {
                return Err(Violation::connection(ErrorCode::ENHANCE_YOUR_CALM, "too many suspicious frames"));
            }
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Takes the preface off; whether it is complete.
    fn take_preface(&mut self, input: &mut BytesMut) -> Result<bool, Violation> {
        let len = self.preface.len().min(input.len());
        if input[..len] != self.preface[..len] {
            return Err(Violation::connection(ErrorCode::PROTOCOL_ERROR, "not the preface of HTTP/2"));
        }
        input.advance(len);
        self.preface = &self.preface[len..];
        Ok(self.preface.is_empty())
    }

    /// Settings come first, and nothing comes within a field block (RFC 9113 sections 3.4 and 6.10).
    fn check_order(&self, header: FrameHeader) -> Result<(), Violation> {
        let protocol = |detail| Err(Violation::connection(ErrorCode::PROTOCOL_ERROR, detail));
        let continues = header.kind == Kind::Continuation as u8;
        match &self.block {
            _ if !self.greeted && header.kind != Kind::Settings as u8 => protocol("settings must come first"),
            Some(block) if !continues || block.stream != header.stream => protocol("a field block was interrupted"),
            None if continues => protocol("CONTINUATION without a field block"),
            _ => Ok(()),
        }
    }

    fn take(&mut self, frame: Frame<'_>, now: Instant) -> Result<Option<Event>, Violation> {
        match frame {
            Frame::Headers { stream, end_stream, end_headers: true, fragment } => {
                return self.take_block(stream, end_stream, fragment, now);
            }
            Frame::Headers { stream, end_stream, end_headers: false, fragment } => {
                self.begin_block(stream, end_stream, fragment, now)?;
            }
            Frame::Continuation { end_headers, fragment, .. } => return self.continue_block(end_headers, fragment, now),
            Frame::Reset { stream, code } => self.take_reset(stream, code, now)?,
            Frame::Settings(payload) => self.take_settings(payload, now)?,
            Frame::SettingsAck => self.acknowledged = true,
            Frame::Ping { ack: false, opaque } => {
                self.glitches.ping(now);
                write_ping(self.out.gathered(), true, opaque);
            }
            Frame::Ping { ack: true, opaque: FAREWELL } => self.left(),
            Frame::Ping { ack: true, .. } => return Ok(Some(Event::Pong)),
            Frame::GoAway { last, code, .. } => {
                self.peer_leaves(last);
                return Ok(Some(Event::GoAway(code)));
            }
            Frame::WindowUpdate { stream, increment } => self.take_update(stream, increment, now)?,
            // Content was taken before.
            Frame::Data { .. } => {}
            Frame::Priority | Frame::Unknown => self.glitches.note(now),
        }
        Ok(None)
    }

    fn take_settings(&mut self, payload: &[u8], now: Instant) -> Result<(), Violation> {
        if self.greeted {
            self.glitches.note(now);
        }
        self.greeted = true;
        let by = if self.role == Role::Server { Role::Client } else { Role::Server };
        let before = i64::from(self.peer.initial_window_size);
        let smallest = self.peer.apply(payload, by)?;
        if let Some(smallest) = smallest {
            self.codec.resize(smallest, self.peer.header_table_size);
        }
        let change = i64::from(self.peer.initial_window_size) - before;
        if change != 0 {
            for stream in self.streams.iter_mut() {
                stream.outgoing.window += change;
                if stream.outgoing.window > i64::from(MAX_WINDOW) {
                    return Err(Violation::connection(ErrorCode::FLOW_CONTROL_ERROR, "the windows of streams grow too large"));
                }
            }
            for key in self.streams.keys() {
                self.stand_in_line(key);
            }
        }
        write_settings_ack(self.out.gathered());
        Ok(())
    }

    fn take_update(&mut self, stream: u32, increment: u32, now: Instant) -> Result<(), Violation> {
        self.glitches.update(now);
        if stream == 0 {
            self.send_window += i64::from(increment);
            return match self.send_window > i64::from(MAX_WINDOW) {
                true => Err(Violation::connection(ErrorCode::FLOW_CONTROL_ERROR, "the window of the connection grows too large")),
                false => Ok(()),
            };
        }
        let Some(key) = self.find(stream)? else { return Ok(()) };
        if let Some(found) = self.streams.get_mut(key) {
            found.outgoing.window += i64::from(increment);
            if found.outgoing.window > i64::from(MAX_WINDOW) {
                return Err(Violation::stream(stream, ErrorCode::FLOW_CONTROL_ERROR, "the window of a stream grows too large"));
            }
        }
        self.stand_in_line(key);
        Ok(())
    }

    fn take_reset(&mut self, stream: u32, code: ErrorCode, now: Instant) -> Result<(), Violation> {
        self.glitches.note(now);
        if let Some(key) = self.find(stream)? {
            let untouched = self.role == Role::Client && code == ErrorCode::REFUSED_STREAM;
            self.lose(key, Lost { code, by: if untouched { By::Untouched } else { By::Peer } });
        }
        Ok(())
    }

    /// The stream of a frame; `None` when it has ended. A frame for a stream that nobody has opened ends the connection.
    pub(super) fn find(&mut self, stream: u32) -> Result<Option<StreamKey>, Violation> {
        if let Some(key) = self.recent.filter(|key| key.id() == stream && self.streams.get(*key).is_some()) {
            return Ok(Some(key));
        }
        if self.is_untouched(stream) {
            return Err(Violation::connection(ErrorCode::PROTOCOL_ERROR, "a frame for a stream that was not opened"));
        }
        let found = self.streams.find(stream);
        self.recent = found.or(self.recent);
        Ok(found)
    }

    /// Takes content in: padding and all count against both windows, what is pulled later opens them again.
    fn take_data(&mut self, header: FrameHeader, input: &mut BytesMut, now: Instant) -> Result<(), Violation> {
        let total = header.total();
        let (end, at, len) = match Frame::parse(header, &input[HEADER_LEN..total])? {
            Frame::Data { end_stream, data, .. } => {
                let padded = header.flags & crate::http::h2::frame::flags::PADDED != 0;
                (end_stream, HEADER_LEN + usize::from(padded), data.len())
            }
            _ => return Ok(()),
        };
        let accepted = self.admit_data(header, len as u32, end, now);
        match accepted {
            Ok(Some(key)) => {
                let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
                if len > JOIN_MAX {
                    let mut frame = input.split_to(total);
                    frame.advance(at);
                    frame.truncate(len);
                    stream.incoming.push(frame.freeze());
                } else {
                    if len > 0 {
                        stream.incoming.push_copy(&input[at..at + len]);
                    }
                    input.advance(total);
                }
                stream.incoming.ended = end;
                wake(&mut stream.incoming.waker);
                self.give_back(key, header.length - len as u32);
                self.streams.settle(key);
                Ok(())
            }
            Ok(None) => {
                input.advance(total);
                Ok(())
            }
            Err(violation) => {
                input.advance(total);
                Err(violation)
            }
        }
    }

    /// Whose content it is; `None` when nobody wants it.
    fn admit_data(&mut self, header: FrameHeader, len: u32, end: bool, now: Instant) -> Result<Option<StreamKey>, Violation> {
        let (stream, flow) = (header.stream, header.length);
        self.window -= i64::from(flow);
        if self.window < 0 {
            return Err(Violation::connection(ErrorCode::FLOW_CONTROL_ERROR, "more content than the connection takes"));
        }
        if len == 0 && !end {
            self.glitches.note(now);
        }
        let key = self.find(stream)?;
        let Some(found) = key.and_then(|key| self.streams.get_mut(key)).filter(|found| found.lost.is_none()) else {
            self.give_back_to_all(flow);
            return match self.buried.take(stream, flow) {
                Some(true) => Ok(None),
                Some(false) => Err(Violation::connection(ErrorCode::FLOW_CONTROL_ERROR, "more content than a stream takes")),
                None => Err(Violation::stream(stream, ErrorCode::STREAM_CLOSED, "content of a stream that has ended")),
            };
        };
        let incoming = &mut found.incoming;
        incoming.window -= i64::from(flow);
        let fault = if incoming.ended {
            Some((ErrorCode::STREAM_CLOSED, "content behind the end"))
        } else if incoming.window < 0 {
            Some((ErrorCode::FLOW_CONTROL_ERROR, "more content than a stream takes"))
        } else if !incoming.headed {
            Some((ErrorCode::PROTOCOL_ERROR, "content before the head"))
        } else if incoming.expected.is_some_and(|left| left < u64::from(len) || (end && left > u64::from(len))) {
            Some((ErrorCode::PROTOCOL_ERROR, "the content is not as long as was announced"))
        } else {
            None
        };
        if let Some((code, detail)) = fault {
            self.give_back_to_all(flow);
            return Err(Violation::stream(stream, code, detail));
        }
        incoming.expected = incoming.expected.map(|left| left - u64::from(len));
        if incoming.unwanted {
            incoming.ended = end;
            if end {
                wake(&mut incoming.waker);
            }
            self.give_back_to_all(flow);
            if let Some(key) = key {
                self.streams.settle(key);
            }
            return Ok(None);
        }
        Ok(key)
    }
}
