//! The preflight: whether the hosts can have the release, before any has it.

use titan_api::strategies::releases::Preflight;

use super::progress::Verdict;

/// Returns how the preflight ends: of `hosts` hosts `refused` cannot have the release.
#[must_use]
pub fn verdict(preflight: &Preflight, hosts: u64, refused: u64) -> Verdict {
    let limit = preflight.max_failures;
    // Whoever is refused is one of them, though nobody may know yet who is to have it.
    let hosts = hosts.max(refused);
    if hosts == 0 {
        return Verdict::NoOp("no host is to have it".to_owned());
    }
    if limit.is_exceeded(refused, hosts) {
        return Verdict::Failed(format!("{refused} of {hosts} hosts cannot have it, and {limit} may not"));
    }
    Verdict::Passed
}

#[cfg(test)]
mod tests {
    use titan_api::shares::Share;

    use super::*;

    #[test]
    fn too_many_hosts_that_cannot_have_it_stop_it_before_it_begins() {
        let check = |share, hosts, refused| verdict(&Preflight { max_failures: share }, hosts, refused);
        assert_eq!(check(Share::NONE, 50, 0), Verdict::Passed);
        assert_eq!(check(Share::Percent(2), 50, 1), Verdict::Passed);
        let failed = check(Share::Percent(2), 50, 2);
        assert_eq!(failed, Verdict::Failed("2 of 50 hosts cannot have it, and 2% may not".to_owned()));
        assert!(matches!(check(Share::NONE, 0, 0), Verdict::NoOp(_)));
        assert!(matches!(check(Share::NONE, 0, 1), Verdict::Failed(_)), "a refusal is one, however many are known");
    }
}
