//! The filter of `proxy-cache` on the way in: what is stored is looked up, judged and given, or the upstream is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heddle_node::clock::{self, Instant};
use heddle_node::hex;
use serde_json::Value;
use smallvec::SmallVec;
use tokio::sync::Semaphore;

use super::super::limits::Ticket;
use super::super::{BuildContext, Built, Filter, Flow, Phases, Resume, check};
use super::config::{CacheMethod, Config, Metadata, Strategy, ZoneConfig};
use super::entry::{Entry, Stored};
use super::finish;
use super::key::{self, Key, KeyMaker};
use super::pending::{Pending, Purpose, Status};
use super::rules::{Asked, Directives, ETAG, LAST_MODIFIED, Policy, Use};
use super::serve::{self, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use super::store::{Lead, Role, Zone};
use crate::exchange::{Answer, Exchange, Inner, Reason, Template};
use crate::http::{Body, FieldName, Method, Name, ResponseHead};

struct ProxyCache(Arc<Cache>);

/// One configuration, compiled.
pub(super) struct Cache {
    keys: KeyMaker,
    methods: Vec<CacheMethod>,
    bypass: Vec<Template>,
    pub zone: Arc<Zone>,
    pub policy: Policy,
    pub no_cache: Vec<Template>,
    pub hide: bool,
    pub longest: u64,
    mark: Arc<Mark>,
}

/// What marks requests that caches make themselves: nobody can guess it.
pub(super) struct Mark(pub String);

impl Default for Mark {
    fn default() -> Mark {
        let mut random = [0; 16];
        // Without random bytes clients may ask for what is new, and no more.
        let _ = aws_lc_rs::rand::fill(&mut random);
        Mark(hex::encode(&random))
    }
}

/// What is asked of the cache for one request.
struct Ask {
    key: Key,
    /// What the request says, where that is heeded.
    said: Option<Directives>,
    bypass: bool,
    /// It comes from here, to bring a stored answer up to date.
    refresh: bool,
    /// Until when it waits for others that fetch the same.
    patience: Option<Instant>,
    /// What came from disk for it.
    loaded: SmallVec<[(Key, Option<Arc<Stored>>); 2]>,
}

/// What there is for a request.
enum Found {
    Answer(Arc<Stored>),
    Nothing,
    /// Nobody waits for what will not be stored.
    Pass,
    OnDisk(Key),
}

/// Marks requests that this cache makes itself; heeded only on those, and never sent on.
const REFRESH: FieldName = FieldName::of("Heddle-Cache-Refresh");
/// Where the mark is kept.
pub(super) const MARK: &str = "proxy-cache/mark";
const IF_MATCH: FieldName = FieldName::of("If-Match");
const IF_UNMODIFIED_SINCE: FieldName = FieldName::of("If-Unmodified-Since");

/// How long a request waits for another one that fetches the same, as `proxy_cache_lock_timeout` of nginx.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn build(value: &Value, context: &BuildContext<'_>) -> Built {
    let config: Config = check::read(value)?;
    let metadata: Metadata = context.metadata.map(check::read).transpose()?.unwrap_or_default();
    let named = metadata.zones.into_iter().find(|zone| zone.name == config.cache_zone);
    let zone = named.unwrap_or_else(|| ZoneConfig::usual(&config.cache_zone));
    let on_disk = config.cache_strategy == Strategy::Disk;
    let templates = |texts: &[String]| texts.iter().map(|text| Template::new(text)).collect();
    Ok(Arc::new(ProxyCache(Arc::new(Cache {
        keys: KeyMaker::new(context.origin(), &config.cache_key, config.consumer_isolation),
        bypass: templates(&config.cache_bypass),
        no_cache: templates(&config.no_cache),
        zone: Arc::new(Zone::open(&zone, on_disk, context.keep)),
        policy: Policy {
            statuses: config.cache_http_status,
            heeds_answers: on_disk || config.cache_control,
            heeds_requests: config.cache_control,
            set_cookie: config.cache_set_cookie,
            lifetime: if on_disk { zone.cache_ttl } else { config.cache_ttl },
            stale_while_revalidate: config.stale_while_revalidate,
            stale_if_error: config.stale_if_error,
        },
        methods: config.cache_method,
        hide: config.hide_cache_headers,
        longest: config.max_resp_body_size,
        mark: context.keep.get_or(MARK, Mark::default),
    }))))
}

impl Filter for ProxyCache {
    fn phases(&self) -> Phases {
        Phases::ACCESS.and(Phases::AFTER_PROXY)
    }

    fn access(&self, x: &mut Exchange) -> Flow {
        let cache = &self.0;
        // Clients may make requests of the gateway's own too (`batch-requests`), but they do not know the mark.
        let marked = x.request.fields.get_named(&REFRESH).is_some_and(|mark| mark == cache.mark.0.as_bytes());
        let refresh = marked && x.connection.inner;
        x.request.fields.remove_named(&REFRESH);
        let Some(method) = cache.method(x) else { return cache.pass_by(x) };
        if x.request.fields.contains_known(Name::Upgrade) || (method == "GET" && !x.body.is_empty()) {
            return Flow::Continue;
        }
        let ask = Ask {
            key: cache.keys.of(x, method),
            said: cache.policy.heeds_requests.then(|| Directives::of_request(&x.request.fields)),
            bypass: any_says_yes(&cache.bypass, x),
            refresh,
            patience: None,
            loaded: SmallVec::new(),
        };
        look(cache, x, ask)
    }

    fn after_proxy(&self, x: &mut Exchange, head: &mut ResponseHead, body: &mut Body) -> Flow {
        match Pending::take(x, self.0.id()) {
            Some(pending) => finish::finish(&self.0, x, pending, head, body),
            None => Flow::Continue,
        }
    }
}

/// Whether one of the texts is neither empty nor `0`, as nginx judges.
pub(super) fn any_says_yes(texts: &[Template], x: &Exchange) -> bool {
    texts.iter().any(|text| !matches!(text.render(x).as_str(), "" | "0"))
}

/// Looks for what is stored and acts on it.
fn look(cache: &Arc<Cache>, x: &mut Exchange, mut ask: Ask) -> Flow {
    if ask.bypass {
        return ask_upstream(cache, x, ask, None, false);
    }
    match cache.find(x, &ask) {
        Found::Nothing => ask_upstream(cache, x, ask, None, true),
        Found::Pass => ask_upstream(cache, x, ask, None, false),
        Found::Answer(stored) => match &*stored {
            Stored::Answer(entry) => judge(cache, x, ask, entry),
            _ => Flow::Continue,
        },
        Found::OnDisk(key) => {
            let cache = cache.clone();
            Flow::Wait(Box::pin(async move {
                let stored = cache.zone.load(key).await;
                ask.loaded.push((key, stored));
                Box::new(move |x: &mut Exchange| look(&cache, x, ask)) as Resume
            }))
        }
    }
}

/// Gives a stored answer when that is allowed.
fn judge(cache: &Arc<Cache>, x: &mut Exchange, ask: Ask, entry: &Entry) -> Flow {
    let usable = match ask.refresh {
        true => Use::Revalidate,
        false => entry.terms.usable(entry.age(x.started_ms), ask.said.as_ref()),
    };
    // Only what changes nothing may be asked beside the client, and the body of a POST is not there any more.
    let usable =
        if usable == Use::Refresh && !matches!(x.request.method, Method::Get | Method::Head) { Use::Revalidate } else { usable };
    let called = match usable {
        Use::Fresh => Status::Hit,
        Use::Stale => Status::Stale,
        Use::Refresh => {
            cache.refresh(x, ask.key);
            Status::Stale
        }
        Use::Revalidate => return ask_upstream(cache, x, ask, Some(entry), true),
    };
    let answer = serve::answer(entry, &x.request.method, &x.request.fields, x.started_ms, called, cache.hide);
    Flow::Answer(Box::new(answer))
}

/// Lets the request go on to the upstream, unless another one fetches the same already: then it waits for that.
fn ask_upstream(cache: &Arc<Cache>, x: &mut Exchange, mut ask: Ask, stale: Option<&Entry>, together: bool) -> Flow {
    if ask.said.is_some_and(|said| said.only_if_cached) && !ask.refresh {
        return Flow::Answer(Box::new(Answer::empty(504, Reason::Plugin)));
    }
    let fields = &x.request.fields;
    let partial = [&RANGE, &IF_MATCH, &IF_UNMODIFIED_SINCE].into_iter().any(|name| fields.get_named(name).is_some());
    let purpose = if partial || x.request.method == Method::Head { Purpose::Pass } else { Purpose::Store };
    let mut lead = None;
    if purpose == Purpose::Store && together {
        match cache.zone.flights.join(ask.key) {
            Role::Lead(mine) => lead = Some(mine),
            Role::Follow(landed) => {
                if let Some((ticket, until)) = cache.patience(&mut ask) {
                    return wait(cache, ask, landed, ticket, until);
                }
            }
        }
    }
    cache.go_on(x, &ask, stale, purpose, lead)
}

/// Waits for the one that fetches and then looks again.
fn wait(cache: &Arc<Cache>, mut ask: Ask, landed: Arc<Semaphore>, ticket: Ticket, until: Instant) -> Flow {
    let cache = cache.clone();
    // What was loaded may be out of date by then.
    ask.loaded.clear();
    Flow::Wait(Box::pin(async move {
        // Whichever comes first: it has landed, or patience is over.
        let _ = tokio::time::timeout_at(until, landed.acquire()).await;
        drop(ticket);
        Box::new(move |x: &mut Exchange| look(&cache, x, ask)) as Resume
    }))
}

impl Cache {
    /// Tells this filter from another one that runs for the same request.
    fn id(self: &Arc<Cache>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Under which method the answer to this request is stored; `None` when it is not cached at all.
    fn method(&self, x: &Exchange) -> Option<&'static str> {
        let (method, stored) = match x.request.method {
            Method::Get => (CacheMethod::Get, "GET"),
            Method::Head => (CacheMethod::Head, "GET"),
            Method::Post => (CacheMethod::Post, "POST"),
            _ => return None,
        };
        self.methods.contains(&method).then_some(stored)
    }

    /// What is not cached: `PURGE` drops what is stored, and a method that changes things may do so.
    fn pass_by(self: &Arc<Cache>, x: &mut Exchange) -> Flow {
        let key = self.keys.of(x, "GET");
        match &x.request.method {
            Method::Other(method) if &**method == "PURGE" => {
                let removed = self.zone.remove(&key) | self.zone.remove(&self.keys.of(x, "POST"));
                Flow::Answer(Box::new(Answer::empty(if removed { 200 } else { 404 }, Reason::Answered)))
            }
            Method::Get | Method::Head | Method::Options | Method::Trace | Method::Connect => Flow::Continue,
            _ if self.policy.heeds_requests => {
                let ask = Ask { key, said: None, bypass: true, refresh: false, patience: None, loaded: SmallVec::new() };
                self.go_on(x, &ask, None, Purpose::Invalidate, None)
            }
            _ => Flow::Continue,
        }
    }

    /// Finds the answer, or the variant of it, that this request gets.
    fn find(&self, x: &Exchange, ask: &Ask) -> Found {
        let mut key = ask.key;
        // An answer, or a marker and then an answer.
        for _ in 0..2 {
            let loaded = ask.loaded.iter().find(|(of, _)| *of == key).map(|(_, stored)| stored.clone());
            let stored = match loaded.unwrap_or_else(|| self.zone.get(&key)) {
                Some(stored) => stored,
                None if ask.loaded.iter().all(|(of, _)| *of != key) && self.zone.is_on_disk(&key) => return Found::OnDisk(key),
                None => return Found::Nothing,
            };
            match &*stored {
                Stored::Answer(_) => return Found::Answer(stored),
                Stored::Pass(until) if x.started_ms < *until => return Found::Pass,
                Stored::Pass(_) => return Found::Nothing,
                Stored::Varies { names, nonce } => key = key::variant(&ask.key, *nonce, names, &x.request.fields),
            }
        }
        Found::Nothing
    }

    /// A place among those who wait, and until when; `None` when the request has no more patience, or too many wait.
    fn patience(&self, ask: &mut Ask) -> Option<(Ticket, Instant)> {
        let now = clock::now();
        let until = *ask.patience.get_or_insert(now + PATIENCE);
        if ask.refresh || now >= until {
            return None;
        }
        Some((self.zone.waiting.enter()?, until))
    }

    /// Keeps what must be known when the answer comes, and makes the request one for the whole answer.
    fn go_on(
        self: &Arc<Cache>,
        x: &mut Exchange,
        ask: &Ask,
        stale: Option<&Entry>,
        purpose: Purpose,
        lead: Option<Lead>,
    ) -> Flow {
        let called = match (ask.bypass, stale) {
            (true, _) => Status::Bypass,
            (false, Some(_)) => Status::Expired,
            (false, None) => Status::Miss,
        };
        let fields = x.request.fields.clone();
        let asked = Asked {
            authorization: fields.contains_known(Name::Authorization),
            no_store: ask.said.is_some_and(|said| said.no_store),
        };
        let asked_ms = elapsed_ms(x);
        let mut pending = Pending {
            owner: self.id(),
            key: ask.key,
            purpose,
            called,
            asked,
            asked_ms,
            stale: stale.map(|entry| Arc::new(entry.clone())),
            revalidates: false,
            fields,
            lead,
        };
        let conditional = purpose == Purpose::Store && x.request.method == Method::Get;
        let validators =
            stale.filter(|_| conditional).map(|entry| (entry.fields.get_named(&ETAG), entry.fields.get_named(&LAST_MODIFIED)));
        pending.revalidates = matches!(validators, Some((Some(_), _) | (_, Some(_))));
        if !pending.keep(x) || !conditional {
            return Flow::Continue;
        }
        for name in [&IF_NONE_MATCH, &IF_MODIFIED_SINCE, &IF_RANGE] {
            x.request.fields.remove_named(name);
        }
        if let Some((tag, modified)) = validators {
            tag.into_iter().for_each(|tag| x.request.fields.append_named(&IF_NONE_MATCH, tag));
            modified.into_iter().for_each(|modified| x.request.fields.append_named(&IF_MODIFIED_SINCE, modified));
        }
        Flow::Continue
    }

    /// Fetches the answer anew beside this request, unless somebody does so already.
    fn refresh(&self, x: &Exchange, key: Key) {
        let Role::Lead(lead) = self.zone.refreshes.join(key) else { return };
        let mut head = x.request.clone();
        head.method.clone_from(&x.original.method);
        head.path.clone_from(&x.original.path);
        head.query.clone_from(&x.original.query);
        if head.method == Method::Head {
            head.method = Method::Get;
        }
        for name in [&IF_NONE_MATCH, &IF_MODIFIED_SINCE, &IF_RANGE, &RANGE] {
            head.fields.remove_named(name);
        }
        head.fields.set_named(&REFRESH, &self.mark.0);
        let fetched = x.dispatch(Inner { head, body: Bytes::new(), limit: self.longest, upstream: None });
        tokio::task::spawn_local(async move {
            if let Err(reason) = fetched.await {
                tracing::debug!(reason = reason.flag(), "a stale answer could not be fetched anew");
            }
            drop(lead);
        });
    }
}

/// Now, in Unix milliseconds.
pub(super) fn elapsed_ms(x: &Exchange) -> u64 {
    let since = clock::now().saturating_duration_since(x.started).as_millis();
    x.started_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
}
