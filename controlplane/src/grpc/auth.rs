//! Who asks: the admin key of a call, whose it is and what it allows. It knows no message.

use std::sync::Arc;

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::access::Keys;
use crate::settings::Role;

/// Where the key travels.
const HEADER: &str = "x-api-key";

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It only looks.
    Read,
    /// It changes something.
    Write,
}

/// Whoever a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// As the history shows it.
    pub(super) name: Arc<str>,
    pub(super) role: Role,
}

/// Lets a call in, or says why not. A key is needed on loopback too.
pub(super) fn admit(keys: &Keys, metadata: &MetadataMap, access: Access) -> Result<Caller, Status> {
    let given = metadata.get(HEADER).ok_or_else(|| Status::unauthenticated("missing admin key: send it as `x-api-key`"))?;
    let found = given.to_str().ok().and_then(|key| keys.find(key));
    let (name, role) = found.ok_or_else(|| Status::unauthenticated("wrong admin key"))?;
    match (role, access) {
        (Role::Admin, _) | (Role::Viewer, Access::Read) => Ok(Caller { name, role }),
        (Role::Viewer, Access::Write) => {
            Err(Status::permission_denied(format!("the key `{name}` has the role viewer, which only reads")))
        }
    }
}
