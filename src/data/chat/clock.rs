//! Dates in chat templates.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// `seconds` since 1970, in UTC, by the format of C's strftime; the directives that dates and times are made of.
pub fn strftime(seconds: i64, format: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' => match characters.next() {
                Some('-') => text.push_str(unpadded(&field(seconds, characters.next())?)),
                directive => text.push_str(&field(seconds, directive)?),
            },
            other => text.push(other),
        }
    }
    Ok(text)
}

fn unpadded(number: &str) -> &str {
    let digits = number.trim_start_matches(['0', ' ']);
    if digits.is_empty() { "0" } else { digits }
}

fn field(seconds: i64, directive: Option<char>) -> Result<String, String> {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (name, weekday) = (MONTHS[month as usize - 1], DAYS[days.rem_euclid(7) as usize]);
    let hour = second / 3600;
    Ok(match directive {
        Some('Y') => year.to_string(),
        Some('y') => format!("{:02}", year.rem_euclid(100)),
        Some('m') => format!("{month:02}"),
        Some('d') => format!("{day:02}"),
        Some('e') => format!("{day:2}"),
        Some('B') => name.into(),
        Some('b' | 'h') => name[..3].into(),
        Some('A') => weekday.into(),
        Some('a') => weekday[..3].into(),
        Some('j') => format!("{:03}", days - days_before(year) + 1),
        Some('H') => format!("{hour:02}"),
        Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
        Some('M') => format!("{:02}", second / 60 % 60),
        Some('S') => format!("{:02}", second % 60),
        Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
        Some('F') => format!("{year}-{month:02}-{day:02}"),
        Some('T') => format!("{hour:02}:{:02}:{:02}", second / 60 % 60, second % 60),
        Some('%') => "%".into(),
        Some(other) => return Err(format!("strftime_now: %{other} is not among its directives")),
        None => return Err("strftime_now: the format ends in %".into()),
    })
}

/// Days from 1970 to the first of January of a year: 365 for each, and one for each leap year between.
fn days_before(year: i64) -> i64 {
    let leaps = |year: i64| year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

/// Year, month and day of a day since 1970 in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // At most one off, since a year has 365.2425 days on average.
    let mut year = 1970 + (days as f64 / 365.2425).floor() as i64;
    while days_before(year) > days {
        year -= 1;
    }
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = days_before(year + 1) - days_before(year) - 365;
    let mut day = days - days_before(year);
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    (year, month as i64 + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `date -u -d @SECONDS +FORMAT` says.
    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds, format| strftime(seconds, format).unwrap();
        assert_eq!(at(0, "%d %b %Y %H:%M:%S %A %j"), "01 Jan 1970 00:00:00 Thursday 001");
        assert_eq!(at(951_782_400, "%F %a %j"), "2000-02-29 Tue 060");
        assert_eq!(at(1_735_689_599, "%-d %B %y %I:%M %p %j"), "31 December 24 11:59 PM 366");
        assert_eq!(at(4_107_542_400, "%e.%-m.%Y%%"), " 1.3.2100%");
        assert_eq!(at(-1, "%F %T"), "1969-12-31 23:59:59");
        assert!(strftime(0, "%Q").unwrap_err().contains("%Q"));
        assert!(strftime(0, "100%").is_err());
    }
}
