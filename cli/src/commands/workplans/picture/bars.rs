//! Bars: how many of what, as cells. Each sort has a sign of its own, so that nobody needs the colours.

use super::rows::Row;
use crate::output::{Tone, lines::Line};

/// What a cell of a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// Done, and well.
    Done,
    /// A host that is healthy, not yet for long enough.
    Settling,
    /// On its way.
    Moving,
    /// Failed.
    Failed,
    /// A host that is not there and waited for.
    Offline,
    /// Left out.
    LeftOut,
    /// Its turn has not come.
    Waiting,
}

impl Sort {
    const fn sign(self) -> char {
        match self {
            Self::Done => '█',
            Self::Settling => '▓',
            Self::Moving => '▒',
            Self::Failed => '✗',
            Self::Offline => '?',
            Self::LeftOut => '·',
            Self::Waiting => '░',
        }
    }

    const fn tone(self) -> Tone {
        match self {
            Self::Done | Self::Settling => Tone::Good,
            Self::Moving | Self::Offline => Tone::Care,
            Self::Failed => Tone::Bad,
            Self::LeftOut | Self::Waiting => Tone::Faint,
        }
    }

    const fn meaning(self, hosts: bool) -> &'static str {
        match self {
            Self::Done if hosts => "proven",
            Self::Done => "passed",
            Self::Settling => "healthy, not yet for long",
            Self::Moving => "on the way",
            Self::Failed => "failed",
            Self::Offline => "offline",
            Self::LeftOut => "left out",
            Self::Waiting if hosts => "not yet open",
            Self::Waiting => "not begun",
        }
    }
}

/// How many of which sort, in the order in which they are painted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Bar {
    /// How many of which sort.
    pub(crate) parts: Vec<(Sort, u64)>,
    /// Whether they are hosts.
    pub(crate) hosts: bool,
}

impl Bar {
    /// Returns the bar, `width` columns wide. Whatever is there at all gets a cell, however little it is.
    pub(crate) fn line(&self, width: usize) -> Line {
        let mut line = Line::new();
        for ((sort, _), cells) in self.parts.iter().zip(cells(&self.parts, width)) {
            line = line.add(sort.tone(), sort.sign().to_string().repeat(cells));
        }
        line.pad(width)
    }

    /// Returns what the signs in the bars of these rows mean.
    pub(super) fn legend(rows: &[Row]) -> Line {
        let bars = || rows.iter().filter_map(|row| row.bar.as_ref());
        let hosts = bars().any(|bar| bar.hosts);
        let mut sorts: Vec<Sort> =
            bars().flat_map(|bar| &bar.parts).filter(|(_, count)| *count > 0).map(|(sort, _)| *sort).collect();
        sorts.sort_unstable();
        sorts.dedup();
        let each = |line: Line, sort: Sort| {
            let line = line.text("  ").add(sort.tone(), sort.sign().to_string());
            line.add(Tone::Faint, format!(" {}", sort.meaning(hosts)))
        };
        sorts.into_iter().fold(Line::new(), each)
    }
}

/// Returns how many of `width` cells each part gets: at least one if it is not nothing, all of them together `width`.
fn cells(parts: &[(Sort, u64)], width: usize) -> Vec<usize> {
    let total: u64 = parts.iter().map(|(_, count)| count).sum();
    if total == 0 {
        return vec![0; parts.len()];
    }
    let mut cells = Vec::new();
    for (_, count) in parts {
        let share = u128::from(*count) * width as u128 / u128::from(total);
        cells.push(usize::try_from(share).unwrap_or(width).max(usize::from(*count > 0)));
    }
    // The largest gives and takes what rounding left over.
    while cells.iter().sum::<usize>() != width {
        let sum: usize = cells.iter().sum();
        let Some(largest) = (0..cells.len()).max_by_key(|at| (cells.get(*at), parts.len() - at)) else { break };
        let Some(cell) = cells.get_mut(largest) else { break };
        if sum < width {
            *cell += width - sum;
        } else if *cell > 1 {
            *cell -= 1;
        } else {
            // More sorts than cells: those at the end are cut off.
            break;
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_there_has_a_cell_and_all_cells_are_taken() {
        let of = |counts: &[u64], width: usize| {
            let parts: Vec<_> = counts.iter().map(|count| (Sort::Done, *count)).collect();
            cells(&parts, width)
        };
        assert_eq!(of(&[1], 10), [10]);
        assert_eq!(of(&[1, 1], 10), [5, 5]);
        assert_eq!(of(&[9_999, 1], 10), [9, 1]);
        assert_eq!(of(&[1, 9_998, 1], 10), [1, 8, 1]);
        assert_eq!(of(&[0, 3, 0], 10), [0, 10, 0]);
        assert_eq!(of(&[0, 0], 10), [0, 0]);
        assert_eq!(of(&[u64::MAX / 2, 1], 8), [7, 1]);
        for width in 3..50 {
            assert_eq!(of(&[17, 4, 1], width).iter().sum::<usize>(), width);
        }
    }

    #[test]
    fn bars_speak_without_colours() {
        let bar = Bar { parts: vec![(Sort::Done, 2), (Sort::Failed, 1), (Sort::Waiting, 2)], hosts: true };
        assert_eq!(bar.line(10).render(false), "████✗✗░░░░");
        assert_eq!(Bar::default().line(4).width(), 4);
    }
}
