//! An end to what comes in, while what goes out goes on: asked for at the endpoint, carried out by the workers. It knows no listener.

use std::time::Duration;

use heddle_node::drain::{self, DrainTrigger, DrainWatch};
use tokio::sync::watch;

/// How long connections that ignore their end are waited for.
const GRACE: Duration = Duration::from_secs(2);

/// Closes what comes in, once.
pub struct Closing {
    trigger: DrainTrigger,
    closed: watch::Receiver<bool>,
}

impl Closing {
    /// With the watch that workers hold for as long as anything comes in; connections have `limit` to end.
    pub fn new(limit: Duration) -> (Closing, DrainWatch) {
        let (completion, watch) = drain::pair();
        let (done, closed) = watch::channel(false);
        let trigger = completion.trigger();
        let mut begun = watch.clone();
        tokio::spawn(async move {
            begun.draining().await;
            drop(begun);
            completion.drain(limit, GRACE).await;
            // Nobody who waits is no reason to wait.
            let _ = done.send(true);
        });
        (Closing { trigger, closed }, watch)
    }

    /// Begins, and waits until nothing comes in any more.
    pub async fn close(&self) {
        self.trigger.begin();
        // An error means that the process ends.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_over_when_the_last_watch_is_dropped() {
        let (closing, mut watch) = Closing::new(Duration::from_secs(60));
        let worker = async {
            watch.draining().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(watch);
        };
        let start = heddle_node::clock::now();
        tokio::join!(closing.close(), worker);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        closing.close().await;
        assert_eq!(start.elapsed(), Duration::from_secs(5), "once is enough");
    }
}
