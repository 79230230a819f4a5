//! The least of discovery that a node must read and write, by hand and without copying: it names no resource type's fields.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// In which of its two forms discovery is spoken, both on the stream of all types.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// What differs.
    #[default]
    Delta,
    /// State of the world.
    Sotw,
}

/// Numbers of the fields of a request, which are other ones in each form but for the names.
struct Fields {
    node: u8,
    type_url: u8,
    nonce: u8,
    /// Only state of the world says again what it has.
    version: Option<u8>,
}

/// Fields of requests, of `Node`, of responses in both forms, of delta's `Resource` and of `Any`.
mod field {
    pub const REQUEST_NAMES: u8 = 3;
    pub const NODE_ID: u8 = 1;
    pub const NODE_CLUSTER: u8 = 2;
    pub const NODE_USER_AGENT: u8 = 6;
    pub const RESPONSE_VERSION: u8 = 1;
    pub const RESPONSE_RESOURCE: u8 = 2;
    pub const RESPONSE_TYPE: u8 = 4;
    pub const RESPONSE_NONCE: u8 = 5;
    /// Of delta alone; state of the world has something else there.
    pub const RESPONSE_REMOVED: u8 = 6;
    pub const RESOURCE_VERSION: u8 = 1;
    pub const RESOURCE_BODY: u8 = 2;
    pub const RESOURCE_NAME: u8 = 3;
    pub const ANY_TYPE: u8 = 1;
    pub const ANY_VALUE: u8 = 2;
    /// The name of every resource of Envoy's that is served here.
    pub const OWN_NAME: u8 = 1;
}

impl Form {
    /// The method of the stream.
    pub const fn method(self) -> &'static str {
        match self {
            Form::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            Form::Sotw => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        }
    }

    const fn request(self) -> Fields {
        match self {
            Form::Delta => Fields { node: 1, type_url: 2, nonce: 6, version: None },
            Form::Sotw => Fields { node: 2, type_url: 4, nonce: 5, version: Some(1) },
        }
    }
}

/// Names as they stand in a request, written once: state of the world says all of them again each time.
#[derive(Debug, Default)]
pub struct Names(Vec<u8>);

impl Names {
    pub fn push(&mut self, name: &[u8]) {
        put(&mut self.0, field::REQUEST_NAMES, name);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
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

/// Who speaks; said by the first request of a stream.
#[derive(Debug, Clone)]
pub struct Node {
    pub id: String,
    /// What the program is called; empty for one that does not say.
    pub program: &'static str,
}

/// A request: to subscribe, to accept a response, or both.
#[derive(Debug, Default, Clone, Copy)]
pub struct Request<'a> {
    pub node: Option<&'a Node>,
    /// What is answered: type, and of a response its nonce and, in state of the world, its version.
    pub head: Head<'a>,
}

impl Request<'_> {
    /// The message, with the names that are asked for: by delta those that are new, by state of the world all.
    pub fn write(&self, form: Form, names: &Names) -> Bytes {
        let fields = form.request();
        let head = self.head.type_url.len() + self.head.nonce.len() + self.head.version.len() + 16;
        let mut out = Vec::with_capacity(head + names.0.len());
        if let Some(node) = self.node {
            let mut inner = Vec::new();
            put(&mut inner, field::NODE_ID, node.id.as_bytes());
            put(&mut inner, field::NODE_CLUSTER, b"gateway");
            put(&mut inner, field::NODE_USER_AGENT, node.program.as_bytes());
            put(&mut out, fields.node, &inner);
        }
        put(&mut out, fields.type_url, self.head.type_url);
        out.extend_from_slice(&names.0);
        put(&mut out, fields.nonce, self.head.nonce);
        if let Some(version) = fields.version {
            put(&mut out, version, self.head.version);
        }
        out.into()
    }
}

/// Writes a field, unless it says nothing.
fn put(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.push(field << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

/// What an answer repeats of a response.
#[derive(Debug, Default, Clone, Copy)]
pub struct Head<'a> {
    pub type_url: &'a [u8],
    pub nonce: &'a [u8],
    pub version: &'a [u8],
}

/// One resource of a response.
#[derive(Debug, Default, Clone, Copy)]
pub struct Resource<'a> {
    pub type_url: &'a [u8],
    pub name: &'a [u8],
    /// With the name it stands for the content: delta says that of the resource, state of the world that of the response.
    pub version: &'a [u8],
    /// The message itself.
    pub body: &'a [u8],
}

/// Reads a response: `each` resource, and the names that are gone. `None` when it is no protobuf.
pub fn read<'a>(
    form: Form,
    message: &'a [u8],
    mut each: impl FnMut(Resource<'a>),
    mut gone: impl FnMut(&'a [u8]),
) -> Option<Head<'a>> {
    let mut head = Head::default();
    let mut rest = message;
    // Fields may come in any order, so what says of what type all of it is comes first.
    while let Some((field, bytes)) = next(&mut rest)? {
        match field {
            field::RESPONSE_VERSION => head.version = bytes,
            field::RESPONSE_TYPE => head.type_url = bytes,
            field::RESPONSE_NONCE => head.nonce = bytes,
            _ => {}
        }
    }
    let mut rest = message;
    while let Some((field, bytes)) = next(&mut rest)? {
        match (field, form) {
            (field::RESPONSE_RESOURCE, Form::Delta) => each(resource(bytes)?),
            (field::RESPONSE_RESOURCE, Form::Sotw) => each(whole(bytes, head.version)?),
            (field::RESPONSE_REMOVED, Form::Delta) => gone(bytes),
            _ => {}
        }
    }
    Some(head)
}

fn resource(message: &[u8]) -> Option<Resource<'_>> {
    let (mut found, mut any) = (Resource::default(), &[][..]);
    let mut rest = message;
    while let Some((field, bytes)) = next(&mut rest)? {
        match field {
            field::RESOURCE_VERSION => found.version = bytes,
            field::RESOURCE_BODY => any = bytes,
            field::RESOURCE_NAME => found.name = bytes,
            _ => {}
        }
    }
    let (type_url, body) = unwrapped(any)?;
    Some(Resource { type_url, body, ..found })
}

/// A resource of state of the world, which says its name itself.
fn whole<'a>(any: &'a [u8], version: &'a [u8]) -> Option<Resource<'a>> {
    let (type_url, body) = unwrapped(any)?;
    let mut found = Resource { type_url, body, version, name: &[] };
    at(body, &[field::OWN_NAME], &mut |name| found.name = name)?;
    Some(found)
}

fn unwrapped(any: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut type_url, mut body) = (&[][..], &[][..]);
    let mut rest = any;
    while let Some((field, bytes)) = next(&mut rest)? {
        match field {
            field::ANY_TYPE => type_url = bytes,
            field::ANY_VALUE => body = bytes,
            _ => {}
        }
    }
    Some((type_url, body))
}

/// Everything in a message to which these numbers of fields lead, one inside the other. `None` when it is no protobuf.
pub fn at<'a>(message: &'a [u8], path: &[u8], each: &mut dyn FnMut(&'a [u8])) -> Option<()> {
    let Some((first, further)) = path.split_first() else {
        each(message);
        return Some(());
    };
    let mut rest = message;
    while let Some((field, bytes)) = next(&mut rest)? {
        if field == *first {
            at(bytes, further, each)?;
        }
    }
    Some(())
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
