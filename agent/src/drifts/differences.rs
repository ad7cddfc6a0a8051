//! Differences of two texts, line by line, as `diff -u` writes them.
//!
//! By the algorithm of Myers, which finds the least that has to change. Texts that differ in more lines than [`EDITS`] are
//! told as one that goes and one that comes, between the lines that both begin and end with.

use std::ops::Range;

/// How many lines may go or come before the difference is no longer sought line by line. Time and memory grow with its
/// square: about 2 MiB at the most.
const EDITS: usize = 512;
/// Lines shown around what differs.
const CONTEXT: usize = 3;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit<'a> {
    Stays(&'a str),
    Goes(&'a str),
    Comes(&'a str),
}

/// Returns the difference between two texts under these names; empty if there is none.
pub(crate) fn unified(names: (&str, &str), before: &str, after: &str) -> String {
    let before: Vec<_> = before.split_inclusive('\n').collect();
    let after: Vec<_> = after.split_inclusive('\n').collect();
    let edits = edits(&before, &after);
    let mut text = String::new();
    let (mut done, mut old, mut new) = (0, 0, 0);
    for hunk in hunks(&edits) {
        if text.is_empty() {
            text = format!("--- {}\n+++ {}\n", names.0, names.1);
        }
        for edit in &edits[done..hunk.start] {
            count(*edit, &mut old, &mut new);
        }
        let from = (old, new);
        let mut lines = String::new();
        for edit in &edits[hunk.clone()] {
            count(*edit, &mut old, &mut new);
            let (mark, line) = match edit {
                Edit::Stays(line) => (' ', line),
                Edit::Goes(line) => ('-', line),
                Edit::Comes(line) => ('+', line),
            };
            lines.push(mark);
            lines.push_str(line);
            if !line.ends_with('\n') {
                lines.push_str("\n\\ No newline at end of file\n");
            }
        }
        text.push_str(&format!("@@ -{} +{} @@\n{lines}", place(from.0..old), place(from.1..new)));
        done = hunk.end;
    }
    text
}

fn count(edit: Edit<'_>, old: &mut usize, new: &mut usize) {
    *old += usize::from(!matches!(edit, Edit::Comes(_)));
    *new += usize::from(!matches!(edit, Edit::Goes(_)));
}

/// Returns lines as `diff` writes them: counted from 1, with the line before if there are none.
fn place(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// Returns the stretches that are shown: what differs with the lines around, together where these meet.
fn hunks(edits: &[Edit<'_>]) -> Vec<Range<usize>> {
    let mut hunks: Vec<Range<usize>> = Vec::new();
    for (at, _) in edits.iter().enumerate().filter(|(_, edit)| !matches!(edit, Edit::Stays(_))) {
        let (start, end) = (at.saturating_sub(CONTEXT), (at + 1 + CONTEXT).min(edits.len()));
        match hunks.last_mut() {
            Some(last) if start <= last.end => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

fn edits<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Edit<'a>> {
    let head = before.iter().zip(after).take_while(|(one, other)| one == other).count();
    let rest = before[head..].iter().rev().zip(after[head..].iter().rev());
    let tail = rest.take_while(|(one, other)| one == other).count();
    let (old, new) = (&before[head..before.len() - tail], &after[head..after.len() - tail]);
    let mut edits: Vec<_> = before[..head].iter().map(|line| Edit::Stays(line)).collect();
    match steps(old, new) {
        Some(steps) => edits.extend(steps),
        None => {
            edits.extend(old.iter().map(|line| Edit::Goes(line)));
            edits.extend(new.iter().map(|line| Edit::Comes(line)));
        }
    }
    edits.extend(before[before.len() - tail..].iter().map(|line| Edit::Stays(line)));
    edits
}

/// Returns the shortest way from one to the other, if it has at most [`EDITS`] edits.
///
/// `reach[d][k]` is how far into `old` one gets with `d` edits on diagonal `k - d`, that is with `k - d` more lines gone than
/// come.
fn steps<'a>(old: &[&'a str], new: &[&'a str]) -> Option<Vec<Edit<'a>>> {
    let mut reach: Vec<Vec<usize>> = Vec::new();
    for edits in 0..=EDITS.min(old.len() + new.len()) {
        let mut row = vec![0; 2 * edits + 1];
        for (index, reached) in row.iter_mut().enumerate().step_by(2) {
            let mut at = reach.last().map_or(0, |before| enter(before, index, edits).0);
            // Below 0 only where the row before did not get to either; then nothing is gained here.
            let Some(mut to) = (at + edits).checked_sub(index) else { continue };
            while at < old.len() && to < new.len() && old[at] == new[to] {
                (at, to) = (at + 1, to + 1);
            }
            *reached = at;
            if at >= old.len() && to >= new.len() {
                return Some(back(&reach, old, new, index));
            }
        }
        reach.push(row);
    }
    None
}

/// Returns how far one gets on the diagonal `index` of the row with `edits` edits by one more edit, and whether by a line
/// that comes.
fn enter(before: &[usize], index: usize, edits: usize) -> (usize, bool) {
    // Diagonals are two further apart in their own row: the one above by index, the one below by index - 2.
    let comes = before.get(index).copied();
    let goes = index.checked_sub(2).and_then(|below| before.get(below)).map(|at| at + 1);
    debug_assert!(edits > 0 && (comes.is_some() || goes.is_some()), "every diagonal has a neighbour");
    match (comes, goes) {
        (Some(comes), Some(goes)) if comes < goes => (goes, false),
        (Some(comes), _) => (comes, true),
        (None, goes) => (goes.unwrap_or(0), false),
    }
}

/// Returns the way that led to the end, from there back to the beginning.
fn back<'a>(reach: &[Vec<usize>], old: &[&'a str], new: &[&'a str], mut index: usize) -> Vec<Edit<'a>> {
    let (mut at, mut to) = (old.len(), new.len());
    let mut way = Vec::new();
    for (edits, before) in reach.iter().enumerate().rev() {
        let (entered, comes) = enter(before, index, edits + 1);
        while at > entered {
            (at, to) = (at - 1, to - 1);
            way.push(Edit::Stays(old[at]));
        }
        if comes {
            to -= 1;
            way.push(Edit::Comes(new[to]));
        } else {
            at -= 1;
            way.push(Edit::Goes(old[at]));
            index -= 2;
        }
    }
    way.extend(old[..at].iter().rev().map(|line| Edit::Stays(line)));
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns what a difference makes of a text.
    fn patched(text: &str, difference: &str) -> String {
        let mut old = text.split_inclusive('\n');
        let (mut new, mut taken) = (String::new(), 0);
        let mut lines = difference.split_inclusive('\n').skip(2).peekable();
        while let Some(line) = lines.next() {
            let cut = lines.next_if(|next| next.starts_with('\\')).is_some();
            let body = if cut { line[1..].trim_end_matches('\n') } else { &line[1..] };
            match &line[..1] {
                "@" => {
                    let from = line.split(['-', ' ', ',']).nth(2).and_then(|from| from.parse().ok()).expect("a place");
                    let none = line.split(' ').nth(1).is_some_and(|place| place.ends_with(",0"));
                    while taken + usize::from(!none) < from {
                        new.push_str(old.next().expect("a line"));
                        taken += 1;
                    }
                }
                " " | "-" => {
                    assert_eq!(old.next(), Some(body), "{difference}");
                    taken += 1;
                    if line.starts_with(' ') {
                        new.push_str(body);
                    }
                }
                "+" => new.push_str(body),
                _ => panic!("{line}"),
            }
        }
        new + &old.collect::<String>()
    }

    fn changed(difference: &str) -> usize {
        difference.lines().skip(2).filter(|line| line.starts_with(['-', '+'])).count()
    }

    #[test]
    fn differences_are_written_as_diff_writes_them() {
        let names = ("a", "b");
        assert_eq!(unified(names, "x\n", "x\n"), "");
        assert_eq!(unified(names, "", "x\n"), "--- a\n+++ b\n@@ -0,0 +1 @@\n+x\n");
        assert_eq!(unified(names, "x\n", ""), "--- a\n+++ b\n@@ -1 +0,0 @@\n-x\n");
        let lines: Vec<String> = (1..=30).map(|line| format!("{line}\n")).collect();
        let mut other = lines.clone();
        other[4] = "five\n".to_owned();
        other.remove(11);
        other.insert(24, "new\n".to_owned());
        let expected = "--- a\n+++ b\n@@ -2,14 +2,13 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n 9\n 10\n 11\n-12\n 13\n 14\n 15\n\
            @@ -23,6 +22,7 @@\n 23\n 24\n 25\n+new\n 26\n 27\n 28\n";
        assert_eq!(unified(names, &lines.concat(), &other.concat()), expected);
    }

    #[test]
    fn texts_that_have_little_in_common_are_told_as_a_whole() {
        let text = |from: usize| (from..from + 2 * EDITS).map(|line| format!("{line}\n")).collect::<String>();
        let (one, other) = (format!("begin\n{}end\n", text(0)), format!("begin\n{}end\n", text(5000)));
        let difference = unified(("a", "b"), &one, &other);
        assert_eq!((patched(&one, &difference), changed(&difference)), (other, 4 * EDITS));
        let shifted = text(EDITS / 2 - 1);
        let difference = unified(("a", "b"), &text(0), &shifted);
        assert_eq!((patched(&text(0), &difference), changed(&difference)), (shifted, EDITS - 2), "just few enough");
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_one_to_the_other_by_the_shortest_way(
            one in "([abc]\n){0,12}[ab]{0,1}",
            other in "([abc]\n){0,12}[ab]{0,1}",
        ) {
            let difference = unified(("a", "b"), &one, &other);
            prop_assert_eq!(patched(&one, &difference), other.clone());
            // The longest common subsequence, by the book.
            let (old, new): (Vec<_>, Vec<_>) =
                (one.split_inclusive('\n').collect(), other.split_inclusive('\n').collect());
            let mut table = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
            for (i, line) in old.iter().enumerate() {
                for (j, other) in new.iter().enumerate() {
                    table[i + 1][j + 1] =
                        if line == other { table[i][j] + 1 } else { table[i][j + 1].max(table[i + 1][j]) };
                }
            }
            prop_assert_eq!(changed(&difference), old.len() + new.len() - 2 * table[old.len()][new.len()]);
        }
    }
}
