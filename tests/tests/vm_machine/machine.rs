//! Processors, memory, clock, random numbers, figures.

use super::{ok, refused, until};
use protocol::agent::{
    GetMetricsRequest, GuestDetailsRequest, MemAgentCompactConfig, MemAgentMemcgConfig,
    MemHotplugByProbeRequest, OnlineCPUMemRequest, ReseedRandomDevRequest, SetGuestDateTimeRequest,
};
use std::time::Duration;
use tests::agent_client::AgentClient;
use tests::vm::shell;
use xtask::vm::Guest;

/// Where the kernel tells of ioctls.
const TRACE: &str = "/tmp/trace";

fn number(guest: &Guest, line: &str) -> u64 {
    let text = shell(guest, line);
    text.trim().parse().unwrap_or_else(|error| panic!("{line}: {text:?}: {error}"))
}

pub fn details(guest: &Guest, client: &AgentClient) {
    let request = GuestDetailsRequest {
        mem_block_size: true,
        mem_hotplug_probe: true,
        ..GuestDetailsRequest::default()
    };
    let found = ok(guest, client.get_guest_details(&request));
    let block = shell(guest, "cat /sys/devices/system/memory/block_size_bytes");
    assert_eq!(found.mem_block_size_bytes, u64::from_str_radix(block.trim(), 16).unwrap());
    let has_probe = guest.sh("test -e /sys/devices/system/memory/probe").unwrap().status == 0;
    assert_eq!(found.support_mem_hotplug_probe, has_probe);
    let agent = found.agent_details.unwrap();
    assert_eq!((agent.version.as_str(), agent.init_daemon, agent.supports_seccomp), ("4.1.0", true, true));
    assert_eq!(agent.extra_features, ["agent-policy", "seccomp"]);
    for driver in ["blk", "scsi", "overlayfs", "ephemeral", "local", "virtio-fs"] {
        assert!(agent.storage_handlers.iter().any(|found| found == driver), "{driver}: {agent:?}");
    }
}

/// What this kernel, or this agent, has not: the exact answer, and nothing done.
pub fn what_is_not_there(guest: &Guest, client: &AgentClient) {
    let total = "grep MemTotal /proc/meminfo";
    let before = shell(guest, total);
    let request = MemHotplugByProbeRequest {
        memHotplugProbeAddr: vec![0x1_0000_0000],
        ..MemHotplugByProbeRequest::default()
    };
    let answer = client.mem_hotplug_by_probe(&request).unwrap_err();
    let text = "MACHINE_NO_PROBE: the kernel of this guest has no memory probe: expected /sys/devices/system/memory/probe";
    assert!(answer.code == "INTERNAL" && answer.says(text), "{answer}");
    assert_eq!(shell(guest, total), before);
    let answer = client.mem_agent_memcg_set(&MemAgentMemcgConfig::default()).unwrap_err();
    assert_eq!((&*answer.code, &*answer.text), ("INTERNAL", "mem-agent is disabled"));
    let answer = client.mem_agent_compact_set(&MemAgentCompactConfig::default()).unwrap_err();
    assert_eq!((&*answer.code, &*answer.text), ("INTERNAL", "mem-agent is disabled"));
}

pub fn date(seconds: i64, microseconds: i64) -> SetGuestDateTimeRequest {
    SetGuestDateTimeRequest { Sec: seconds, Usec: microseconds, ..SetGuestDateTimeRequest::default() }
}

/// Seconds since 1970, by the guest.
pub fn now(guest: &Guest) -> i64 {
    i64::try_from(number(guest, "date +%s")).unwrap()
}

/// A little later, on a slow machine.
#[track_caller]
pub fn assert_soon_after(found: i64, expected: i64) {
    assert!((expected..expected + 600).contains(&found), "{found}, expected {expected} or a little later");
}

pub fn clock_outside_of_a_tee(guest: &Guest, client: &AgentClient) {
    let begun = now(guest);
    ok(guest, client.set_guest_date_time(&date(978_307_200, 500_000)));
    assert_soon_after(now(guest), 978_307_200);
    for (seconds, microseconds) in [(-1, 0), (1, 1_000_000), (1, -1)] {
        refused(client.set_guest_date_time(&date(seconds, microseconds)), "INTERNAL", "MACHINE_TIME");
    }
    assert_soon_after(now(guest), 978_307_200);
    ok(guest, client.set_guest_date_time(&date(begun, 0)));
    assert_soon_after(now(guest), begun);
}

/// What the kernel was asked to do with the bytes: to count them, to use them.
pub fn entropy(guest: &Guest, client: &AgentClient, is_credited: bool) {
    let event = format!("{TRACE}/events/syscalls/sys_enter_ioctl");
    shell(
        guest,
        &format!(
            "mkdir -p {TRACE} && mount -t tracefs none {TRACE} && \
             echo 'cmd == 0x40045201 || cmd == 0x5207' > {event}/filter && echo 1 > {event}/enable"
        ),
    );
    let reseed =
        |data: &[u8]| ReseedRandomDevRequest { data: data.to_vec(), ..ReseedRandomDevRequest::default() };
    refused(client.reseed_random_dev(&reseed(b"")), "INTERNAL", "missing entropy data");
    let seen =
        |command: &str| number(guest, &format!("grep -cE 'cmd: (0x)?{command},' {TRACE}/trace || true"));
    assert_eq!((seen("40045201"), seen("5207")), (0, 0));
    ok(guest, client.reseed_random_dev(&reseed(&[7; 512])));
    assert_eq!(
        (seen("40045201"), seen("5207")),
        (u64::from(is_credited), 1),
        "{}",
        shell(guest, &format!("cat {TRACE}/trace"))
    );
    shell(guest, &format!("echo 0 > {event}/enable; umount {TRACE}"));
}

fn online(processors: u32, alone: bool) -> OnlineCPUMemRequest {
    OnlineCPUMemRequest { wait: true, nb_cpus: processors, cpu_only: alone, ..OnlineCPUMemRequest::default() }
}

pub fn processors(guest: &Guest, client: &AgentClient) {
    let switch = |guest: &Guest, number: u32| {
        shell(guest, &format!("cat /sys/devices/system/cpu/cpu{number}/online")).trim().to_owned()
    };
    let running = "grep -c ^processor /proc/cpuinfo";
    assert_eq!(number(guest, running), 2);
    // One that was there and is off stays off when the others do not come.
    shell(guest, "echo 0 > /sys/devices/system/cpu/cpu1/online");
    let text = "failed to online 4 CPU(s) after 100 retries";
    refused(client.online_cpu_mem(&online(4, true)), "INTERNAL", text);
    assert_eq!((switch(guest, 1).as_str(), number(guest, running)), ("0", 1));
    let hasty = AgentClient::connect(guest).limit(Duration::from_millis(700));
    let late = hasty.online_cpu_mem(&online(4, true)).unwrap_err();
    assert!(late.code == "DEADLINE_EXCEEDED" || late.code == "CONNECTION", "{late}");
    until(guest, "test $(cat /sys/devices/system/cpu/cpu1/online) = 0");

    ok(guest, client.online_cpu_mem(&online(2, true)));
    assert_eq!((switch(guest, 1).as_str(), number(guest, running)), ("1", 2));
    // Control groups of containers may use it.
    assert_eq!(shell(guest, "cat /sys/fs/cgroup/cpuset.cpus.effective").trim(), "0-1");
}

pub fn memory(guest: &mut Guest, client: &AgentClient) {
    let total = "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo";
    // The kernel leaves to others what comes.
    shell(guest, "echo offline > /sys/devices/system/memory/auto_online_blocks");
    let before = number(guest, total);
    let more = (256 << 10) - (8 << 10);
    guest.add_memory("later", 256).unwrap();
    until(guest, &format!("test $({total}) -ge {}", before + more));
    // What is off again, by whomever, the request puts to use.
    let last = "ls -d /sys/devices/system/memory/memory[0-9]* | sed 's/.*memory//' | sort -n | tail -n 1";
    let block = format!("memory{}", shell(guest, last).trim());
    let off = format!("echo 0 > /sys/devices/system/memory/{block}/online");
    until(guest, &off);
    assert!(number(guest, total) < before + more, "{block} is off");
    ok(guest, client.online_cpu_mem(&online(0, true)));
    assert!(number(guest, total) < before + more, "for processors alone");
    ok(guest, client.online_cpu_mem(&online(0, false)));
    assert!(number(guest, total) >= before + more);
    assert!(guest.add_memory("never", 256).is_err(), "there is no slot");
}

pub fn figures(guest: &Guest, client: &AgentClient) {
    let scrape = || ok(guest, client.get_metrics(&GetMetricsRequest::default())).metrics;
    let value = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<u64>().unwrap()
    };
    let first = scrape();
    let sent = "kata_guest_netdev_stat{interface=\"net7\",item=\"sent_packets\"}";
    shell(guest, "ping -c 3 -i 0.2 10.0.2.2");
    let second = scrape();
    assert_eq!(value(&second, "kata_agent_scrape_count"), value(&first, "kata_agent_scrape_count") + 1);
    assert!(value(&second, sent) >= value(&first, sent) + 3, "{second}");
    let memory = number(guest, "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo");
    let told = value(&second, "kata_guest_meminfo{item=\"mem_total\"}");
    assert!(told == memory || told == memory << 10, "{told}, {memory} kB");
}
