use super::*;

fn windows(texts: &[&str]) -> Windows {
    Windows::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).expect("windows")
}

fn at(text: &str) -> Revision {
    let time: Timestamp = text.parse().expect("time");
    Revision::from_micros(time.as_microsecond())
}

fn is_open(windows: &Windows, text: &str) -> bool {
    windows.opening(at(text), None) == Opening::Open
}

/// Whether the rules of time zones are there; says so if not, and fails where everything has to be there.
fn has_zones() -> bool {
    let found = zones::find("Europe/Berlin").is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "install tzdata");
        eprintln!("skipped: this host has no time zones; install tzdata");
    }
    found
}

#[test]
fn windows_open_and_close_to_the_minute() {
    let week = windows(&["Mon-Fri 09:00-16:00"]);
    // 2026-11-20 is a Friday.
    assert!(!is_open(&week, "2026-11-20T08:59:59.999999Z") && is_open(&week, "2026-11-20T09:00:00Z"));
    assert!(is_open(&week, "2026-11-20T15:59:59.999999Z") && !is_open(&week, "2026-11-20T16:00:00Z"));
    assert!(!is_open(&week, "2026-11-21T12:00:00Z"), "Saturday");
    let Opening::Closed { why, next } = week.opening(at("2026-11-20T16:00:00Z"), None) else { panic!("open") };
    assert_eq!(next, Some(at("2026-11-23T09:00:00Z")));
    assert_eq!(why, "outside of the maintenance windows; the next one opens Mon 2026-11-23 09:00 UTC");
    let whole = windows(&["* 00:00-24:00"]);
    assert!(is_open(&whole, "2026-11-20T00:00:00Z") && is_open(&whole, "2026-11-20T23:59:59Z"));
    let one = windows(&["Fri 09:00-16:00"]);
    let Opening::Closed { next, .. } = one.opening(at("2026-11-20T16:00:00Z"), None) else { panic!("open") };
    assert_eq!(next, Some(at("2026-11-27T09:00:00Z")), "a week later");
}

#[test]
fn windows_cross_midnight_and_the_end_of_the_week() {
    let night = windows(&["Sun 22:00-04:00"]);
    // 2026-11-22 is a Sunday.
    assert!(is_open(&night, "2026-11-22T22:00:00Z") && is_open(&night, "2026-11-23T03:59:59Z"));
    assert!(!is_open(&night, "2026-11-22T03:00:00Z") && !is_open(&night, "2026-11-23T22:00:00Z"));
    let around = windows(&["Sat-Mon,wed 10:00-11:00"]);
    let days: Vec<bool> = (16..=22).map(|day| is_open(&around, &format!("2026-11-{day}T10:30:00Z"))).collect();
    assert_eq!(days, [true, false, true, false, false, true, true], "Monday to Sunday");
}

#[test]
fn the_earliest_of_several_windows_is_next() {
    let two = windows(&["Mon 09:00-10:00", "Sat 20:00-21:00"]);
    let Opening::Closed { next, .. } = two.opening(at("2026-11-20T16:00:00Z"), None) else { panic!("open") };
    assert_eq!(next, Some(at("2026-11-21T20:00:00Z")));
    assert!(is_open(&two, "2026-11-23T09:30:00Z") && is_open(&two, "2026-11-21T20:30:00Z"));
    let none = windows(&[]).opening(at("2026-11-20T16:00:00Z"), None);
    assert!(matches!(none, Opening::Closed { next: None, .. }), "none allows nothing");
    assert_eq!(Windows::default().opening(Revision::ZERO, Some(at("2026-11-20T16:00:00Z"))), Opening::Open);
}

#[test]
fn windows_follow_the_clocks_of_their_zone_through_both_changes() {
    if !has_zones() {
        return;
    }
    let day = windows(&["* 09:00-10:00 Europe/Berlin"]);
    assert!(is_open(&day, "2026-01-15T08:30:00Z") && !is_open(&day, "2026-01-15T07:30:00Z"), "winter");
    assert!(is_open(&day, "2026-07-15T07:30:00Z") && !is_open(&day, "2026-07-15T08:30:00Z"), "summer");
    // On 2026-03-29 there is no 02:00 to 03:00: 01:00Z is 03:00.
    let gap = windows(&["* 02:15-02:45 Europe/Berlin"]);
    assert!(!is_open(&gap, "2026-03-29T01:10:00Z") && is_open(&gap, "2026-03-29T01:20:00Z"), "as long, and later");
    assert!(!is_open(&gap, "2026-03-29T00:30:00Z") && !is_open(&gap, "2026-03-29T01:45:00Z"));
    let over = windows(&["* 01:00-04:00 Europe/Berlin"]);
    assert!(is_open(&over, "2026-03-29T00:00:00Z") && is_open(&over, "2026-03-29T01:59:59Z"));
    assert!(!is_open(&over, "2026-03-29T02:00:00Z"), "04:00");
    // On 2026-10-25 it is 02:00 to 03:00 twice: from 00:00Z and from 01:00Z.
    let fold = windows(&["* 02:15-02:45 Europe/Berlin"]);
    assert!(is_open(&fold, "2026-10-25T00:30:00Z") && !is_open(&fold, "2026-10-25T01:30:00Z"), "once");
    let over = windows(&["* 01:00-04:00 Europe/Berlin"]);
    assert!(is_open(&over, "2026-10-24T23:00:00Z") && is_open(&over, "2026-10-25T02:59:59Z"), "four hours");
    assert!(!is_open(&over, "2026-10-25T03:00:00Z"));
    let Opening::Closed { why, .. } = day.opening(at("2026-07-15T08:30:00Z"), None) else { panic!("open") };
    assert!(why.ends_with("Thu 2026-07-16 09:00 CEST"), "{why}");
}

#[test]
fn a_clock_that_is_not_set_opens_no_window() {
    let always = windows(&["* 00:00-24:00"]);
    let newest = Some(at("2026-11-20T12:00:00Z"));
    let Opening::Closed { why, next: None } = always.opening(Revision::ZERO, newest) else { panic!("open") };
    assert!(why.contains("clock is not set, it says 1970-01-01") && why.contains("2026-11-20T12:00:00"), "{why}");
    assert_eq!(always.opening(at("2026-11-20T11:51:00Z"), newest), Opening::Open, "clocks differ a little");
    assert!(matches!(always.opening(at("2026-11-20T11:49:00Z"), newest), Opening::Closed { .. }));
    assert_eq!(always.opening(at("2027-11-20T11:49:00Z"), newest), Opening::Open);
    // The newest answer is the better clock of the two.
    let noon = windows(&["* 12:00-13:00"]);
    assert_eq!(noon.opening(at("2026-11-20T11:55:00Z"), newest), Opening::Open);
    for edge in [Revision::ZERO, Revision::from_micros(i64::MAX)] {
        let _no_panic = windows(&["* 23:00-01:00"]).opening(edge, None);
    }
}

#[test]
fn what_is_not_a_window_is_refused_with_its_place() {
    for (bad, hint) in [
        ("", "not a window"),
        ("Mon-Fri", "not a window"),
        ("Mon 09:00-10:00 Europe/Berlin now", "not a window"),
        ("Mo 09:00-10:00", "not a day"),
        ("Mon-Fri-Sun 09:00-10:00", "not a day"),
        ("Mon, 09:00-10:00", "not a day"),
        ("Mon 9:00-10:00", "not hours"),
        ("Mon 09:00-24:01", "not hours"),
        ("Mon 09:00", "not hours"),
        ("Mon 09:60-10:00", "not hours"),
        ("Mon +9:00-10:00", "not hours"),
        ("Mon 09:00-09:00", "no time at all"),
        ("Mon 09:00-10:00 ../../etc/passwd", "not the name of a time zone"),
        ("Mon 09:00-10:00 Europe/Nowhere", "knows no time zone"),
    ] {
        let (index, message) = Windows::parse(&["* 00:00-24:00".to_owned(), bad.to_owned()]).expect_err(bad);
        assert!(index == 1 && message.contains(hint), "{bad}: {message}");
    }
    assert!(Windows::parse(&vec!["* 00:00-24:00".to_owned(); MOST]).is_ok());
    assert_eq!(Windows::parse(&vec!["* 00:00-24:00".to_owned(); MOST + 1]).expect_err("many").0, MOST);
}

#[test]
fn windows_are_checked_without_the_rules_of_their_zones() {
    let check = |text: &str| Windows::check(&[text.to_owned()]);
    assert_eq!(check("Mon 09:00-10:00 Europe/Nowhere"), Ok(()));
    for bad in ["Mon 09:00-10:00 ../../etc/passwd", "Mon 9:00-10:00", ""] {
        assert_eq!(check(bad).expect_err(bad).0, 0);
    }
}
