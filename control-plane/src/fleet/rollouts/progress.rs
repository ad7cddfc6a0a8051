//! Progress: how far a stage is, moved along by what happens to its hosts.
//!
//! Hosts stand in their order, those that have the release first, so an opening is a place in that order. What is counted is
//! moved when a host moves; a look costs what changed since the last one, however many hosts there are.

mod places;

use std::collections::BTreeSet;

use roaring::RoaringBitmap;
use uuid::Uuid;

use self::places::Places;

use super::{
    Counts, Frozen, Opening, Ranked, Rules, Said, Standing,
    standing::{Class, class},
};

pub use places::Seat;

/// A stage on its way.
#[derive(Debug, Clone)]
pub struct Progress {
    rules: Rules,
    reach: Option<u64>,
    members: Vec<Member>,
    places: Places,
    /// How many of the members have the release: the first ones.
    opened: usize,
    /// Whether one of them was opened by this stage, or was before it was taken up again.
    begun: bool,
    /// How many members are of each class: those that are not open, and those that are.
    tally: [[u64; Class::COUNT]; 2],
    /// When hosts change their class without a word from them.
    due: BTreeSet<(i64, u32)>,
    failed: RoaringBitmap,
    now: i64,
    /// The most hosts that were ever proven.
    best: u64,
    /// When there last was progress.
    progressed: i64,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    ranked: Ranked,
    standing: Standing,
    class: Class,
    due: Option<i64>,
}

/// Whether hosts may be given the release now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doors {
    /// They may.
    Open,
    /// They may not: no window is open.
    Closed {
        /// When the next one opens, by the plan's clock, if that is known.
        until: Option<i64>,
    },
}

/// What follows from a look at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// How far the gate is to be open for the stage; never less than it was. `None`: not at all.
    pub opening: Option<Opening>,
    /// How the stage ended, if it did.
    pub verdict: Option<Verdict>,
    /// When to look again though nothing happens, by the plan's clock. `None` with no verdict: it waits for hosts that are
    /// offline, or for a window of which nobody knows when it opens.
    pub due: Option<i64>,
    /// How its hosts stand.
    pub counts: Counts,
}

/// How a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its hosts are proven.
    Passed,
    /// There was nothing to do, and why.
    NoOp(String),
    /// It failed, and why, with the numbers.
    Failed(String),
}

impl Progress {
    /// Returns a stage that begins, or goes on with the `opening` that the gate has for it. Its deadline counts from `now`:
    /// what happened while nobody looked is not held against it.
    #[must_use]
    pub fn new(rules: Rules, frozen: Frozen, opening: Option<&Opening>, now: i64) -> Self {
        let Frozen { mut members, reach } = frozen;
        members.sort_unstable();
        members.dedup_by_key(|member| member.host);
        let lets =
            |member: &Ranked| opening.is_some_and(|opening| opening.up_to.is_none_or(|up_to| member.rank <= up_to));
        let opened = members.partition_point(lets);
        let mut tally = [[0; Class::COUNT]; 2];
        tally[0][Class::Moving as usize] = (members.len() - opened) as u64;
        tally[1][Class::Moving as usize] = opened as u64;
        let places = Places::of(&members);
        let standing = Standing::default();
        let member = |ranked| Member { ranked, standing, class: Class::Moving, due: None };
        Self {
            rules,
            reach,
            members: members.into_iter().map(member).collect(),
            places,
            opened,
            begun: opened > 0,
            tally,
            due: BTreeSet::new(),
            failed: RoaringBitmap::new(),
            now,
            best: 0,
            progressed: now,
        }
    }

    /// Takes in how a host stands; one that is no member is left out. A host that goes on being healthy is so since it
    /// first was.
    pub fn tell(&mut self, host: Uuid, mut standing: Standing, now: i64) {
        self.pass_to(now);
        let Some(place) = self.place(host) else { return };
        let Some(member) = self.members.get_mut(place as usize).filter(|member| member.class != Class::Gone) else {
            return;
        };
        if let (Said::Healthy { since: before }, Said::Healthy { since }) = (member.standing.said, &mut standing.said) {
            *since = before.min(*since);
        }
        member.standing = standing;
        self.sort(place, None);
    }

    /// Takes in that a host was deleted or is no longer one of the deployment's: it is out of all numbers, for good.
    pub fn remove(&mut self, host: Uuid, now: i64) {
        self.pass_to(now);
        if let Some(place) = self.place(host) {
            self.sort(place, Some(Class::Gone));
        }
    }

    /// Returns the hosts that count as failed.
    pub fn failed(&self) -> impl Iterator<Item = Uuid> {
        self.failed.iter().filter_map(|place| Some(self.members.get(place as usize)?.ranked.host))
    }

    /// Looks at the stage. What has failed for certain is told first, then what is done; then more hosts are given the
    /// release, as many as may be out; then it is asked whether anything still moves.
    pub fn advance(&mut self, now: i64, doors: Doors) -> Advance {
        self.pass_to(now);
        let mut verdict = self.too_many_failed().or_else(|| self.nothing_to_do());
        if verdict.is_none() {
            if doors == Doors::Open {
                self.open_more();
            }
            verdict = self.all_done().or_else(|| self.stalled(doors));
        }
        let due = if verdict.is_none() { self.next_look(doors) } else { None };
        let ended_well = matches!(verdict, Some(Verdict::Passed | Verdict::NoOp(_)));
        Advance { opening: self.opening(ended_well), verdict, due, counts: self.counts() }
    }

    /// Returns how the hosts stand.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let of = |class: Class| self.of(class);
        Counts {
            members: self.total() + of(Class::Excluded),
            opened: self.opened_count(),
            proven: of(Class::Proven),
            settling: self.open(Class::Settling),
            moving: self.open(Class::Moving),
            failed: of(Class::Failed) + of(Class::Unrenderable) + of(Class::Lost),
            offline: of(Class::Silent) + of(Class::Excluded),
            excluded: of(Class::Excluded),
        }
    }

    /// Returns the rules by which it is judged.
    #[must_use]
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    fn of(&self, class: Class) -> u64 {
        self.tally[0][class as usize] + self.tally[1][class as usize]
    }

    fn open(&self, class: Class) -> u64 {
        self.tally[1][class as usize]
    }

    fn opened_count(&self) -> u64 {
        self.tally[1].iter().sum::<u64>() - self.open(Class::Gone)
    }

    /// The hosts of which parts are taken: those that are neither gone nor left out.
    fn total(&self) -> u64 {
        self.members.len() as u64 - self.of(Class::Gone) - self.of(Class::Excluded)
    }

    /// How many hosts have the release and are not proven.
    fn out(&self) -> u64 {
        let out = [Class::Moving, Class::Settling, Class::Failed, Class::Silent, Class::Lost];
        out.into_iter().map(|class| self.open(class)).sum()
    }

    fn pass_to(&mut self, now: i64) {
        while let Some((at, place)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.now = self.now.max(at);
            self.sort(place, None);
        }
        self.now = self.now.max(now);
    }

    /// Finds the class of a member anew.
    fn sort(&mut self, place: u32, fixed: Option<Class>) {
        let open = usize::from((place as usize) < self.opened);
        let Some(member) = self.members.get_mut(place as usize) else { return };
        let (next, due) = fixed.map_or_else(|| class(member.standing, &self.rules, self.now), |class| (class, None));
        if let Some(due) = member.due.take() {
            self.due.remove(&(due, place));
        }
        member.due = due;
        self.due.extend(due.map(|due| (due, place)));
        self.tally[open][member.class as usize] -= 1;
        self.tally[open][next as usize] += 1;
        member.class = next;
        if next.failed() {
            self.failed.insert(place);
        } else {
            self.failed.remove(place);
        }
        self.note_progress();
    }

    /// More hosts that have the release are proven than ever before.
    fn note_progress(&mut self) {
        let proven = self.open(Class::Proven);
        if proven > self.best {
            self.best = proven;
            self.progressed = self.now;
        }
    }

    fn too_many_failed(&self) -> Option<Verdict> {
        let (failed, total, limit) = (self.failed.len(), self.total(), self.rules.max_failures);
        let why = || format!("{failed} of {total} hosts failed, and {limit} may");
        limit.is_exceeded(failed, total).then(|| Verdict::Failed(why()))
    }

    fn nothing_to_do(&self) -> Option<Verdict> {
        if self.begun {
            return None;
        }
        let (total, excluded) = (self.total(), self.of(Class::Excluded));
        let why = match (total, excluded) {
            (0, 0) => "no host is left for it".to_owned(),
            (0, excluded) => format!("all {excluded} hosts are offline"),
            (total, _) if self.of(Class::Proven) == total => format!("all {total} hosts had it before"),
            _ => return None,
        };
        Some(Verdict::NoOp(why))
    }

    /// Opens for more hosts, in their order, as long as no more are out than may be. Hosts of one rank are opened together.
    fn open_more(&mut self) {
        let counted = self.total() + self.of(Class::Excluded);
        let mut room = self.rules.max_unavailable.at_most(counted).saturating_sub(self.out());
        let before = self.opened;
        while let Some(first) = self.members.get(self.opened) {
            let rank = first.ranked.rank;
            let run = self.members[self.opened..].iter().take_while(|member| member.ranked.rank == rank);
            let (mut count, mut out) = (0, 0);
            for member in run {
                count += 1;
                out += u64::from(member.class.out());
            }
            if out > room {
                break;
            }
            room -= out;
            for place in self.opened..self.opened + count {
                let class = self.members[place].class as usize;
                self.tally[0][class] -= 1;
                self.tally[1][class] += 1;
            }
            self.opened += count;
        }
        if self.opened > before {
            self.begun = true;
            self.progressed = self.now;
            self.note_progress();
        }
    }

    fn all_done(&self) -> Option<Verdict> {
        let settled = [Class::Proven, Class::Failed, Class::Unrenderable, Class::Lost];
        let settled: u64 = settled.into_iter().map(|class| self.of(class)).sum();
        if self.opened < self.members.len() || settled < self.total() {
            return None;
        }
        if self.total() == 0 {
            return Some(match self.of(Class::Excluded) {
                0 => Verdict::NoOp("no host is left for it".to_owned()),
                excluded => Verdict::NoOp(format!("all {excluded} hosts are offline")),
            });
        }
        Some(Verdict::Passed)
    }

    /// When it has gone on for too long without progress, if anything is there that could make some.
    fn deadline(&self, doors: Doors) -> Option<i64> {
        let under_way = self.open(Class::Moving) + self.open(Class::Settling) > 0;
        // Hosts that failed take all that may be out; those that are offline may yet return.
        let blocked = self.opened < self.members.len() && doors == Doors::Open && self.open(Class::Silent) == 0;
        let span = self.rules.progress_deadline.saturating_add(self.rules.min_ready);
        (under_way || blocked).then(|| self.progressed.saturating_add(span))
    }

    fn stalled(&self, doors: Doors) -> Option<Verdict> {
        self.deadline(doors).filter(|deadline| *deadline <= self.now)?;
        let (Counts { members, opened, proven, failed, offline, .. }, total) = (self.counts(), self.total());
        let span = titan_api::spans::Span(std::time::Duration::from_micros(
            self.rules.progress_deadline.saturating_add(self.rules.min_ready).unsigned_abs(),
        ));
        let why = if self.open(Class::Moving) + self.open(Class::Settling) > 0 {
            format!(
                "no progress in {span}: {proven} of {total} hosts are healthy, {opened} have it, {failed} failed, {offline} \
                 are offline"
            )
        } else {
            let most = self.rules.max_unavailable.at_most(members);
            format!(
                "no progress in {span}: {} hosts that have it are not healthy and {most} may be, so that {} others cannot \
                 have it",
                self.out(),
                members.saturating_sub(opened)
            )
        };
        Some(Verdict::Failed(why))
    }

    fn next_look(&self, doors: Doors) -> Option<i64> {
        let window = match doors {
            Doors::Closed { until } if self.opened < self.members.len() => until,
            _ => None,
        };
        [self.due.first().map(|(at, _)| *at), window, self.deadline(doors)].into_iter().flatten().min()
    }

    fn opening(&self, ended_well: bool) -> Option<Opening> {
        let opening = |up_to| Opening {
            stage: self.rules.stage.clone(),
            selector: self.rules.selector.clone(),
            up_to,
            reach: self.reach,
        };
        if ended_well {
            return Some(opening(self.reach));
        }
        let last = self.opened.checked_sub(1).and_then(|last| self.members.get(last))?;
        Some(opening(Some(last.ranked.rank)))
    }
}
