//! Whom to ask, and when: seeds that are not heard yet, often while nobody is, seldom afterwards. It sends nothing.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::settings::MAX_SEEDS;

/// How many seeds are asked at a time.
const AT_ONCE: usize = 3;
/// How many intervals lie between two times once somebody is heard: an island that has been cut off for so long that it is forgotten finds back this way.
const SELDOM: u32 = 15;
/// How long names are looked up at most.
const LOOKUP: Duration = Duration::from_secs(2);

/// How long to wait before seeds are asked again.
#[must_use]
pub fn pause(interval: Duration, others: usize) -> Duration {
    if others == 0 { interval } else { interval * SELDOM }
}

/// A few of the seeds that are not among those heard, by chance.
pub fn pick(seeds: HashSet<SocketAddr>, heard: &HashSet<SocketAddr>, dice: &mut fastrand::Rng) -> Vec<SocketAddr> {
    let mut seeds: Vec<SocketAddr> = seeds.difference(heard).copied().collect();
    // The order of a set is not to be relied on, also not for chance.
    seeds.sort_unstable();
    dice.shuffle(&mut seeds);
    seeds.truncate(AT_ONCE);
    seeds
}

/// The addresses of seeds. What cannot be looked up now can be later.
pub async fn look_up(seeds: &[String]) -> HashSet<SocketAddr> {
    let mut found = HashSet::new();
    for seed in seeds.iter().take(2 * MAX_SEEDS) {
        if let Ok(address) = seed.parse() {
            found.insert(address);
        } else if let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(seed.as_str())).await {
            found.extend(addresses.take(MAX_SEEDS));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn only_the_unheard_are_asked_and_only_a_few() {
        let mut dice = fastrand::Rng::with_seed(1);
        assert_eq!(pick((1..=3).map(at).collect(), &[at(1), at(3)].into(), &mut dice), [at(2)]);
        assert_eq!(pick((1..=30).map(at).collect(), &HashSet::new(), &mut dice).len(), AT_ONCE);
    }

    #[test]
    fn the_lonely_ask_often() {
        let interval = Duration::from_secs(1);
        assert_eq!((pause(interval, 0), pause(interval, 2)), (interval, interval * SELDOM));
    }

    #[tokio::test]
    async fn addresses_need_no_names() {
        let seeds = ["127.0.0.1:1".to_owned(), "no such host:1".to_owned()];
        assert_eq!(look_up(&seeds).await, [at(1)].into());
    }
}
