//! A question for a name that agents answer in their own way (RFC 1035 section 4.1), and that answer: functions of bytes.
//!
//! The name ends in `.mesh` and is no service's: an agent says by itself and at once that there is none. Other servers do not say it with authority, but those of
//! the root, and these tell of their zone with it.

/// Largest packet that is read.
pub(super) const MOST: usize = 512;
/// What stands before the name: the number, the flags and how many of what there are.
const HEAD: usize = 12;
/// Flags: an answer, with authority, recursion wanted, recursion to be had, and the code for "no such name".
const FLAGS: u16 = 0x8583;
/// Recursion is wanted, as by every program that asks.
const WANTED: u16 = 0x0100;
/// What of the flags is judged: all but whether the recursion that was wanted is said back.
const JUDGED: u16 = 0xfeff;

/// A question of one caller.
#[derive(Debug)]
pub(super) struct Question {
    bytes: Vec<u8>,
}

/// What a packet is to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// No answer to it.
    Not,
    /// What an agent says, or whoever says the same.
    ByAgent,
    /// What somebody else says.
    ByOther,
}

impl Question {
    /// That of the caller at this port, who is told from all others by it.
    pub(super) fn of(port: u16) -> Question {
        let mut bytes = [port, WANTED, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
        for label in [&*format!("from-{port}"), "try", "capture", "mesh"] {
            // Labels are short.
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        // The root, type A, class IN.
        bytes.extend([0, 0, 1, 0, 1]);
        Question { bytes }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What an agent answers.
    pub(super) fn answer(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[2..4].copy_from_slice(&FLAGS.to_be_bytes());
        bytes
    }

    pub(super) fn judge(&self, packet: &[u8]) -> Answered {
        let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let (Some(flags), Some(number)) = (word(2), packet.get(..2)) else { return Answered::Not };
        if number != &self.bytes[..2] || flags & 0x8000 == 0 {
            return Answered::Not;
        }
        // One question, said back, and nothing else.
        let is_bare = packet.get(4..HEAD) == Some(&self.bytes[4..HEAD]) && packet.get(HEAD..) == Some(&self.bytes[HEAD..]);
        if flags & JUDGED == FLAGS & JUDGED && is_bare { Answered::ByAgent } else { Answered::ByOther }
    }
}
