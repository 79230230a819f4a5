//! The streams of a connection and their places, which are used again. It knows no frames.

use super::stream::Stream;

/// A stream: its place, and its number, which no other stream of the connection ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamKey {
    slot: u32,
    id: u32,
}

impl StreamKey {
    /// Number on the wire.
    pub fn id(self) -> u32 {
        self.id
    }

    /// Its place, small: those of ended streams are used again.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Streams.
#[derive(Debug, Default)]
pub(super) struct Table {
    streams: Vec<Stream>,
    /// Numbers by place, close together: looking one up reads few cache lines.
    ids: Vec<u32>,
    free: Vec<u32>,
    /// Streams that have not ended on the wire.
    open: usize,
}

impl Table {
    /// Opens a stream with these windows.
    pub(super) fn open(&mut self, id: u32, incoming: i64, outgoing: i64) -> StreamKey {
        debug_assert!(id > 0);
        self.open += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.streams.push(Stream::default());
            self.ids.push(0);
            self.ids.len() as u32 - 1
        });
        let stream = &mut self.streams[slot as usize];
        stream.id = id;
        stream.held = true;
        stream.counted = true;
        stream.incoming.window = incoming;
        stream.outgoing.window = outgoing;
        self.ids[slot as usize] = id;
        StreamKey { slot, id }
    }

    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.streams.get(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.streams.get_mut(key.slot as usize).filter(|stream| stream.id == key.id)
    }

    /// The stream with this number.
    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        debug_assert!(id > 0);
        self.ids.iter().position(|known| *known == id).map(|slot| StreamKey { slot: slot as u32, id })
    }

    /// Streams that have not ended on the wire.
    pub(super) fn open_count(&self) -> usize {
        self.open
    }

    /// Places that are taken.
    pub(super) fn taken(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// Whether there are none, ended ones that are still held included.
    pub(super) fn is_empty(&self) -> bool {
        self.taken() == 0
    }

    /// Looks whether a stream has ended on the wire, and frees its place when its user has let go of it too.
    pub(super) fn settle(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key).filter(|stream| stream.is_closed()) else { return };
        let (counted, held) = (std::mem::take(&mut stream.counted), stream.held);
        self.open -= usize::from(counted);
        if !held {
            self.remove(key);
        }
    }

    /// Frees a place. Queues keep their room for the next stream.
    fn remove(&mut self, key: StreamKey) {
        let Some(stream) = self.get_mut(key) else { return };
        stream.clear();
        self.ids[key.slot as usize] = 0;
        self.free.push(key.slot);
    }

    /// All streams.
    pub(super) fn keys(&self) -> impl Iterator<Item = StreamKey> + use<> {
        let ids: smallvec::SmallVec<[u32; 128]> = self.ids.iter().copied().collect();
        ids.into_iter().enumerate().filter(|(_, id)| *id > 0).map(|(slot, id)| StreamKey { slot: slot as u32, id })
    }

    /// All streams, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut().filter(|stream| stream.id > 0)
    }

    /// Gives the memory back when there are no streams.
    pub(super) fn slim(&mut self) {
        if self.is_empty() {
            *self = Table::default();
        }
    }
}
