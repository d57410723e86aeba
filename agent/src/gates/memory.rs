//! Free memory by `/proc/meminfo` (proc_meminfo(5)).

/// Bytes that new programs may take without swapping, as the kernel estimates them. None where it
/// does not say.
#[must_use]
pub fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_estimate() {
        let text = "MemTotal:         249124 kB\nMemFree:           90120 kB\n\
                    MemAvailable:     103384 kB\nBuffers:            2048 kB\n";
        assert_eq!(available(text), Some(103_384 * 1024));
        assert_eq!(available("MemTotal: 249124 kB\n"), None);
        assert_eq!(available("MemAvailable: 18446744073709551615 kB\n"), None);
    }
}
