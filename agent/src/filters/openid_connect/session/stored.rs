//! Sessions that are kept in a Redis, sealed as they would be in cookies, so that whoever reads the Redis learns nothing and whoever writes there makes nobody
//! somebody. It knows no request.

use super::super::super::asking::Complaints;
use super::{Lifetimes, SealNonce, Sealer, Session};
use crate::outbound::{Redis, RedisError};

/// Most bytes of a sealed session: three times as much as cookies hold.
const MAX_STORED: usize = 64 * 1024;
/// Nothing stays in the Redis for ever, in seconds: a session that never ends by itself does when nobody has used it for so long.
const LONGEST: u64 = 30 * 86_400;
/// How often a renewal is put into what another node has written in between.
const TRIES: usize = 4;

/// Where sessions of one configuration are kept.
pub(crate) struct Stored {
    redis: Redis,
    prefix: Box<str>,
    sealer: Sealer,
    lifetimes: Lifetimes,
    complaints: Complaints,
}

/// Why a session is not kept.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unkept {
    /// Larger than is allowed.
    #[error("a session is larger than {MAX_STORED} bytes")]
    TooLarge,
    /// The Redis gives no answer.
    #[error("the Redis of the sessions gives no answer: {0}")]
    Away(#[from] RedisError),
}

impl Stored {
    pub(crate) fn new(redis: Redis, prefix: &str, sealer: Sealer, lifetimes: Lifetimes) -> Stored {
        Stored { redis, prefix: prefix.into(), sealer, lifetimes, complaints: Complaints::default() }
    }

    /// The session of this id. What is kept under another one's name, or was sealed by others, is none.
    ///
    /// # Errors
    /// The Redis gives no answer.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Session>, Unkept> {
        // One byte more than is ever kept shows what is too long.
        let kept = self.told(self.redis.get(&self.key(id), MAX_STORED + 1).await)?;
        let text = kept.and_then(|bytes| String::from_utf8(bytes).ok());
        let session = text.and_then(|text| Some(Session { kept: Some(text.clone()), ..Session::open(&self.sealer, &text)? }));
        Ok(session.filter(|session| session.id == id))
    }

    /// Keeps a session that begins.
    ///
    /// # Errors
    /// It is not kept.
    pub(crate) async fn begin(&self, session: &Session, nonce: SealNonce, now: u64) -> Result<(), Unkept> {
        let (sealed, lasts) = self.sealed(session, nonce, now)?;
        self.told(self.redis.set(&self.key(&session.id), sealed.as_bytes(), lasts).await)
    }

    /// Keeps what has become of a session that was found. What another node has written in between stays, but for tokens that were renewed here and are not
    /// there yet; and a session that a logout has ended in between stays so.
    ///
    /// # Errors
    /// It stays as it was.
    pub(crate) async fn update(&self, session: &Session, nonces: impl Fn() -> Option<SealNonce>, now: u64) -> Result<(), Unkept> {
        let Some(found) = session.kept.as_deref().and_then(|kept| Session::open(&self.sealer, kept)) else { return Ok(()) };
        let mut next = session.clone();
        for _ in 0..TRIES {
            let (Some(before), Some(nonce)) = (next.kept.as_deref(), nonces()) else { return Ok(()) };
            let (sealed, lasts) = self.sealed(&next, nonce, now)?;
            if self.told(self.redis.replace(&self.key(&session.id), before, &sealed, lasts).await)? {
                return Ok(());
            }
            match self.find(&session.id).await? {
                Some(there) if there.tokens == found.tokens && session.tokens != found.tokens => {
                    next = Session { tokens: session.tokens.clone(), ..there };
                }
                // Marked as used elsewhere, renewed elsewhere, or ended.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Ends a session everywhere.
    ///
    /// # Errors
    /// It may go on.
    pub(crate) async fn end(&self, id: &str) -> Result<(), Unkept> {
        self.told(self.redis.delete(&self.key(id)).await)
    }

    fn sealed(&self, session: &Session, nonce: SealNonce, now: u64) -> Result<(String, u64), Unkept> {
        let sealed = session.seal(&self.sealer, nonce).filter(|sealed| sealed.len() <= MAX_STORED).ok_or(Unkept::TooLarge)?;
        Ok((sealed, session.ends(&self.lifetimes).map_or(LONGEST, |end| end.saturating_sub(now)).min(LONGEST)))
    }

    fn key(&self, id: &str) -> String {
        format!("{}:{id}", self.prefix)
    }

    /// That the Redis is away has been said where it was asked.
    fn told<T>(&self, answer: Result<T, RedisError>) -> Result<T, Unkept> {
        if let Err(error @ (RedisError::Refused(_) | RedisError::Malformed)) = &answer
            && self.complaints.may_speak()
        {
            tracing::warn!(redis = ?self.redis, %error, "openid-connect: the Redis does not keep sessions");
        }
        Ok(answer?)
    }
}
