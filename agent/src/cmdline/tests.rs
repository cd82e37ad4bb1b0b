use proptest::prelude::*;

use super::*;

#[test]
fn the_last_level_counts_and_malformed_ones_are_named() {
    let line = CommandLine::parse(b"quiet agent.log=debug agent.log=loud agent.log agent.log=trace\n");
    assert_eq!(line.log_level, Some(Level::Trace));
    assert_eq!(line.malformed, ["agent.log"]);
    assert_eq!(line.ignored_count, 0);
    assert_eq!(CommandLine::parse(b"agent.log=loud").log_level, None);
    assert_eq!(CommandLine::parse(b"").log_level, None);
}

#[test]
fn amounts_of_streams_are_taken_within_their_bounds() {
    let line = CommandLine::parse(b"agent.passfd_listener_port=1027 agent.container_pipe_size=65536");
    assert_eq!(line.passfd_port, Some(1027));
    assert_eq!(line.pipe_size, Some(PipeSize::bytes(65_536).unwrap()));
    assert_eq!(line.ignored_count, 0);
    let line = CommandLine::parse(
        b"agent.passfd_listener_port=-1 agent.passfd_listener_port=4294967296 agent.passfd_listener_port=+7 \
agent.container_pipe_size=4294967296 agent.container_pipe_size= agent.passfd_listener_port",
    );
    assert_eq!((line.passfd_port, line.pipe_size), (None, None));
    assert_eq!(line.malformed, ["agent.passfd_listener_port", "agent.container_pipe_size"]);
}

#[test]
fn evil_cmdline_keys_of_upstream() {
    let keys = [
        "agent.config_file=/run/evil.toml",
        "agent.debug_console",
        "agent.debug_console_vport=1026",
        "agent.devmode",
        "agent.guest_components_procs=none",
        "agent.guest_components_rest_api=all",
        "agent.https_proxy=http://evil",
        "agent.insecure=unbound-initdata",
        "agent.no_proxy=evil",
        "agent.policy_file=/run/evil.rego",
        "agent.secure_storage_integrity=false",
        "agent.server_addr=unix:///run/evil.sock",
        "agent.trace",
        "innerkeep.insecure",
        "kata.extension.coco.verity_params=root_hash=00",
    ];
    let line = CommandLine::parse(keys.join(" ").as_bytes());
    let names: Vec<&str> = keys.iter().map(|key| key.split('=').next().unwrap()).collect();
    assert_eq!(line.ignored(), names);
    assert_eq!(line.ignored_count, keys.len());
    let nothing =
        CommandLine { ignored: line.ignored.clone(), ignored_count: keys.len(), ..CommandLine::default() };
    assert_eq!(line, nothing, "they have no effect");
    assert!(!format!("{line:?}").contains("evil"), "no value is kept: {line:?}");
}

#[test]
fn evil_cmdline_behind_the_dashes() {
    let line = CommandLine::parse(b"console=ttyS0 -- agent.log=trace --insecure agent.devmode");
    assert_eq!(line.arguments, 3);
    assert_eq!(line.log_level, None);
    assert_eq!(line.ignored_count, 0);
}

#[test]
fn evil_cmdline_floods() {
    let words: String = (0..600).map(|n| format!("agent.k{n} ")).collect();
    let line = CommandLine::parse(words.as_bytes());
    assert!(line.is_cut);
    assert_eq!(line.ignored().len(), MAXIMUM_NAMES);
    assert!(line.ignored_count <= MAXIMUM_WORDS);
    let long = format!("agent.{}", "x".repeat(MAXIMUM_BYTES));
    let line = CommandLine::parse(long.as_bytes());
    assert!(line.is_cut);
    assert_eq!(line.ignored()[0].len(), MAXIMUM_NAME_BYTES);
}

#[test]
fn words_of_the_kernel_are_not_named() {
    let line = CommandLine::parse(
        b"console=ttyS0 quiet LD_PRELOAD=/evil.so init=/bin/sh Agent.log=debug xagent.log=debug",
    );
    assert_eq!(line, CommandLine::default());
}

proptest! {
    /// Whatever the bytes are, what is kept is printable and bounded, and only the key has an effect.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
        let line = CommandLine::parse(&bytes);
        prop_assert!(line.ignored().len() <= MAXIMUM_NAMES);
        for name in line.ignored() {
            prop_assert!(name.len() <= MAXIMUM_NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let has_key = bytes.windows(10).any(|window| window == b"agent.log=");
        prop_assert!(line.log_level.is_none() || has_key);
    }

    /// Words around it do not change what the key says.
    #[test]
    fn other_words_do_not_matter(
        before in "[a-zA-Z0-9_.=/ ]{0,80}",
        after in "[a-zA-Z0-9_.=/ ]{0,80}",
    ) {
        prop_assume!(!before.contains("agent.log") && !after.contains("agent.log"));
        let line = CommandLine::parse(format!("{before} agent.log=debug {after}").as_bytes());
        prop_assert_eq!(line.log_level, Some(Level::Debug));
    }

    /// What was ignored stays ignored when it is said again, and in any order.
    #[test]
    fn ignored_keys_are_named_once(keys in prop::collection::vec("[a-z_]{1,10}", 0..20)) {
        let words: Vec<String> = keys.iter().map(|key| format!("agent.x_{key}=1")).collect();
        let once = CommandLine::parse(words.join(" ").as_bytes());
        let twice = CommandLine::parse([words.clone(), words].concat().join(" ").as_bytes());
        prop_assert_eq!(once.ignored(), twice.ignored());
        prop_assert_eq!(once.ignored_count * 2, twice.ignored_count);
    }
}
