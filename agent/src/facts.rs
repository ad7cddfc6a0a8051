//! Facts of the host, as templates and targets see them under `fact/...`.

use std::fs;

use serde_json::Value;
use titan_api::{hosts::Facts, limits};

/// Returns the host's facts; one that cannot be found out is left out.
pub(crate) fn gather() -> Facts {
    let mut facts = Facts::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            facts.insert(name.to_owned(), value);
        }
    };
    let line = |path: &str| {
        let text = fs::read_to_string(path).ok()?;
        let text: String = text.trim().chars().take(limits::FACT_BYTES / 4).collect();
        (!text.is_empty()).then_some(Value::String(text))
    };
    put("os", Some(std::env::consts::OS.into()));
    put("arch", Some(std::env::consts::ARCH.into()));
    put("kernel", line("/proc/sys/kernel/osrelease"));
    put("hostname", line("/proc/sys/kernel/hostname"));
    put("memoryBytes", fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_bytes(&text)).map(Value::from));
    put("cpus", std::thread::available_parallelism().ok().map(|count| count.get().into()));
    put("agentVersion", Some(env!("CARGO_PKG_VERSION").into()));
    facts
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Returns the bytes that this process has resident, if the kernel says.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_bytes("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_777_216));
        assert_eq!(memory_bytes("MemTotal: many"), None);
    }

    #[test]
    fn facts_name_the_agent() {
        assert_eq!(gather().get("agentVersion"), Some(&Value::from(env!("CARGO_PKG_VERSION"))));
    }
}
