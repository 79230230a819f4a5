//! The date that a client writes (RFC 9110 section 5.6.7, the one form that may be sent). It reads no clock.

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Seconds since the Unix epoch of `Sun, 06 Nov 1994 08:49:37 GMT`. The day of the week is not held against the rest.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (weekday, rest) = text.split_once(", ")?;
    if !DAYS.contains(&weekday) || rest.len() != "06 Nov 1994 08:49:37 GMT".len() || !rest.is_ascii() {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &rest[from..to];
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let shaped = [(2, " "), (6, " "), (11, " "), (14, ":"), (17, ":"), (20, " GMT")];
    if shaped.iter().any(|(at, mark)| !rest[*at..].starts_with(mark)) {
        return None;
    }
    let month = MONTHS.iter().position(|name| *name == &rest[3..6])? as i64 + 1;
    let (day, year) = (number(0, 2)?, number(7, 11)?);
    let (hour, minute, second) = (number(12, 14)?, number(15, 17)?, number(18, 20)?);
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days since the epoch in the proleptic Gregorian calendar: years are counted from March, so that the leap day is the last of a year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::h1::http_date;

    #[test]
    fn what_is_no_date_is_none() {
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for text in [
            "",
            "Sun, ",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Növ 1994 08:49:3 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_are_read_as_they_are_written(second in 0u64..200_000_000_000) {
            let text = http_date(second);
            prop_assert_eq!(parse(&String::from_utf8_lossy(&text)), Some(second as i64));
        }

        #[test]
        fn no_text_makes_the_parser_fall(text in "(Sun, )?.{0,30}") {
            let _ = parse(&text);
        }
    }
}
