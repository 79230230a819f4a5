//! Buckets in a Redis: the arithmetic of a pace as a script, and what its answer means. It holds nobody up.

use super::super::limits::Shelf;
use super::bucket::{NANOS_PER_MICRO, Pace, Verdict};
use crate::outbound::{RedisError, Script};

/// The schedule of [`Pace::admit`] in microseconds of the Redis' own clock; in nanoseconds they would be beyond the numbers of Lua.
static ADMIT: Script = Script::new(
    "local time = redis.call('TIME') \
     local now = time[1] * 1000000 + time[2] \
     local interval, at_once, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]) \
     local due = tonumber(redis.call('GET', KEYS[1]) or now) \
     local early = math.max(due - now, 0) \
     if early > most then return {2, math.ceil(early - most)} end \
     due = math.max(due, now) + interval \
     redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', string.format('%.0f', math.ceil((due - now) / 1000) + 1)) \
     if early > at_once then return {1, math.floor(early - at_once)} end \
     return {0, 0}",
);

/// Longest span in microseconds, some 30 years: what is longer makes no difference, and Redis takes no later ends.
const LONGEST: f64 = 1e15;

/// What becomes of a request of this key.
///
/// # Errors
/// As [`Shelf::run`].
pub(super) async fn admit(shelf: &Shelf, key: u128, pace: Pace) -> Result<Verdict, RedisError> {
    let micros = |nanos: u64| (nanos as f64 / NANOS_PER_MICRO as f64).min(LONGEST).to_string();
    let args = [micros(pace.interval), micros(pace.at_once), micros(pace.most)];
    let said = shelf.run(&ADMIT, &[shelf.key(key)], &args).await?;
    let nanos = |micros: i64| u64::try_from(micros).unwrap_or(0).saturating_mul(NANOS_PER_MICRO);
    match said[..] {
        [0, _] => Ok(Verdict::Pass),
        [1, wait] => Ok(Verdict::Wait(nanos(wait))),
        [2, after] => Ok(Verdict::Refuse(nanos(after))),
        _ => Err(RedisError::Malformed),
    }
}
