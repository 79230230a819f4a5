//! Statuses by number or range, as `404`, `500-599` or `502,504`. It knows no pages.

/// Something for statuses.
#[derive(Debug)]
pub(super) struct Statuses<T> {
    ranges: Vec<(u16, u16, T)>,
}

impl<T> Default for Statuses<T> {
    fn default() -> Self {
        Statuses { ranges: Vec::new() }
    }
}

impl<T: Clone> Statuses<T> {
    /// Adds `what` for the statuses that `text` names.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub(super) fn add(&mut self, text: &str, what: &T) -> Result<(), String> {
        for part in text.split(',') {
            let (low, high) =
                range(part.trim()).ok_or_else(|| format!("expected statuses such as 404 or 500-599, got \"{text}\""))?;
            self.ranges.push((low, high, what.clone()));
        }
        // The narrowest goes first, so that a single status goes before a range that holds it.
        self.ranges.sort_by_key(|(low, high, _)| high - low);
        Ok(())
    }

    /// What there is for a status.
    pub(super) fn get(&self, status: u16) -> Option<&T> {
        self.ranges.iter().find(|(low, high, _)| (*low..=*high).contains(&status)).map(|(_, _, what)| what)
    }

    /// Whether there is nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let status =
        |text: &str| text.trim().parse().ok().filter(|status: &u16| text.trim().len() == 3 && (200..600).contains(status));
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (status(low)?, status(high)?);
    (low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_narrowest_range_counts() {
        let mut all = Statuses::default();
        for (text, what) in [("500-599", 'a'), ("502,504", 'b'), ("400 - 404", 'c')] {
            all.add(text, &what).unwrap();
        }
        assert_eq!(
            [500, 502, 504, 404, 405].map(|status| all.get(status).copied()),
            [Some('a'), Some('b'), Some('b'), Some('c'), None]
        );
        for text in ["", "5xx", "599-500", "99", "600", "404-", "+404"] {
            assert!(all.add(text, &'x').is_err(), "{text}");
        }
    }
}
