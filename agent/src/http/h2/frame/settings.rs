//! Settings of one end of a connection (RFC 9113 section 6.5.2, RFC 8441 section 3). It knows no streams whose windows they move.

use super::{ErrorCode, Violation};

/// Octets of one setting.
pub(super) const ENTRY_LEN: usize = 6;
/// Largest flow-control window (section 6.9.1).
pub const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Window of streams and connections until settings and updates say otherwise.
pub const DEFAULT_WINDOW: u32 = 65_535;
/// Smallest and initial limit of a payload.
pub const DEFAULT_FRAME_SIZE: u32 = 1 << 14;
/// Largest limit of a payload.
pub const MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
/// Dynamic table until settings say otherwise.
pub const DEFAULT_TABLE_SIZE: u32 = 4_096;

/// Settings that we say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Setting {
    /// Whether the sender takes pushed streams.
    EnablePush = 2,
    /// Streams at once that the sender lets the other end open.
    MaxConcurrentStreams = 3,
    /// Window of new streams towards the sender.
    InitialWindowSize = 4,
    /// Longest payload that the sender takes.
    MaxFrameSize = 5,
    /// Octets of a field section that the sender takes, counted as section 6.5.2 has it; advice only.
    MaxHeaderListSize = 6,
    /// Whether the sender, a server, takes extended CONNECT.
    EnableConnectProtocol = 8,
}

/// Who said settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end that opened the connection.
    Client,
    /// The other one.
    Server,
}

/// All settings of one end, from their initial values on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Octets of the dynamic table that the sender keeps for decoding (SETTINGS_HEADER_TABLE_SIZE).
    pub header_table_size: u32,
    /// See [`Setting::EnablePush`].
    pub enable_push: bool,
    /// See [`Setting::MaxConcurrentStreams`]; `None` is any number.
    pub max_concurrent_streams: Option<u32>,
    /// See [`Setting::InitialWindowSize`]; at most [`MAX_WINDOW`].
    pub initial_window_size: u32,
    /// See [`Setting::MaxFrameSize`].
    pub max_frame_size: u32,
    /// See [`Setting::MaxHeaderListSize`]; `None` is any size.
    pub max_header_list_size: Option<u32>,
    /// See [`Setting::EnableConnectProtocol`].
    pub enable_connect_protocol: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            header_table_size: DEFAULT_TABLE_SIZE,
            enable_push: true,
            max_concurrent_streams: None,
            initial_window_size: DEFAULT_WINDOW,
            max_frame_size: DEFAULT_FRAME_SIZE,
            max_header_list_size: None,
            enable_connect_protocol: false,
        }
    }
}

impl Settings {
    /// Takes in the payload of a SETTINGS frame that `by` sent, in its order; unknown settings are ignored. Says the smallest table size that it
    /// named on the way, which the encoder must know of (RFC 7541 section 4.2).
    pub fn apply(&mut self, payload: &[u8], by: Role) -> Result<Option<u32>, Violation> {
        let mut smallest: Option<u32> = None;
        let (entries, _) = payload.as_chunks::<ENTRY_LEN>();
        for [a, b, c, d, e, f] in entries {
            let (name, value) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f]));
            match name {
                1 => {
                    self.header_table_size = value;
                    smallest = Some(smallest.map_or(value, |least| least.min(value)));
                }
                2 => {
                    self.enable_push = switch(value)?;
                    if self.enable_push && by == Role::Server {
                        return Err(Violation::protocol("a server switches push on"));
                    }
                }
                3 => self.max_concurrent_streams = Some(value),
                4 if value > MAX_WINDOW => {
                    return Err(Violation::connection(ErrorCode::FLOW_CONTROL_ERROR, "the initial window is too large"));
                }
                4 => self.initial_window_size = value,
                5 if !(DEFAULT_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&value) => {
                    return Err(Violation::protocol("the frame size is out of range"));
                }
                5 => self.max_frame_size = value,
                6 => self.max_header_list_size = Some(value),
                8 => {
                    let on = switch(value)?;
                    if self.enable_connect_protocol && !on && by == Role::Server {
                        return Err(Violation::protocol("extended CONNECT is switched off again"));
                    }
                    self.enable_connect_protocol = on;
                }
                _ => {}
            }
        }
        Ok(smallest)
    }
}

fn switch(value: u32) -> Result<bool, Violation> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Violation::protocol("a setting is neither 0 nor 1")),
    }
}
