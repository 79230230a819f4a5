//! Signals of the operating system as an order to drain, force or reload. It does not know what is drained or reloaded.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::{DrainTrigger, Phase};

/// What an operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// SIGTERM or SIGINT for the first time.
    Drain,
    /// SIGTERM or SIGINT again.
    Force,
    /// SIGHUP: read again what can be read again; never a reason to stop.
    Reload,
}

/// The signals this process listens for, from the moment it is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Starts to listen; from now on SIGTERM, SIGINT and SIGHUP no longer end the process by themselves. Needs a tokio runtime.
    ///
    /// # Errors
    /// The operating system refused a handler.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal and says what it asks for when the drain stands at `phase`.
    pub async fn next(&mut self, phase: Phase) -> Order {
        // `recv` of a listening signal never ends; a closed one simply never fires again.
        tokio::select! {
            Some(()) = self.terminate.recv() => stop_order(phase),
            Some(()) = self.interrupt.recv() => stop_order(phase),
            Some(()) = self.hangup.recv() => Order::Reload,
            else => std::future::pending().await,
        }
    }

    /// Obeys signals until `trigger` is forced: the first stop begins the drain, the second forces it, SIGHUP calls `reload`.
    pub async fn obey(mut self, trigger: DrainTrigger, mut reload: impl FnMut()) {
        while trigger.phase() < Phase::Forced {
            match self.next(trigger.phase()).await {
                Order::Drain => {
                    trigger.begin();
                }
                Order::Force => {
                    tracing::warn!("stopping at once, requests in flight are cut");
                    trigger.force();
                }
                Order::Reload => reload(),
            }
        }
    }
}

fn stop_order(phase: Phase) -> Order {
    if phase == Phase::Running { Order::Drain } else { Order::Force }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stop_drains_and_the_second_forces() {
        assert_eq!(stop_order(Phase::Running), Order::Drain);
        assert_eq!(stop_order(Phase::Draining), Order::Force);
        assert_eq!(stop_order(Phase::Forced), Order::Force);
    }
}
