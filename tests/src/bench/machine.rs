//! The machine a benchmark runs on: its name, its cores, what a process takes of it.

use anyhow::Context;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{
    fs::{File, read_to_string},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Clock ticks a second in `/proc/<pid>/stat`: always 100 towards user space (proc(5)).
const USER_HZ: f64 = 100.0;

/// CPU model, cores and kernel.
#[must_use]
pub fn describe() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name").or(line.strip_prefix("Model")))
        .map_or("unknown CPU", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    format!("{model}, {cores} cores, Linux {}, load at the start {load}", kernel.trim())
}

/// A core for the server and one for the load; the same one where there is no other.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// The first and the last core that this process was started with.
    ///
    /// # Errors
    /// The kernel names none.
    pub fn of_this_machine() -> anyhow::Result<Self> {
        static CORES: std::sync::OnceLock<Option<Cores>> = std::sync::OnceLock::new();
        let cores = CORES.get_or_init(|| {
            let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
            let is_allowed = |core: &usize| allowed.is_set(*core).unwrap_or(false);
            let mut all = (0..CpuSet::count()).filter(is_allowed);
            let server = all.next()?;
            Some(Cores { server, load: all.next_back().unwrap_or(server) })
        });
        cores.context("no core is allowed")
    }
}

/// Keeps this thread, and what it starts from now on, on one core.
///
/// # Errors
/// The kernel refuses.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// CPU seconds of a process so far, user and system.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    times(pid, 11)
}

/// The same of the children it has waited for.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds_of_children(pid: u32) -> anyhow::Result<f64> {
    times(pid, 13)
}

/// The sum of two neighbouring fields, counted after the name of the program.
fn times(pid: u32, first: usize) -> anyhow::Result<f64> {
    let stat = read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("not a stat file")?;
    let ticks = fields.split_whitespace().skip(first).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / USER_HZ)
}

/// Memory of a process in KiB; `resident` has the shared and the mapped part in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub resident: f64,
    pub anonymous: f64,
    pub file: f64,
    pub shared: f64,
}

/// # Errors
/// There is no such process.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> anyhow::Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory")?;
        let number = line.split_whitespace().next().context("no number")?;
        Ok(number.parse()?)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        anonymous: field("RssAnon:")?,
        file: field("RssFile:")?,
        shared: field("RssShmem:")?,
    })
}

/// Bytes that a process has made the kernel write to disks, in whole pages; what it wrote to memory
/// file systems, pipes and sockets is not in it (proc(5), `write_bytes`).
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn bytes_to_disk(pid: u32) -> anyhow::Result<u64> {
    let io = read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("no write_bytes")?.parse()?)
}

/// What the disk gives for one commit after another.
///
/// # Errors
/// It cannot be written.
pub fn syncs_a_second(work: &Path) -> anyhow::Result<f64> {
    let path = work.join("syncs");
    let mut file = File::options().create(true).append(true).open(&path)?;
    let (started, mut count) = (Instant::now(), 0_u32);
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        count += 1;
    }
    std::fs::remove_file(path)?;
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_memory_does_not_go_to_disk() {
        let own = std::process::id();
        let file = std::path::Path::new("/dev/shm").join(format!("bench-memory-{own}"));
        if std::fs::write(&file, vec![1; 1 << 20]).is_err() {
            return;
        }
        let before = bytes_to_disk(own).unwrap();
        std::fs::write(&file, vec![2; 8 << 20]).unwrap();
        let after = bytes_to_disk(own).unwrap();
        std::fs::remove_file(&file).unwrap();
        // Other tests of this process may write as well, but not so much.
        assert!(after - before < 8 << 20, "{before} -> {after}");
    }

    #[test]
    fn this_process_is_seen() {
        let own = std::process::id();
        let memory = memory(own).unwrap();
        assert!(memory.resident > 100.0);
        let parts = memory.anonymous + memory.file + memory.shared;
        assert!((memory.resident - parts).abs() < 1.0);
        let before = cpu_seconds(own).unwrap();
        let started = Instant::now();
        while cpu_seconds(own).unwrap() - before < 0.02 {
            assert!(started.elapsed().as_secs() < 60, "time does not pass");
        }
    }

    #[test]
    fn a_pinned_thread_stays_on_its_core() {
        let cores = Cores::of_this_machine().unwrap();
        let pinned = std::thread::spawn(move || {
            pin(cores.load).unwrap();
            sched_getaffinity(Pid::from_raw(0)).unwrap()
        });
        let set = pinned.join().unwrap();
        let allowed: Vec<_> =
            (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap()).collect();
        assert_eq!(allowed, [cores.load]);
    }
}
