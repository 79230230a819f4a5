//! The least of delta discovery that an agent must read and write, by hand and without copying: it names no resource type's fields.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The method of the stream.
pub const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Fields of `DeltaDiscoveryRequest`, `DeltaDiscoveryResponse`, `Resource` and `Any`.
mod field {
    pub const REQUEST_NODE: u8 = 1;
    pub const REQUEST_TYPE: u8 = 2;
    pub const REQUEST_SUBSCRIBE: u8 = 3;
    pub const REQUEST_NONCE: u8 = 6;
    pub const NODE_ID: u8 = 1;
    pub const NODE_CLUSTER: u8 = 2;
    pub const RESPONSE_RESOURCE: u8 = 2;
    pub const RESPONSE_TYPE: u8 = 4;
    pub const RESPONSE_NONCE: u8 = 5;
    pub const RESPONSE_REMOVED: u8 = 6;
    pub const RESOURCE_VERSION: u8 = 1;
    pub const RESOURCE_BODY: u8 = 2;
    pub const RESOURCE_NAME: u8 = 3;
}

/// Hands messages through as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// Asks for names of a type, `*` for all; the first request of a stream says the node.
pub fn subscribe(node: Option<&str>, type_url: &str, names: &[&str]) -> Bytes {
    let mut out = Vec::new();
    if let Some(id) = node {
        let mut inner = Vec::new();
        put(&mut inner, field::NODE_ID, id.as_bytes());
        put(&mut inner, field::NODE_CLUSTER, b"gateway");
        put(&mut out, field::REQUEST_NODE, &inner);
    }
    put(&mut out, field::REQUEST_TYPE, type_url.as_bytes());
    names.iter().for_each(|name| put(&mut out, field::REQUEST_SUBSCRIBE, name.as_bytes()));
    out.into()
}

/// Accepts a response.
pub fn ack(type_url: &[u8], nonce: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(type_url.len() + nonce.len() + 8);
    put(&mut out, field::REQUEST_TYPE, type_url);
    put(&mut out, field::REQUEST_NONCE, nonce);
    out.into()
}

fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// What an ACK repeats of a response.
#[derive(Debug, Default, Clone, Copy)]
pub struct Head<'a> {
    pub type_url: &'a [u8],
    pub nonce: &'a [u8],
}

/// One resource of a response.
#[derive(Debug, Default, Clone, Copy)]
pub struct Resource<'a> {
    pub name: &'a [u8],
    pub version: &'a [u8],
    /// Its `Any`, encoded.
    pub body: &'a [u8],
}

/// Reads a response: `each` resource, and the names that are gone. `None` when it is no protobuf.
pub fn read<'a>(message: &'a [u8], mut each: impl FnMut(Resource<'a>), mut gone: impl FnMut(&'a [u8])) -> Option<Head<'a>> {
    let mut head = Head::default();
    let mut rest = message;
    while let Some((field, bytes)) = next(&mut rest)? {
        match field {
            field::RESPONSE_RESOURCE => each(resource(bytes)?),
            field::RESPONSE_TYPE => head.type_url = bytes,
            field::RESPONSE_NONCE => head.nonce = bytes,
            field::RESPONSE_REMOVED => gone(bytes),
            _ => {}
        }
    }
    Some(head)
}

fn resource(message: &[u8]) -> Option<Resource<'_>> {
    let mut found = Resource::default();
    let mut rest = message;
    while let Some((field, bytes)) = next(&mut rest)? {
        match field {
            field::RESOURCE_VERSION => found.version = bytes,
            field::RESOURCE_BODY => found.body = bytes,
            field::RESOURCE_NAME => found.name = bytes,
            _ => {}
        }
    }
    Some(found)
}

/// The next field with bytes; others are passed over. `None` for what is no protobuf.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Option<(u8, &'a [u8])>> {
    while !rest.is_empty() {
        let tag = varint(rest)?;
        match tag & 7 {
            0 => drop(varint(rest)?),
            1 => drop(take(rest, 8)?),
            2 => {
                let length = usize::try_from(varint(rest)?).ok()?;
                let bytes = take(rest, length)?;
                return Some(Some((u8::try_from(tag >> 3).ok()?, bytes)));
            }
            5 => drop(take(rest, 4)?),
            _ => return None,
        }
    }
    Some(None)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}
