//! Windows: when things may be changed, as in `Mon-Fri 09:00-16:00 Europe/Berlin`.
//!
//! Those of a host's owner hold on the host, by its own clock, whether or not anybody can be reached; a clock that has not
//! been set yet opens none. Those of a rollout hold in the control plane.

mod zones;

use jiff::{
    Timestamp, ToSpan as _,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};

use crate::{Revision, limits::WINDOWS as MOST};

/// How far the clock may be behind the control plane's and still count as set, in microseconds: ten minutes.
const BEHIND: i64 = 10 * 60 * 1_000_000;
const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// When things may be changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Windows(Option<Vec<Window>>);

/// Days of the week, and hours of those days.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    days: Vec<Weekday>,
    from: Time,
    /// Absent: midnight at the day's end.
    to: Option<Time>,
    zone: TimeZone,
}

/// Whether things may be changed at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// They may.
    Open,
    /// They may not; why, for people, and when that ends, if it is known.
    Closed {
        /// Why.
        why: String,
        /// When the next window opens.
        next: Option<Revision>,
    },
}

impl Windows {
    /// Returns the windows that are written in `texts`; without any, nothing may ever be changed. The error says which of
    /// them is wrong, and how.
    pub fn parse(texts: &[String]) -> Result<Self, (usize, String)> {
        Self::parse_with(texts, zones::find)
    }

    /// Checks windows without the rules of their zones: whether a zone exists is known where the windows are to hold.
    pub fn check(texts: &[String]) -> Result<(), (usize, String)> {
        Self::parse_with(texts, |name| zones::check(name).map(|()| TimeZone::UTC)).map(|_| ())
    }

    fn parse_with(texts: &[String], zone: impl Fn(&str) -> Result<TimeZone, String>) -> Result<Self, (usize, String)> {
        if texts.len() > MOST {
            return Err((MOST, format!("{} windows, at most {MOST} are allowed", texts.len())));
        }
        let windows = texts.iter().enumerate();
        let windows = windows.map(|(index, text)| Window::parse(text, &zone).map_err(|message| (index, message)));
        windows.collect::<Result<_, _>>().map(|windows| Self(Some(windows)))
    }

    /// Returns whether things may be changed `now`, by the host's clock. `newest` is the newest cursor that the host
    /// accepted, the proof that the time is not before it.
    #[must_use]
    pub fn opening(&self, now: Revision, newest: Option<Revision>) -> Opening {
        let Some(windows) = &self.0 else { return Opening::Open };
        let newest = newest.unwrap_or_default();
        if now.micros().saturating_add(BEHIND) < newest.micros() {
            let why = format!(
                "outside of the maintenance windows: this host's clock is not set, it says {now}, which is before \
                 {newest}, when the control plane last answered"
            );
            return Opening::Closed { why, next: None };
        }
        let Ok(now) = Timestamp::from_microsecond(now.max(newest).micros()) else {
            return Opening::Closed { why: "the host's clock is beyond the calendar".to_owned(), next: None };
        };
        if windows.iter().any(|window| window.open_at(now)) {
            return Opening::Open;
        }
        let next = windows.iter().filter_map(|window| Some((window.next_open(now)?, window))).min_by_key(|(at, _)| *at);
        let Some((at, window)) = next else {
            let why = "outside of the maintenance windows, and there is none".to_owned();
            return Opening::Closed { why, next: None };
        };
        let why = format!("outside of the maintenance windows; the next one opens {}", window.shown(at));
        Opening::Closed { why, next: Some(Revision::from_micros(at.as_microsecond())) }
    }
}

impl Window {
    fn parse(text: &str, find: impl Fn(&str) -> Result<TimeZone, String>) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(days), Some(hours), zone, None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(format!("{text:?} is not a window such as \"Mon-Fri 09:00-16:00 Europe/Berlin\""));
        };
        let days = parse_days(days)?;
        let parsed = hours.split_once('-').and_then(|(from, to)| {
            let end = (to == "24:00").then_some(None);
            Some((parse_time(from)?, end.or_else(|| parse_time(to).map(Some))?))
        });
        let Some((from, to)) = parsed else {
            return Err(format!("{hours:?} are not hours such as 09:00-16:00 or 22:00-04:00"));
        };
        if to == Some(from) {
            return Err(format!("{hours:?} is no time at all; a whole day is 00:00-24:00"));
        }
        Ok(Self { days, from, to, zone: zone.map_or(Ok(TimeZone::UTC), find)? })
    }

    fn open_at(&self, now: Timestamp) -> bool {
        let today = now.to_zoned(self.zone.clone()).date();
        let days = [today.yesterday().ok(), Some(today)];
        days.into_iter().flatten().filter_map(|day| self.on(day)).any(|(from, to)| from <= now && now < to)
    }

    /// Returns the next instant after `now` at which it opens.
    fn next_open(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.zone.clone()).date();
        let day = |ahead: i64| self.on(today.checked_add(ahead.days()).ok()?).map(|(from, _)| from);
        (0..=8).filter_map(day).find(|from| *from > now)
    }

    /// Returns an instant as people read it in the window's zone. By hand: the library's own way is large.
    fn shown(&self, at: Timestamp) -> String {
        let time = at.to_zoned(self.zone.clone()).datetime();
        let name = DAYS.iter().find(|(_, day)| *day == time.weekday()).map_or("", |(name, _)| name);
        let zone = self.zone.to_offset_info(at);
        let (year, month, day, hour, minute) = (time.year(), time.month(), time.day(), time.hour(), time.minute());
        format!("{name} {year:04}-{month:02}-{day:02} {hour:02}:{minute:02} {}", zone.abbreviation())
    }

    /// Returns from when to when it is open if it opens on `day`. A time that a change of the clocks leaves out is as long
    /// after the change as it would be after the time before; one that comes twice is meant the first time.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.contains(&day.weekday()) {
            return None;
        }
        let at = |day: Date, time: Time| self.zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible().ok();
        let to = match self.to {
            Some(to) if to > self.from => at(day, to),
            to => at(day.tomorrow().ok()?, to.unwrap_or(Time::midnight())),
        };
        Some((at(day, self.from)?, to?))
    }
}

fn parse_days(text: &str) -> Result<Vec<Weekday>, String> {
    if text == "*" {
        return Ok(DAYS.map(|(_, day)| day).into());
    }
    let place = |name: &str| DAYS.iter().position(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Some(first), Some(last)) = (place(first), place(last)) else {
            return Err(format!(
                "{part:?} is not a day; write Mon, Tue, Wed, Thu, Fri, Sat, Sun, a range Mon-Fri or *"
            ));
        };
        let count = (last + 7 - first) % 7;
        days.extend((0..=count).map(|n| DAYS[(first + n) % 7].1));
    }
    Ok(days)
}

fn parse_time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let two = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    (two(hour) && two(minute)).then_some(())?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

#[cfg(test)]
mod tests;
