use std::collections::HashMap;

use super::*;
use crate::metrics::filesystems::each_once;

/// Lines of the text, by name and labels.
fn samples(text: &str) -> HashMap<&str, &str> {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap()).collect()
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let proc = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = proc.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    proc
}

// COMPAT: GetMetrics same: names and units
#[test]
fn names_and_units_are_upstreams() {
    let proc = tree(&[
        ("self/stat", "1 (a) b) S 0 1 1 0 -1 4194560 5 6 7 8 200 50 3 4 20 0 9 0 11 1048576 3 0 0"),
        ("self/status", "VmRSS:\t    12 kB\nVmPTE:\t 7 kB\nvoluntary_ctxt_switches:\t5\nVmRSSX: 1\n"),
        ("self/io", "rchar: 10\ncancelled_write_bytes: 2\n"),
        ("loadavg", "0.10 0.20 0.30 1/50 77\n"),
        ("stat", "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 5\n"),
        ("vmstat", "nr_free_pages 100\n"),
        ("meminfo", "MemTotal:  1000 kB\nActive(anon): 3 kB\nHugePages_Total:  4\nPercpu: 5 kB\n"),
        ("diskstats", " 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n"),
        ("net/dev", "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"),
    ]);
    let metrics = Metrics::default();
    let _ = metrics.text(proc.path(), &[]);
    let text = metrics.text(proc.path(), &[]);
    let found = samples(&text);
    for (name, value) in [
        ("kata_agent_scrape_count", "2"),
        ("kata_agent_threads", "9"),
        ("kata_agent_total_time", "2.50"),
        ("kata_agent_total_vm", "1048576"),
        ("kata_agent_proc_stat{item=\"utime\"}", "200"),
        ("kata_agent_proc_stat{item=\"cstime\"}", "4"),
        ("kata_agent_proc_status{item=\"vmrss\"}", "12"),
        ("kata_agent_proc_status{item=\"vmpte\"}", "7"),
        ("kata_agent_proc_status{item=\"voluntary_ctxt_switches\"}", "5"),
        ("kata_agent_io_stat{item=\"cancelled_write_bytes\"}", "2"),
        ("kata_guest_load{item=\"load15\"}", "0.30"),
        ("kata_guest_tasks{item=\"cur\"}", "1"),
        ("kata_guest_tasks{item=\"max\"}", "50"),
        ("kata_guest_cpu_time{cpu=\"total\",item=\"user\"}", "10"),
        ("kata_guest_cpu_time{cpu=\"0\",item=\"guest_nice\"}", "100"),
        ("kata_guest_vm_stat{item=\"nr_free_pages\"}", "100"),
        ("kata_guest_meminfo{item=\"mem_total\"}", "1024000"),
        ("kata_guest_meminfo{item=\"active_anon\"}", "3072"),
        ("kata_guest_meminfo{item=\"hugepages_total\"}", "4"),
        ("kata_guest_meminfo{item=\"per_cpu\"}", "5120"),
        ("kata_guest_diskstat{disk=\"vda\",item=\"reads\"}", "1"),
        ("kata_guest_diskstat{disk=\"vda\",item=\"time_flushing\"}", "17"),
        ("kata_guest_netdev_stat{interface=\"eth0\",item=\"recv_bytes\"}", "1"),
        ("kata_guest_netdev_stat{interface=\"eth0\",item=\"sent_compressed\"}", "16"),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name}");
    }
    assert_eq!(text.matches("# TYPE kata_guest_diskstat gauge\n").count(), 1);
    assert!(text.starts_with("# HELP kata_agent_scrape_count Metrics scrape count\n# TYPE"));
}

#[test]
fn the_real_machine_has_figures() {
    let text = Metrics::default().text(Path::new("/proc"), &[]);
    let found = samples(&text);
    for name in [
        "kata_agent_threads",
        "kata_agent_total_rss",
        "kata_guest_meminfo{item=\"mem_total\"}",
        "kata_guest_cpu_time{cpu=\"total\",item=\"user\"}",
    ] {
        assert!(found[name].parse::<f64>().unwrap() > 0.0, "{name}");
    }
    assert!(found.contains_key("kata_guest_load{item=\"load1\"}"));
}

#[test]
fn file_systems_are_those_that_can_be_written_each_once() {
    let table = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
23 22 8:1 /sub /bind rw - ext4 /dev/vda1 rw
24 22 8:2 / /read-only ro - xfs /dev/vdb rw
25 22 8:3 / /frozen rw - xfs /dev/vdc ro
26 22 0:5 / /proc rw - proc proc rw
27 22 0:6 / /over rw - overlay overlay rw,lowerdir=/a
nonsense
";
    let found = each_once(table);
    let text = format!("{found:?}");
    assert_eq!(found.len(), 2, "{text}");
    assert!(text.contains("\"/\"") && text.contains("\"/over\""), "{text}");
}

// COMPAT: GetMetrics stricter: 1 MiB, 4,096 samples of a family, 10 s
#[test]
fn evil_host_devices_without_end() {
    let line = |index: usize| format!(" 254 0 {}{index} 1 2 3\n", "x".repeat(200));
    let disks: String = (0..2000).map(line).collect();
    let evil = " 254 0 a\"}\\ 1 2\n";
    let proc = tree(&[("diskstats", &format!("{evil}{disks}")), ("vmstat", &"a 1\n".repeat(100_000))]);
    let text = Metrics::default().text(proc.path(), &[]);
    assert!(text.len() <= MAXIMUM_BYTES, "{}", text.len());
    assert!(text.lines().filter(|line| line.starts_with("kata_guest_vm_stat")).count() <= 4096);
    assert!(text.ends_with('\n'));
    assert!(text.contains("{disk=\"a\\\"}\\\\\",item=\"reads\"} 1"));
}

#[test]
fn nothing_there_is_no_error() {
    let proc = tempfile::tempdir().unwrap();
    let text = Metrics::default().text(proc.path(), &[]);
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn artifacts_have_their_stages() {
    use crate::sealed::{Progress, Stage};
    let proc = tempfile::tempdir().unwrap();
    let progress = |name: &str, stage| Progress { name: name.to_owned(), stage };
    let artifacts = [
        progress("a", Stage::Waiting(Some("SEALED_NO_CACHE"))),
        progress("b", Stage::Landing(37)),
        progress("c", Stage::Ready),
        progress("d", Stage::Failed("ROLLBACK")),
    ];
    let text = Metrics::default().text(proc.path(), &artifacts);
    let found = samples(&text);
    for (name, value) in [
        ("_verified_percent{artifact=\"a\"}", "0"),
        ("_verified_percent{artifact=\"b\"}", "37"),
        ("_verified_percent{artifact=\"c\"}", "100"),
        ("_stage{artifact=\"a\",stage=\"waiting\",code=\"SEALED_NO_CACHE\"}", "1"),
        ("_stage{artifact=\"b\",stage=\"landing\",code=\"\"}", "1"),
        ("_stage{artifact=\"c\",stage=\"ready\",code=\"\"}", "1"),
        ("_stage{artifact=\"d\",stage=\"failed\",code=\"ROLLBACK\"}", "1"),
    ] {
        let name = format!("innerkeep_sealed_artifact{name}");
        assert_eq!(found.get(name.as_str()), Some(&value), "{name} in {text}");
    }
}
