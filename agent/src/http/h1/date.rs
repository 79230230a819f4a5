//! `Date` of responses (RFC 9110 section 5.6.7), formatted once per second. It reads no clock.

use std::cell::Cell;

/// Length of a date.
pub const DATE_LEN: usize = 29;

/// The last date, kept by each worker.
#[derive(Debug, Default)]
pub struct DateCache {
    last: Cell<Option<(u64, [u8; DATE_LEN])>>,
}

impl DateCache {
    /// The date of a second since the Unix epoch.
    pub fn at(&self, second: u64) -> [u8; DATE_LEN] {
        match self.last.get() {
            Some((last, text)) if last == second => text,
            _ => {
                let text = http_date(second);
                self.last.set(Some((second, text)));
                text
            }
        }
    }
}

/// A second since the Unix epoch as `Sun, 06 Nov 1994 08:49:37 GMT`. Years from 1970 to 9999.
pub fn http_date(second: u64) -> [u8; DATE_LEN] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (days, rest) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"---, 00 --- 0000 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    put(&mut text[5..7], day);
    text[8..11].copy_from_slice(&MONTHS[month * 3..month * 3 + 3]);
    put(&mut text[12..16], year);
    put(&mut text[17..19], rest / 3600);
    put(&mut text[20..22], rest / 60 % 60);
    put(&mut text[23..25], rest % 60);
    text
}

fn put(at: &mut [u8], mut value: u64) {
    for digit in at.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month from 0 and day from 1 of a day since the epoch, in the proleptic Gregorian calendar: years are counted from March, so that the
/// leap day is the last of a year.
fn civil(days: u64) -> (u64, usize, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    (year_of_era + era * 400 + u64::from(month < 2), month as usize, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_rfc_the_epoch_and_leap_days() {
        for (second, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&DateCache::default().at(second)), Ok(text));
        }
    }
}
