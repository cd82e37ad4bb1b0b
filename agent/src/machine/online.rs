//! Processors and memory that the host plugged in: putting them to use.
//!
//! Control groups of version 2 take processors that come into their sets by themselves: what a container asked for is kept beside what there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Machine, MachineError};

/// How often there is a look for processors: as upstream.
const TRIES: u32 = 100;
/// How long there is between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// What a call put to use, to take it out of use again.
#[derive(Debug, Default)]
struct Brought(Vec<PathBuf>);

impl Machine {
    /// Waits until at least so many processors are in use, 0 waits for none; then, unless it is for processors alone, all memory that is
    /// there. `is_late` says when the caller no longer waits.
    ///
    /// # Errors
    /// `MACHINE_PROCESSORS`, `MACHINE_LATE`, `MACHINE_FILE`; what was put to use is out of use again, as far as the kernel lets it go.
    pub async fn online(
        &self,
        processors: u32,
        is_for_processors_alone: bool,
        is_late: impl Fn() -> bool,
    ) -> Result<(), MachineError> {
        let mut brought = Brought::default();
        let mut outcome = self.bring(processors, is_for_processors_alone, &is_late, &mut brought).await;
        // GUARD: online-late -> a_caller_that_is_gone_gets_nothing
        if outcome.is_ok() && is_late() {
            outcome = Err(MachineError::Late);
        }
        if outcome.is_err() {
            let _ = blocking(move || {
                brought.take_back();
                Ok(())
            })
            .await;
        }
        outcome
    }

    async fn bring(
        &self,
        processors: u32,
        is_for_processors_alone: bool,
        is_late: &impl Fn() -> bool,
        brought: &mut Brought,
    ) -> Result<(), MachineError> {
        let system = self.sys.join("devices/system");
        if processors > 0 {
            self.bring_processors(&system.join("cpu"), processors, is_late, brought).await?;
        }
        if !is_for_processors_alone {
            let found = blocking(move || Ok(switch_on(&system.join("memory"), "memory"))).await?;
            brought.0.extend(found.0);
            found.1?;
        }
        Ok(())
    }

    async fn bring_processors(
        &self,
        directory: &Path,
        wanted: u32,
        is_late: &impl Fn() -> bool,
        brought: &mut Brought,
    ) -> Result<(), MachineError> {
        for _ in 0..TRIES {
            let own = directory.to_owned();
            let (found, count) = blocking(move || {
                let mut found = Vec::new();
                if count_online(&own)? < wanted {
                    // One that does not come now may come later.
                    found = switch_on(&own, "cpu").0;
                }
                Ok((found, count_online(&own)?))
            })
            .await?;
            brought.0.extend(found);
            if count >= wanted {
                return Ok(());
            }
            if is_late() {
                return Err(MachineError::Late);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(MachineError::Processors { wanted, tries: TRIES })
    }

    /// Has the kernel take memory at these addresses.
    ///
    /// # Errors
    /// `MACHINE_NO_PROBE` where the kernel has no way to; `MACHINE_FILE`: memory that was taken before stays, the kernel cannot undo it.
    pub async fn probe_memory(&self, addresses: Vec<u64>) -> Result<(), MachineError> {
        let path = self.probe_file();
        blocking(move || {
            if !path.exists() {
                return Err(MachineError::NoProbe { path });
            }
            for address in addresses {
                fs::write(&path, format!("0x{address:X}")).map_err(MachineError::file("write", &path))?;
            }
            Ok(())
        })
        .await
    }

    pub(super) fn probe_file(&self) -> PathBuf {
        self.sys.join("devices/system/memory/probe")
    }
}

/// In a thread where the kernel may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
) -> Result<T, MachineError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| MachineError::Lost)?
}

impl Brought {
    /// The last one first. Memory in use may not go.
    fn take_back(&self) {
        for switch in self.0.iter().rev() {
            let _ = fs::write(switch, "0");
        }
    }
}

/// Processors in use: `0-2,5`.
fn count_online(directory: &Path) -> Result<u32, MachineError> {
    let path = directory.join("online");
    let text = fs::read_to_string(&path).map_err(MachineError::file("read", &path))?;
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    let sum = text
        .trim()
        .split(',')
        .filter(|range| !range.is_empty())
        .try_fold(0_u32, |sum, range| sum.checked_add(count(range)?));
    sum.ok_or_else(|| MachineError::file("read", &path)(std::io::ErrorKind::InvalidData.into()))
}

/// Switches on what is off, and says what that was; the first error beside it.
fn switch_on(directory: &Path, kind: &str) -> (Vec<PathBuf>, Result<(), MachineError>) {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        // A kernel without blocks of memory has none that are off.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (Vec::new(), Ok(())),
        Err(error) => return (Vec::new(), Err(MachineError::file("list", directory)(error))),
    };
    let number = |name: &str| name.strip_prefix(kind).and_then(|number| number.parse::<u32>().ok());
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path())))
        .collect();
    found.sort_unstable();
    let (mut brought, mut outcome) = (Vec::new(), Ok(()));
    for (_, path) in found {
        let switch = path.join("online");
        // Some cannot be switched off, and have no switch.
        if fs::read_to_string(&switch).is_ok_and(|text| text.trim() == "0") {
            match fs::write(&switch, "1") {
                Ok(()) => brought.push(switch),
                Err(error) if outcome.is_ok() => outcome = Err(MachineError::file("write", &switch)(error)),
                Err(_) => {}
            }
        }
    }
    (brought, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Guest(tempfile::TempDir);

    impl Guest {
        /// Processor 0 has no switch; `online` does not follow the switches, as the kernel's does.
        fn new(switches: &[(&str, &str)], online: &str) -> Self {
            let guest = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(guest.at("cpu/cpu0")).unwrap();
            fs::create_dir_all(guest.at("memory/power")).unwrap();
            fs::write(guest.at("cpu/online"), online).unwrap();
            for (path, value) in switches {
                fs::create_dir_all(guest.at(path)).unwrap();
                fs::write(guest.at(path).join("online"), value).unwrap();
            }
            guest
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join("devices/system").join(path)
        }

        fn machine(&self) -> Machine {
            Machine::new(self.0.path(), self.0.path(), false)
        }

        fn switch(&self, path: &str) -> String {
            fs::read_to_string(self.at(path).join("online")).unwrap()
        }
    }

    const OFF: [(&str, &str); 6] = [
        ("cpu/cpu1", "0\n"),
        ("cpu/cpu10", "0\n"),
        ("cpu/cpufreq", "0\n"),
        ("memory/memory32", "0\n"),
        ("memory/memory33", "1\n"),
        ("memory/memory", "0\n"),
    ];

    #[tokio::test]
    async fn what_is_off_is_switched_on() {
        let guest = Guest::new(&OFF, "0-1,4\n");
        guest.machine().online(0, false, || false).await.unwrap();
        assert_eq!(guest.switch("memory/memory32"), "1");
        assert_eq!(guest.switch("cpu/cpu1"), "0\n");
        // As many as there have to be are in use.
        guest.machine().online(3, true, || false).await.unwrap();
        assert_eq!(guest.switch("cpu/cpu1"), "0\n");
        for other in ["cpu/cpufreq", "memory/memory"] {
            assert_eq!(guest.switch(other), "0\n");
        }
    }

    // COMPAT: OnlineCPUMem same: 100 tries, and the text
    // COMPAT: OnlineCPUMem better: what was switched on for a call that fails is off again
    #[tokio::test(start_paused = true)]
    async fn processors_that_do_not_come_are_waited_for_and_then_told() {
        let guest = Guest::new(&OFF, "0\n");
        let error = guest.machine().online(4, false, || false).await.unwrap_err();
        assert_eq!(error.code(), "MACHINE_PROCESSORS");
        assert_eq!(error.to_string(), "failed to online 4 CPU(s) after 100 retries");
        // Off again, and memory was not touched.
        for off in ["cpu/cpu1", "cpu/cpu10"] {
            assert_eq!(guest.switch(off), "0");
        }
        assert_eq!(guest.switch("memory/memory32"), "0\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_is_gone_gets_nothing() {
        let guest = Guest::new(&OFF, "0\n");
        assert_eq!(guest.machine().online(4, false, || true).await.unwrap_err().code(), "MACHINE_LATE");
        assert_eq!(guest.switch("cpu/cpu1"), "0");
        // Late when everything is done.
        let guest = Guest::new(&OFF, "0-7\n");
        assert_eq!(guest.machine().online(4, false, || true).await.unwrap_err().code(), "MACHINE_LATE");
        assert_eq!(guest.switch("memory/memory32"), "0");
    }

    // COMPAT: MemHotplugByProbe stricter: `MACHINE_NO_PROBE` where the kernel has no interface
    // COMPAT: MemHotplugByProbe not exercised: with a kernel that has the interface; the test guest's does not
    #[tokio::test]
    async fn memory_is_probed_by_address_where_the_kernel_can() {
        let guest = Guest::new(&[], "0\n");
        let error = guest.machine().probe_memory(vec![0x1_4000_0000]).await.unwrap_err();
        assert_eq!(error.code(), "MACHINE_NO_PROBE");
        assert!(!guest.at("memory/probe").exists());
        fs::write(guest.at("memory/probe"), "").unwrap();
        guest.machine().probe_memory(vec![0x1_4000_0000, 0xab_c800_0000]).await.unwrap();
        assert_eq!(fs::read_to_string(guest.at("memory/probe")).unwrap(), "0xABC8000000");
    }

    #[test]
    fn lists_of_processors_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let count = |text: &str| {
            fs::write(directory.path().join("online"), text).unwrap();
            count_online(directory.path())
        };
        for (text, expected) in [("0\n", 1), ("0-3\n", 4), ("0,2-3,7\n", 4), ("\n", 0)] {
            assert_eq!(count(text).unwrap(), expected, "{text:?}");
        }
        for text in ["3-1", "x", "0-4294967295", "-1"] {
            assert_eq!(count(text).unwrap_err().code(), "MACHINE_FILE", "{text:?}");
        }
    }
}
