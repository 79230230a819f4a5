//! How the sources of providers stand, as metrics read at every scrape. It changes nothing.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use crate::state::{Keeper, SourceStatus};

/// Gauges per provider: their number is that of the providers, however many sources there are.
pub struct SourceMetrics {
    keeper: Keeper,
    resources: IntGaugeVec,
    broken: IntGaugeVec,
    accepted: IntGaugeVec,
}

impl SourceMetrics {
    /// Metrics of what `keeper` knows. Register it once.
    ///
    /// # Errors
    /// A metric name is malformed.
    pub fn new(keeper: Keeper) -> Result<SourceMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["provider"]);
        Ok(SourceMetrics {
            keeper,
            resources: gauge("heddle_provider_resources", "User resources believed from a provider.")?,
            broken: gauge("heddle_provider_broken_sources", "Sources of a provider whose newest content was refused.")?,
            accepted: gauge("heddle_provider_accepted_timestamp_seconds", "When content of a provider was last taken over.")?,
        })
    }

    fn show(&self, sources: &[SourceStatus]) {
        let mut sums: BTreeMap<&str, (i64, i64, i64)> = BTreeMap::new();
        for status in sources {
            let (resources, broken, accepted) = sums.entry(&status.provider).or_default();
            *resources += i64::try_from(status.resources).unwrap_or(i64::MAX);
            *broken += i64::from(!status.errors.is_empty());
            let seconds = status.accepted_ms.unwrap_or_default() / 1000;
            *accepted = (*accepted).max(i64::try_from(seconds).unwrap_or(i64::MAX));
        }
        for gauge in [&self.resources, &self.broken, &self.accepted] {
            gauge.reset();
        }
        for (provider, (resources, broken, accepted)) in sums {
            self.resources.with_label_values(&[provider]).set(resources);
            self.broken.with_label_values(&[provider]).set(broken);
            self.accepted.with_label_values(&[provider]).set(accepted);
        }
    }
}

impl Collector for SourceMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [&self.resources, &self.broken, &self.accepted].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.show(&self.keeper.sources());
        [&self.resources, &self.broken, &self.accepted].into_iter().flat_map(Collector::collect).collect()
    }
}
