//! The way to an endpoint where filters ask for more than the upstream says: a preferred endpoint, retries by their own rules, another upstream.

use std::time::Duration;

use fastrand::Rng;
use heddle_node::clock;
use heddle_xds::model::Timeouts;
use tokio::time::Instant;

use super::forward::{Campaign, Unserved};
use super::headers;
use super::http::{Pipeline, Served};
use super::plan::Plan;
use super::replay::Replay;
use crate::balance::Tried;
use crate::exchange::{Answer, Exchange, Failover, Interim, Reason, Repeat, Retry, Steering};
use crate::http::{Body, Method};
use crate::upstream::{Picked, Seen, Sent, Target, UpstreamError};

/// What steers the tries of one request at one upstream.
pub(super) struct Steered<'a> {
    preferred: Option<u64>,
    retry: Option<&'a Retry>,
    replay: &'a Replay,
    /// An answer that another try should better; it is the client's when there is none.
    kept: Option<Served>,
    began: Instant,
    /// Tries that have ended without success.
    ended: u32,
}

impl<'a> Steered<'a> {
    fn new(steering: &'a Steering, replay: &'a Replay) -> Steered<'a> {
        let retry = steering.retry.as_deref();
        Steered { preferred: steering.preferred, retry, replay, kept: None, began: clock::now(), ended: 0 }
    }

    /// Chooses an endpoint: the preferred one where it may be. Once all were tried, a retry begins with them anew.
    pub(super) fn pick(
        &self,
        target: &Target,
        key: Option<u64>,
        tried: &mut Tried,
        seen: Seen,
        dice: &mut Rng,
        now: Instant,
    ) -> Result<Picked, UpstreamError> {
        let preferred = self.preferred.and_then(|token| target.pick_preferred(token, tried, seen, now));
        if let Some(picked) = preferred {
            return picked;
        }
        if self.retry.is_some() && tried.len() >= target.standing().max(1) {
            tried.clear();
        }
        target.pick(key, tried, seen, dice, now)
    }

    /// Tells the next endpoint which try this is, over all upstreams, where that is wanted.
    fn number(&self, x: &mut Exchange) {
        if let Some(name) = self.retry.and_then(|retry| retry.attempt_header.as_deref()) {
            headers::remove_underscored_as(&mut x.request.fields, name.as_bytes());
            x.request.fields.set(name, (x.attempts.len() + 1).to_string());
        }
    }

    /// The answer that was kept, when nothing better came.
    pub(super) fn take_kept(&mut self) -> Option<Served> {
        self.kept.take()
    }

    /// Gives an answer back that the client should get; one that another try should better is kept.
    pub(super) fn judge(&mut self, x: &Exchange, campaign: &Campaign<'_>, served: Served) -> Option<Served> {
        self.kept = None;
        let bad = |retry: &Retry| {
            retry.after.is_bad(&served.head)
                && !campaign.upgrade
                && self.replay.is_whole()
                && retry.after.may_send_twice(&x.request.method)
                && self.may_begin(retry)
                && retry.budget.spend()
        };
        if self.retry.is_some_and(bad) {
            self.kept = Some(served);
            None
        } else {
            Some(served)
        }
    }

    /// Whether another try follows on an error.
    pub(super) fn may_try_again(
        &mut self,
        x: &Exchange,
        campaign: &Campaign<'_>,
        error: &UpstreamError,
        replayable: bool,
        tried: usize,
    ) -> bool {
        self.kept = None;
        let Some(retry) = self.retry else {
            return campaign.may_try_again(x, error, replayable || self.replay.is_whole(), tried);
        };
        let replayable = self.replay.is_whole() || error.sent == Sent::Nothing;
        // Where nobody has seen a byte, going to another endpoint adds no load.
        let free = error.sent == Sent::Nothing && tried < campaign.target.standing();
        let wanted = retry.after.on_network_error || retry.on_unseen && error.sent == Sent::Nothing;
        let twice = !campaign.upgrade && retry.after.may_send_twice(&x.request.method);
        wanted && error.may_retry(twice, replayable) && self.may_begin(retry) && (free || retry.budget.spend())
    }

    fn may_begin(&self, retry: &Retry) -> bool {
        let left = self.ended + 1 < retry.attempts && !self.is_over();
        left && (retry.timeout.is_zero() || clock::now().saturating_duration_since(self.began) < retry.timeout)
    }

    /// What is left of the time for all tries; `None` where nothing bounds it, and while the client still sends.
    fn left(&self) -> Option<Duration> {
        let total = self.retry.map(|retry| retry.total_timeout).filter(|total| !total.is_zero())?;
        let done = self.replay.done(self.began)?;
        Some(total.saturating_sub(clock::now().saturating_duration_since(done)))
    }

    fn is_over(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// The limits of the next try: none is longer than what is left for all.
    pub(super) fn within(&self, timeouts: Timeouts) -> Timeouts {
        self.left().map_or(timeouts, |left| shortened(timeouts, left))
    }

    /// Why no answer came, when the last error is this.
    pub(super) fn reason(&self, error: &UpstreamError) -> Reason {
        if error.reason.is_upstream() && self.is_over() { Reason::UpstreamTimeout } else { error.reason }
    }

    /// Rests before the next try and makes the body one from its beginning; the reason where the time for all tries ends meanwhile.
    pub(super) async fn rest(&mut self, x: &mut Exchange, body: &mut Body) -> Result<(), Reason> {
        self.ended += 1;
        self.number(x);
        self.replay.rewind(body);
        let rest = self.retry.map_or(Duration::ZERO, |retry| interval(retry, self.ended, x.dice.f64()));
        let rest = self.left().map_or(rest, |left| rest.min(left));
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        if self.is_over() { Err(Reason::UpstreamTimeout) } else { Ok(()) }
    }
}

/// The rest before a retry: it doubles from one to the next up to the longest, and varies by half, so that those who failed together do not come back together.
fn interval(retry: &Retry, ended: u32, drawn: f64) -> Duration {
    let doubled = retry.initial_interval.saturating_mul(1 << ended.saturating_sub(1).min(16));
    doubled.min(retry.max_interval).mul_f64(0.5 + drawn)
}

/// Limits of steps, none of which is longer than this; zero was no limit.
fn shortened(timeouts: Timeouts, left: Duration) -> Timeouts {
    let left = left.max(Duration::from_millis(1));
    let shorter = |limit: Duration| if limit.is_zero() { left } else { limit.min(left) };
    Timeouts { connect: shorter(timeouts.connect), send: shorter(timeouts.send), read: shorter(timeouts.read) }
}

/// What stays the same for all upstreams that a steered request may go to.
struct Way<'a> {
    plan: &'a Plan,
    steering: &'a Steering,
    replay: &'a Replay,
    upgrade: bool,
    interim: &'a Interim,
}

impl Pipeline {
    /// [`Pipeline::forward`] where filters steer.
    pub(super) async fn steered(
        &self,
        x: &mut Exchange,
        plan: &Plan,
        mut body: Body,
        upgrade: bool,
        interim: &Interim,
    ) -> Result<Served, Box<Answer>> {
        let steering = x.steering.as_deref().cloned().unwrap_or_default();
        let replay = Replay::of(&mut body, longest(&steering));
        let way = Way { plan, steering: &steering, replay: &replay, upgrade, interim };
        let own = self.target(x, plan).await;
        let Some(failover) = steering.failover.as_deref() else {
            return self.through(x, &way, own, &mut body).await.map_err(Unserved::into_answer);
        };
        if !own.as_ref().is_ok_and(|own| own.standing() > 0)
            && let Ok(other) = self.other(plan, failover).await
            && other.standing() > 0
        {
            return self.through(x, &way, Ok(other), &mut body).await.map_err(Unserved::into_answer);
        }
        let first = self.through(x, &way, own, &mut body).await;
        if !way.leaves(&failover.after, &first, &x.request.method) {
            return first.map_err(Unserved::into_answer);
        }
        replay.rewind(&mut body);
        let other = self.other(plan, failover).await;
        match (self.through(x, &way, other, &mut body).await, first) {
            (Ok(served), _) | (Err(Unserved::Failed(..)), Ok(served)) => Ok(served),
            (Err(Unserved::Answered(answer)), _) => Err(answer),
            (Err(Unserved::Failed(..)), Err(first)) => Err(first.into_answer()),
        }
    }

    /// Tries the endpoints of one upstream.
    async fn through(
        &self,
        x: &mut Exchange,
        way: &Way<'_>,
        target: Result<Target, Reason>,
        body: &mut Body,
    ) -> Result<Served, Unserved> {
        let target = target.map_err(|reason| Unserved::Failed(reason, Seen::Never))?;
        if target.drops(&mut x.dice) {
            return Err(Unserved::Failed(Reason::DropOverload, Seen::Never));
        }
        let campaign = Campaign::new(way.plan, &target, way.upgrade, way.interim);
        let mut steered = Steered::new(way.steering, way.replay);
        steered.number(x);
        self.tries(x, way.plan, &campaign, body, Some(&mut steered)).await
    }

    /// The other upstream.
    async fn other(&self, plan: &Plan, failover: &Failover) -> Result<Target, Reason> {
        self.settled(plan.view().tables.clusters.get(&failover.upstream)).await
    }
}

impl Way<'_> {
    /// Whether the request leaves its upstream for the other one after this.
    fn leaves(&self, after: &Repeat, first: &Result<Served, Unserved>, method: &Method) -> bool {
        match first {
            Ok(served) => {
                after.is_bad(&served.head) && served.upgrade.is_none() && self.replay.is_whole() && after.may_send_twice(method)
            }
            Err(Unserved::Answered(_)) => false,
            Err(Unserved::Failed(reason, seen)) => {
                let failed = reason.is_upstream() || matches!(reason, Reason::NoUpstream | Reason::NoEndpoint | Reason::Overflow);
                let unseen = *seen == Seen::Never;
                // Who may have seen that one asks to leave HTTP may have left it.
                let twice = !self.upgrade && self.replay.is_whole() && after.may_send_twice(method);
                after.on_network_error && failed && (unseen || twice)
            }
        }
    }
}

/// The longest body that somebody wants to be kept.
fn longest(steering: &Steering) -> u64 {
    let retry = steering.retry.as_ref().map_or(0, |retry| retry.after.max_body_size);
    retry.max(steering.failover.as_ref().map_or(0, |failover| failover.after.max_body_size))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::{Budget, GrpcStatuses, Statuses};

    fn retry(total_timeout: Duration) -> Retry {
        let after = Repeat {
            statuses: Statuses::default(),
            grpc_statuses: GrpcStatuses::default(),
            on_network_error: true,
            methods: Vec::new(),
            max_body_size: 0,
        };
        Retry {
            attempts: 9,
            initial_interval: Duration::from_millis(100),
            max_interval: Duration::from_millis(350),
            timeout: Duration::ZERO,
            total_timeout,
            after,
            on_unseen: false,
            attempt_header: None,
            budget: Arc::new(Budget::new(0, 0)),
        }
    }

    #[test]
    fn rests_double_up_to_the_longest_and_vary_by_half() {
        let retry = retry(Duration::ZERO);
        let middle: Vec<_> = (1..5).map(|ended| interval(&retry, ended, 0.5).as_millis()).collect();
        assert_eq!(middle, [100, 200, 350, 350]);
        assert_eq!((interval(&retry, 1, 0.0).as_millis(), interval(&retry, 60, 1.0).as_millis()), (50, 525));
    }

    #[tokio::test(start_paused = true)]
    async fn no_try_lasts_longer_than_what_is_left_for_all() {
        let seconds = Duration::from_secs;
        let told = Timeouts { connect: seconds(1), send: Duration::ZERO, read: seconds(2) };
        let steering = |total| Steering { retry: Some(Arc::new(retry(total))), ..Steering::default() };
        let (bounded, free) = (steering(seconds(3)), steering(Duration::ZERO));
        let replay = Replay::of(&mut Body::Empty, 9);
        let (bounded, free) = (Steered::new(&bounded, &replay), Steered::new(&free, &replay));
        let late = UpstreamError::new(Reason::UpstreamConnect, Sent::Nothing, "x");
        let mut seen = Vec::new();
        for passed in [0, 2, 1] {
            tokio::time::advance(seconds(passed)).await;
            let limits = bounded.within(told);
            seen.push((limits.connect, limits.send, limits.read, bounded.reason(&late)));
            assert_eq!((free.within(told), free.reason(&late)), (told, Reason::UpstreamConnect));
        }
        let (short, one) = (Duration::from_millis(1), seconds(1));
        let lost = Reason::UpstreamConnect;
        let expected =
            [(one, seconds(3), seconds(2), lost), (one, one, one, lost), (short, short, short, Reason::UpstreamTimeout)];
        assert_eq!(seen, expected, "a limit of nothing would be no limit");
    }
}
