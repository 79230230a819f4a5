//! Who asks: the admin key of a request, whose it is and what it allows. It knows no message.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::settings::{AdminKey, Role};

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

/// All admin keys, as digests.
pub(super) struct Gate(Vec<([u8; 32], Caller)>);

impl Gate {
    pub(super) fn new(keys: &[AdminKey]) -> Gate {
        let entry = |key: &AdminKey| {
            let caller = Caller { name: key.name.as_str().into(), role: key.role };
            (sha256(key.key.reveal().as_bytes()), caller)
        };
        Gate(keys.iter().map(entry).collect())
    }

    /// Lets a call in, or says why not. The time taken depends neither on the key nor on whose it is.
    pub(super) fn admit(&self, metadata: &MetadataMap, access: Access) -> Result<Caller, Status> {
        let given = metadata.get(HEADER).ok_or_else(|| Status::unauthenticated("missing admin key: send it as `x-api-key`"))?;
        let given = sha256(given.as_bytes());
        let (mut found, mut any) = (0u64, Choice::from(0));
        for (index, (known, _)) in self.0.iter().enumerate() {
            let same = known.ct_eq(&given);
            found.conditional_assign(&(index as u64), same);
            any |= same;
        }
        let caller = self.0.get(found as usize).filter(|_| bool::from(any)).map(|(_, caller)| caller.clone());
        let caller = caller.ok_or_else(|| Status::unauthenticated("wrong admin key"))?;
        match (caller.role, access) {
            (Role::Admin, _) | (Role::Viewer, Access::Read) => Ok(caller),
            (Role::Viewer, Access::Write) => {
                Err(Status::permission_denied(format!("the key `{}` has the role viewer, which only reads", caller.name)))
            }
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
