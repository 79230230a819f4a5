//! Requests in detail, for routes with the `prometheus` plugin: by consumer and node too, with a bound on the number of series.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::TextWriter;
use crate::exchange::{Exchange, MetricLabels};

/// Series that one worker keeps; requests of further ones are counted under [`OTHER`].
const MAX_SERIES: usize = 1_000;
/// Consumer label of the series that takes what is over the bound.
const OTHER: &str = "other";

/// What tells one series from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Series {
    route: Arc<str>,
    service: Arc<str>,
    consumer: Arc<str>,
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
pub struct Details(Mutex<HashMap<Series, Sums>>);

impl Details {
    /// Counts a finished exchange whose route asks for detail.
    pub fn count(&self, x: &Exchange, duration: Duration) {
        let series = Series::of(x);
        let mut all = self.0.lock();
        let series = if all.len() < MAX_SERIES || all.contains_key(&series) { series } else { series.other() };
        let sums = all.entry(series).or_default();
        sums.requests += 1;
        sums.micros += u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        sums.bytes_out += x.answer.bytes_sent;
    }
}

impl Series {
    fn of(x: &Exchange) -> Series {
        let route = x.route.as_deref();
        let named = |id: &Arc<str>, name: &Arc<str>| match x.metrics {
            MetricLabels::Names if !name.is_empty() => name.clone(),
            _ => id.clone(),
        };
        Series {
            route: route.map(|route| named(&route.id, &route.names.route)).unwrap_or_default(),
            service: route.map(|route| named(&route.service_id, &route.names.service)).unwrap_or_default(),
            consumer: x.consumer.as_ref().map(|consumer| consumer.username.clone()).unwrap_or_default(),
            node: x.attempts.last().map(|attempt| attempt.endpoint.address),
            status: x.answer.status,
        }
    }

    fn other(self) -> Series {
        Series { route: "".into(), service: "".into(), consumer: OTHER.into(), node: None, ..self }
    }
}

/// Writes the families of the detailed counters of all workers.
pub fn write<'a>(page: &mut TextWriter, workers: impl Iterator<Item = &'a Details>) {
    let mut all: HashMap<Series, Sums> = HashMap::new();
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
                connect: Duration::ZERO,
                header: None,
                total: None,
                failure: None,
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
