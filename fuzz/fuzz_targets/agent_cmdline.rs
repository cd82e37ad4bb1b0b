//! The kernel's command line, which the host writes. One key has an effect; of the others no value is kept.

#![no_main]

use agent::cmdline::{CommandLine, KEYS, MAXIMUM_BYTES, MAXIMUM_NAME_BYTES, MAXIMUM_NAMES, MAXIMUM_WORDS};
use fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let line = bounded(data.len(), || CommandLine::parse(data));
    assert!(line.ignored().len() <= MAXIMUM_NAMES.min(line.ignored_count));
    assert!(line.ignored_count + line.arguments <= MAXIMUM_WORDS);
    for name in line.ignored() {
        assert!(name.len() <= MAXIMUM_NAME_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!name.contains('=') && KEYS.iter().all(|(key, _)| *key != name.as_str()));
    }
    if data.len() > MAXIMUM_BYTES {
        assert!(line.is_cut);
    }
    // Only the key has an effect: without its name there is none.
    let key = b"agent.log=";
    if !data.windows(key.len()).any(|window| window == key) {
        assert_eq!(line.log_level, None);
    }
    // What stands behind the dashes changes nothing but the number of arguments.
    if data.len() + 32 < MAXIMUM_BYTES && !line.is_cut {
        let more = [data, b" -- agent.log=trace agent.x"].concat();
        let more = CommandLine::parse(&more);
        assert_eq!((more.log_level, more.ignored()), (line.log_level, line.ignored()));
        assert_eq!(more.ignored_count, line.ignored_count);
    }
});
