//! How resources look from outside: secrets plain, masked or encrypted, private keys of certificates never.

use serde_json::Value;

use super::Call;
use crate::model::ResourceKind;
use crate::seal::visit;
use crate::settings::Role;

/// What a viewer sees in place of a secret.
const MASK: &str = "******";

/// A value as a reader sees it: an admin sees secrets, a viewer does not.
pub(super) fn to_reader(call: &Call<'_>, kind: ResourceKind, value: &Value) -> Value {
    let mut shown = without_keys(kind, value);
    if call.caller.role == Role::Viewer {
        visit(kind, &mut shown, call.admin.catalog.as_ref(), &mut |text| *text = MASK.to_owned());
    }
    shown
}

/// A value as the answer to a write repeats it: secrets encrypted.
pub(super) fn to_writer(call: &Call<'_>, kind: ResourceKind, value: &Value) -> Value {
    let mut shown = without_keys(kind, value);
    visit(kind, &mut shown, call.admin.catalog.as_ref(), &mut |text| {
        *text = call.admin.seal.seal(text).unwrap_or_else(|_| MASK.to_owned());
    });
    shown
}

/// Takes back what [`to_writer`] encrypted, for clients that send it again.
pub(super) fn from_writer(call: &Call<'_>, kind: ResourceKind, value: &mut Value) {
    visit(kind, value, call.admin.catalog.as_ref(), &mut |text| {
        if let Ok(plain) = call.admin.seal.unseal(text) {
            *text = plain;
        }
    });
}

fn without_keys(kind: ResourceKind, value: &Value) -> Value {
    let mut shown = value.clone();
    if kind == ResourceKind::Ssl
        && let Some(map) = shown.as_object_mut()
    {
        map.shift_remove("key");
        map.shift_remove("keys");
    }
    shown
}
