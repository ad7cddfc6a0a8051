//! The rules of time zones, as the machine keeps them.

use std::{fs, path::Path};

use jiff::tz::TimeZone;

/// Where machines keep the rules of time zones.
const ZONES: [&str; 3] = ["/usr/share/zoneinfo", "/etc/zoneinfo", "/usr/lib/zoneinfo"];

/// Checks that `name` may be that of a zone; nothing else is looked for on the disk.
pub(super) fn check(name: &str) -> Result<(), String> {
    let plain = |part: &str| {
        let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        !part.is_empty() && part.bytes().all(usual)
    };
    if !name.split('/').all(plain) {
        return Err(format!("{name:?} is not the name of a time zone such as Europe/Berlin"));
    }
    Ok(())
}

/// Returns the time zone of this name, from the rules that the host has.
pub(super) fn find(name: &str) -> Result<TimeZone, String> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    check(name)?;
    let Some(bytes) = ZONES.iter().find_map(|dir| fs::read(Path::new(dir).join(name)).ok()) else {
        return Err(format!("this host knows no time zone {name:?}; is its package of time zones (tzdata) installed?"));
    };
    TimeZone::tzif(name, &bytes).map_err(|error| format!("the rules of the time zone {name:?} are damaged: {error}"))
}
