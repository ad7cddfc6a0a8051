//! What Linux tells of a process: processor time, memory, threads.

use std::time::Duration;

use anyhow::{Context as _, bail};

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident pages, shared ones in full.
    pub resident: u64,
    /// Resident pages, shared ones by their share.
    pub proportional: u64,
    /// Resident pages that no file backs: heap and stacks.
    pub anonymous: u64,
}

/// Processor time of a process and of its children that ended and were waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processor {
    /// The process itself, user and system.
    pub own: Duration,
    /// Its children.
    pub children: Duration,
}

/// Returns the memory of process `id`, from `smaps_rollup`.
pub fn memory(id: u32) -> anyhow::Result<Memory> {
    parse_memory(&read(id, "smaps_rollup")?)
}

/// Returns the resident bytes of process `id`, which costs little however many they are.
pub fn resident(id: u32) -> anyhow::Result<u64> {
    let text = read(id, "statm")?;
    let pages = text.split_whitespace().nth(1).context("no resident pages in it")?;
    Ok(pages.parse::<u64>()? * rustix::param::page_size() as u64)
}

/// Returns the processor time of process `id`, to the system's tick (mostly 10 ms).
pub fn processor(id: u32) -> anyhow::Result<Processor> {
    parse_processor(&read(id, "stat")?, rustix::param::clock_ticks_per_second())
}

/// Returns how many threads process `id` has.
pub fn threads(id: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{id}/task"))?.count())
}

/// Returns how often threads of process `id` that are there now have gone to sleep by themselves, and so how often they
/// were woken.
pub fn switches(id: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread may end while this looks.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else { continue };
        sum += parse_switches(&status)?;
    }
    Ok(sum)
}

/// Returns how many bytes process `id` has sent to the disk.
pub fn written(id: u32) -> anyhow::Result<u64> {
    parse_written(&read(id, "io")?)
}

fn parse_written(text: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.context("no write_bytes in it")?.trim().parse()?)
}

fn parse_switches(status: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    Ok(line.context("no voluntary_ctxt_switches in it")?.trim().parse()?)
}

fn read(id: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{id}/{file}");
    std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))
}

fn parse_memory(text: &str) -> anyhow::Result<Memory> {
    let kilobytes = |key: &str| -> anyhow::Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.trim().strip_suffix("kB")).with_context(|| format!("no {key} in it"))?;
        Ok(number.trim().parse::<u64>()? * 1024)
    };
    Ok(Memory { resident: kilobytes("Rss")?, proportional: kilobytes("Pss")?, anonymous: kilobytes("Anonymous")? })
}

fn parse_processor(text: &str, ticks_per_second: u64) -> anyhow::Result<Processor> {
    // The second field is the program's name in parentheses, with anything inside.
    let (_, rest) = text.rsplit_once(')').context("a name in parentheses")?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let [user, system, child_user, child_system] = fields.get(11..15).unwrap_or_default() else {
        bail!("{} fields are too few", fields.len());
    };
    let span = |a: &str, b: &str| -> anyhow::Result<Duration> {
        let ticks = a.parse::<u64>()? + b.parse::<u64>()?;
        Ok(Duration::from_micros(ticks * 1_000_000 / ticks_per_second.max(1)))
    };
    Ok(Processor { own: span(user, system)?, children: span(child_user, child_system)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_a_rollup() {
        let text = "00400000-7ffe ---p 00000000 00:00 0 [rollup]\nRss:      6480 kB\nPss:      5012 kB\nPss_Anon:  100 kB\n\
                    Anonymous:       512 kB\n";
        let memory = parse_memory(text).expect("memory");
        assert_eq!((memory.resident, memory.proportional, memory.anonymous), (6480 << 10, 5012 << 10, 512 << 10));
        assert!(parse_memory("Rss: 1 kB\n").is_err());
    }

    #[test]
    fn processor_time_is_read_past_any_name() {
        let text = "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 3 4 20 0 1 0 100 0 0";
        let time = parse_processor(text, 100).expect("times");
        assert_eq!((time.own, time.children), (Duration::from_secs(2), Duration::from_millis(70)));
        assert!(parse_processor("7 (a) S 1", 100).is_err());
        assert!(parse_processor("", 100).is_err());
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let id = std::process::id();
        let exact = memory(id).expect("memory").resident;
        assert!((exact / 2..exact * 2).contains(&resident(id).expect("resident")));
        assert!(
            parse_switches("x:\t1\nvoluntary_ctxt_switches:\t37\nnonvoluntary_ctxt_switches:\t5\n").expect("switches")
                == 37
        );
        assert_eq!(parse_written("wchar: 9\nwrite_bytes: 4096\ncancelled_write_bytes: 1\n").expect("bytes"), 4096);
        assert!(written(id).is_ok() && parse_written("").is_err());
        assert!(switches(id).is_ok() && parse_switches("").is_err());
        assert!(processor(id).is_ok() && threads(id).expect("threads") > 0);
    }
}
