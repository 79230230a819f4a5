//! Counting in a Redis: one question for all limits of a request, and what its answer means. It counts nothing itself.

use std::sync::Arc;

use super::super::limits::Shelf;
use super::super::{Flow, Resume};
use super::config::WindowType;
use super::quota::{self, Quota};
use crate::exchange::{Answer, Exchange};
use crate::outbound::Script;

/// Counters that are not on this node.
pub(super) struct Elsewhere {
    pub shelf: Shelf,
    pub kind: WindowType,
    pub refusal: Answer,
    /// The answer when nobody can tell; `None` lets the request through.
    pub failure: Option<Answer>,
    /// Whether responses tell what remains.
    pub tells: bool,
}

/// One limit, as it is for one request.
pub(super) struct Asked {
    /// Its number in the filter.
    pub number: usize,
    pub key: u128,
    pub count: u64,
    pub window_ms: u64,
}

/// Numbers of Lua are exact up to here.
const MAX_COUNT: u64 = 1 << 53;
/// Longest window, a hundred years: Redis takes no later ends.
const MAX_WINDOW_MS: u64 = 100 * 365 * 86_400_000;

/// A window starts with its first request. For each limit up to the first that refuses: whether it is held, what remains, milliseconds until it ends.
static FIXED: Script = Script::new(
    "local said = {} \
     for i, key in ipairs(KEYS) do \
       local count, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) \
       local used, left = tonumber(redis.call('GET', key) or '0'), redis.call('PTTL', key) \
       local allowed = used < count \
       if allowed then used = redis.call('INCR', key) end \
       if left < 0 then redis.call('PEXPIRE', key, ARGV[2 * i]) left = window end \
       said[#said + 1] = allowed and 1 or 0 \
       said[#said + 1] = math.max(count - used, 0) \
       said[#said + 1] = left \
       if not allowed then break end \
     end \
     return said",
);

/// Windows lie on a grid of the Redis' own clock; requests of the window before count by the share of it that is still within reach.
static SLIDING: Script = Script::new(
    "local said, time = {}, redis.call('TIME') \
     local now = time[1] * 1000 + math.floor(time[2] / 1000) \
     for i, key in ipairs(KEYS) do \
       local count, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) \
       local this, left = math.floor(now / window), window - now % window \
       local held = redis.call('HMGET', key, 'window', 'used', 'before') \
       local at, used, before = tonumber(held[1] or '-1'), tonumber(held[2] or '0'), tonumber(held[3] or '0') \
       if at ~= this then before = at + 1 == this and used or 0 used = 0 end \
       local carried = math.floor(before * left / window) \
       local allowed = carried + used < count \
       if allowed then \
         used = used + 1 \
         redis.call('HSET', key, 'window', this, 'used', used, 'before', before) \
         redis.call('PEXPIRE', key, string.format('%.0f', left + window)) \
       end \
       said[#said + 1] = allowed and 1 or 0 \
       said[#said + 1] = math.max(count - carried - used, 0) \
       said[#said + 1] = left \
       if not allowed then break end \
     end \
     return said",
);

impl Elsewhere {
    /// Asks for all limits of a request; `owner` is the filter that tells the client later.
    pub(super) fn ask(self: &Arc<Elsewhere>, owner: usize, all: Vec<Asked>) -> Flow {
        if all.is_empty() {
            return Flow::Continue;
        }
        let this = self.clone();
        Flow::Wait(Box::pin(async move {
            let keys: Vec<String> = all.iter().map(|asked| this.shelf.key(asked.key)).collect();
            let numbers =
                |asked: &Asked| [asked.count.min(MAX_COUNT), asked.window_ms.min(MAX_WINDOW_MS)].map(|number| number.to_string());
            let args: Vec<String> = all.iter().flat_map(numbers).collect();
            let script = if this.kind == WindowType::Fixed { &FIXED } else { &SLIDING };
            let said = this.shelf.run(script, &keys, &args).await.ok();
            // Fewer verdicts than questions is no answer, unless the last one refuses.
            let said = said.filter(|said| said.len() == 3 * all.len() || said.chunks_exact(3).any(|verdict| verdict[0] != 1));
            Box::new(move |x: &mut Exchange| match said {
                Some(said) => this.hear(x, owner, &all, &said),
                None => this.failure.as_ref().map_or(Flow::Continue, |failure| Flow::Answer(Box::new(failure.clone()))),
            }) as Resume
        }))
    }

    fn hear(&self, x: &mut Exchange, owner: usize, all: &[Asked], said: &[i64]) -> Flow {
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        for (asked, verdict) in all.iter().zip(said.chunks_exact(3)) {
            if self.tells {
                let (remaining, reset_ms) = (positive(verdict[1]), positive(verdict[2]));
                quota::keep(x, owner, Quota { limit: asked.number, count: asked.count, remaining, reset_ms });
            }
            if verdict[0] != 1 {
                return Flow::Answer(Box::new(self.refusal.clone()));
            }
        }
        Flow::Continue
    }
}
