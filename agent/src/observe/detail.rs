//! Requests in detail, for routes with the `prometheus` plugin: by consumer and node too, with a bound on the number of series.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;

use super::TextWriter;
use crate::exchange::{Exchange, MetricLabels};

/// Series that one worker keeps; requests of further ones are counted under [`OTHER`].
const MAX_SERIES: usize = 1_000;
/// Consumer label of the series that takes what is over the bound.
const OTHER: &str = "other";

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    route: Arc<str>,
    service: Arc<str>,
    consumer: Arc<str>,
    node: Option<SocketAddr>,
    status: u16,
}

/// The same where it lies in an exchange: looking up a series that is there touches nothing that workers share.
#[derive(PartialEq, Eq, Hash)]
struct Labels<'a> {
    route: &'a str,
    service: &'a str,
    consumer: &'a str,
    node: Option<SocketAddr>,
    status: u16,
}

/// What is counted in a series.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    requests: u64,
    micros: u64,
    bytes_out: u64,
}

/// One worker's detailed counters. The lock is only ever met by a scrape.
#[derive(Debug, Default)]
pub struct Details(Mutex<HashMap<Series, Sums, RandomState>>);

impl Details {
    /// Counts a finished exchange whose route asks for detail.
    pub fn count(&self, x: &Exchange, duration: Duration) {
        let labels = Labels::of(x);
        let mut all = self.0.lock();
        if let Some(sums) = all.get_mut(&labels) {
            return sums.add(x, duration);
        }
        let labels = if all.len() < MAX_SERIES { labels } else { labels.other() };
        all.entry(Series::from(&labels)).or_default().add(x, duration);
    }
}

impl Sums {
    fn add(&mut self, x: &Exchange, duration: Duration) {
        self.requests += 1;
        self.micros += u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.bytes_out += x.answer.bytes_sent;
    }
}

impl<'a> Labels<'a> {
    fn of(x: &'a Exchange) -> Labels<'a> {
        let named = |id: &'a str, name: &'a str| match x.metrics {
            MetricLabels::Names if !name.is_empty() => name,
            _ => id,
        };
        let route = x.routed().map(|route| route.info());
        Labels {
            route: route.map_or("", |route| named(&route.id, &route.name)),
            service: route.map_or("", |route| named(&route.service_id, &route.service)),
            consumer: x.consumer.as_ref().map_or("", |consumer| &consumer.username),
            node: x.attempts.last().map(|attempt| attempt.endpoint.address),
            status: x.answer.status,
        }
    }

    fn other(self) -> Labels<'a> {
        Labels { route: "", service: "", consumer: OTHER, node: None, ..self }
    }
}

impl Series {
    fn labels(&self) -> Labels<'_> {
        let Series { route, service, consumer, node, status } = self;
        Labels { route, service, consumer, node: *node, status: *status }
    }
}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl Equivalent<Series> for Labels<'_> {
    fn equivalent(&self, series: &Series) -> bool {
        *self == series.labels()
    }
}

impl From<&Labels<'_>> for Series {
    fn from(labels: &Labels<'_>) -> Series {
        let &Labels { route, service, consumer, node, status } = labels;
        Series { route: route.into(), service: service.into(), consumer: consumer.into(), node, status }
    }
}

/// Writes the families of the detailed counters of all workers.
pub fn write<'a>(page: &mut TextWriter, workers: impl Iterator<Item = &'a Details>) {
    let mut all: HashMap<Series, Sums, RandomState> = HashMap::default();
    for worker in workers {
        for (series, sums) in worker.0.lock().iter() {
            let total = all.entry(series.clone()).or_default();
            total.requests += sums.requests;
            total.micros += sums.micros;
            total.bytes_out += sums.bytes_out;
        }
    }
    let mut sorted: Vec<(Series, Sums)> = all.into_iter().collect();
    sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut family = |name: &str, help: &str, value: fn(&Sums) -> f64| {
        page.family(name, "counter", help);
        for (series, sums) in &sorted {
            let (node, code) = (series.node.map(|node| node.to_string()).unwrap_or_default(), series.status.to_string());
            let labels = [
                ("route", &*series.route),
                ("service", &series.service),
                ("consumer", &series.consumer),
                ("node", &node),
                ("code", &code),
            ];
            page.sample(name, &labels, value(sums));
        }
    };
    family("heddle_http_detailed_requests_total", "Requests of routes with the prometheus plugin.", |sums| sums.requests as f64);
    family("heddle_http_detailed_duration_seconds_total", "Time spent on them.", |sums| sums.micros as f64 / 1e6);
    family("heddle_http_detailed_bytes_total", "Body bytes sent for them.", |sums| sums.bytes_out as f64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::testing::get;
    use crate::exchange::{Attempt, EndpointName};

    #[test]
    fn series_are_bounded_and_the_rest_is_counted_together() {
        let (details, mut x) = (Details::default(), get("a.example", "/"));
        x.answer.status = 200;
        for port in 0..3_000u16 {
            x.attempts.clear();
            x.attempts.push(Attempt {
                endpoint: EndpointName::new("".into(), SocketAddr::from(([127, 0, 0, 1], port))),
                status: Some(200),
                outcome: Some(200),
                connect: Duration::ZERO,
                header: None,
                total: None,
                failure: None,
                broke: false,
            });
            details.count(&x, Duration::from_millis(1));
        }
        let mut page = TextWriter::new();
        write(&mut page, [&details].into_iter());
        let text = page.finish();
        assert!(details.0.lock().len() <= MAX_SERIES + 1);
        assert!(text.contains("consumer=\"other\",node=\"\",code=\"200\"} 2000\n"), "{text}");
    }
}
