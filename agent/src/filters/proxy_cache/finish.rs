//! The filter of `proxy-cache` on the way back: what becomes of the upstream's answer.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::Flow;
use super::entry::{Entry, Stored};
use super::filter::{Cache, any_says_yes, elapsed_ms};
use super::key::{self, Key};
use super::pending::{Pending, Purpose, Status};
use super::rules::{AGE, Terms, VARY, terms};
use super::serve::{self, CACHE_STATUS};
use super::store::Zone;
use super::tee;
use crate::exchange::{Exchange, Reason};
use crate::http::{Body, FieldName, Fields, Name, ResponseHead};

/// How long nobody waits for an answer that was not to be stored, in milliseconds.
const PASS_MS: u64 = 10_000;
/// Most fields that answers may vary by; what varies by more is not stored.
const MOST_VARYING: usize = 16;

/// Acts on an answer.
pub(super) fn finish(cache: &Arc<Cache>, x: &mut Exchange, pending: Pending, head: &mut ResponseHead, body: &mut Body) -> Flow {
    let now = elapsed_ms(x);
    let reason = x.answer.reason;
    if pending.purpose == Purpose::Invalidate {
        if reason == Reason::None && (200..400).contains(&head.status) {
            cache.zone.remove(&pending.key);
        }
        return Flow::Continue;
    }
    let failed = reason != Reason::None || matches!(head.status, 500 | 502 | 503 | 504);
    if let Some(entry) = pending.stale.as_deref().filter(|entry| failed && entry.terms.helps_out(entry.age(now))) {
        let answer = serve::answer(entry, &x.request.method, &pending.fields, now, Status::Stale, cache.hide);
        return Flow::Answer(Box::new(answer));
    }
    if reason != Reason::None && !reason.is_upstream() {
        return Flow::Continue;
    }
    if head.status == 304
        && pending.revalidates
        && let Some(entry) = pending.stale.as_deref()
    {
        let entry = freshen(cache, &pending, entry, head, now, x);
        let answer = serve::answer(&entry, &x.request.method, &pending.fields, now, Status::Revalidated, cache.hide);
        return Flow::Answer(Box::new(answer));
    }
    let called = pending.called;
    store(cache, x, pending, head, body, now);
    head.fields.append_named(&CACHE_STATUS, called.as_str());
    if cache.hide {
        serve::hide_terms(&mut head.fields);
    }
    Flow::Continue
}

/// The stored answer with what the upstream says of it now (RFC 9111 section 4.3.4).
fn freshen(cache: &Cache, pending: &Pending, entry: &Entry, head: &ResponseHead, now: u64, x: &mut Exchange) -> Entry {
    let mut merged = ResponseHead { status: entry.status, fields: Fields::clone(&entry.fields) };
    let news = storable_fields(&head.fields);
    for field in news.iter().filter(|field| !is_of_content(field.id, field.name)) {
        merged.fields.remove(field.name);
    }
    for field in news.iter().filter(|field| !is_of_content(field.id, field.name)) {
        merged.fields.append(field.name, field.value);
    }
    let dated = ResponseHead { status: entry.status, fields: with_age(&merged.fields, &head.fields) };
    let renewed = terms(&cache.policy, pending.asked, &dated, pending.asked_ms, now);
    let entry =
        Entry { fields: Arc::new(merged.fields.laid_out()), stored_ms: now, terms: renewed.unwrap_or_default(), ..entry.clone() };
    match (renewed, place(&cache.zone, pending, &dated.fields, x)) {
        (Some(_), Some(place)) => place.put(&cache.zone, entry.clone()),
        _ => drop(cache.zone.remove(&pending.key)),
    }
    entry
}

/// What describes the content that is kept stays as it is kept.
fn is_of_content(id: Name, name: &[u8]) -> bool {
    id == Name::ContentLength
        || ["content-encoding", "content-range", "content-type"].iter().any(|of| name.eq_ignore_ascii_case(of.as_bytes()))
}

fn with_age(fields: &Fields, news: &Fields) -> Fields {
    let mut fields = fields.clone();
    if let Some(age) = news.get_named(&AGE) {
        fields.set_named(&AGE, age);
    }
    fields
}

/// Has the answer stored once its body has passed, where that is allowed.
fn store(cache: &Arc<Cache>, x: &mut Exchange, mut pending: Pending, head: &ResponseHead, body: &mut Body, now: u64) {
    if pending.purpose != Purpose::Store || x.answer.reason != Reason::None {
        return;
    }
    let wanted = !any_says_yes(&cache.no_cache, x);
    let terms = if wanted { terms(&cache.policy, pending.asked, head, pending.asked_ms, now) } else { None };
    let place = terms.and_then(|terms| Some((terms, place(&cache.zone, &pending, &head.fields, x)?)));
    let Some((terms, place)) = place else {
        if pending.lead.is_some() && pending.stale.is_none() && head.status < 500 {
            cache.zone.put(pending.key, Stored::Pass(now.saturating_add(PASS_MS)));
        }
        return;
    };
    let entry = unfinished(head, terms, now);
    let (zone, lead) = (cache.zone.clone(), pending.lead.take());
    let done = move |bytes| {
        place.put(&zone, Entry { body: bytes, ..entry });
        // Those who wait find it now.
        drop(lead);
    };
    *body = tee::collect(std::mem::take(body), cache.longest, cache.zone.incoming(), Box::new(done));
}

fn unfinished(head: &ResponseHead, terms: Terms, now: u64) -> Entry {
    let fields = Arc::new(storable_fields(&head.fields).laid_out());
    Entry { status: head.status, fields, body: bytes::Bytes::new(), stored_ms: now, terms }
}

/// Where an answer is put.
struct Place {
    key: Key,
    /// The marker that leads there, with its own key.
    marker: Option<(Key, Stored)>,
}

impl Place {
    fn put(self, zone: &Zone, entry: Entry) {
        if let Some((key, marker)) = self.marker {
            zone.put(key, marker);
        }
        zone.put(self.key, Stored::Answer(entry));
    }
}

/// Where the answer to this request is put; `None` when it varies by too much.
fn place(zone: &Zone, pending: &Pending, fields: &Fields, x: &mut Exchange) -> Option<Place> {
    let names = varying(fields)?;
    if names.is_empty() {
        return Some(Place { key: pending.key, marker: None });
    }
    let same = |held: &[FieldName]| held.iter().map(FieldName::as_str).eq(names.iter().map(FieldName::as_str));
    let held = match zone.get(&pending.key).as_deref() {
        Some(Stored::Varies { names, nonce }) if same(names) => Some(*nonce),
        _ => None,
    };
    let nonce = held.unwrap_or_else(|| x.dice.u64(..));
    let key = key::variant(&pending.key, nonce, &names, &pending.fields);
    let marker = held.is_none().then(|| (pending.key, Stored::Varies { names: names.into_vec().into(), nonce }));
    Some(Place { key, marker })
}

/// The fields of `Vary`, in lower case and in order, each once.
fn varying(fields: &Fields) -> Option<SmallVec<[FieldName; 4]>> {
    let mut names: Vec<String> = Vec::new();
    for name in fields.get_all_named(&VARY).flat_map(|line| line.split(|byte| *byte == b',')) {
        let name = std::str::from_utf8(name.trim_ascii()).ok()?;
        if !name.is_empty() {
            names.push(name.to_ascii_lowercase());
        }
        if names.len() > MOST_VARYING {
            return None;
        }
    }
    names.sort_unstable();
    names.dedup();
    Some(names.into_iter().map(FieldName::new).collect())
}

/// All fields but those of the connection and those that are made anew for each answer (RFC 9111 section 3.1).
fn storable_fields(fields: &Fields) -> Fields {
    let mut kept = fields.clone();
    for line in fields.get_all_known(Name::Connection) {
        for name in line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty()) {
            kept.remove(name);
        }
    }
    kept.remove_set(Name::HOP_BY_HOP | Name::Trailer.bit() | Name::ContentLength.bit());
    kept.remove_named(&AGE);
    kept.remove_named(&CACHE_STATUS);
    kept
}
