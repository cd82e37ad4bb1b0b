use std::sync::mpsc;
use std::time::UNIX_EPOCH;

use super::*;

pub(crate) fn recorded() -> (Log, Arc<std::sync::Mutex<Vec<u8>>>) {
    let bytes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = Arc::clone(&bytes);
    let sink = Sink::new(Box::new(move |line| theirs.lock().unwrap().extend_from_slice(line)));
    (Log::to(sink), bytes)
}

fn lines(bytes: &Arc<std::sync::Mutex<Vec<u8>>>) -> Vec<Json> {
    let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_has_the_keys_of_upstream() {
    let fields = [(Key::Tee, Value::from("snp")), (Key::Count, Value::from(3_u64))];
    let line = line(UNIX_EPOCH, Level::Warning, "pid1", "a text", &fields, 0);
    let found: Json = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "msg": "a text",
        "level": "WARN",
        "ts": "1970-01-01T00:00:00.000000000Z",
        "version": crate::VERSION,
        "pid": std::process::id().to_string(),
        "name": "kata-agent",
        "source": "agent",
        "subsystem": "pid1",
        "tee": "snp",
        "count": 3,
    });
    assert_eq!(found, expected);
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
}

#[test]
fn evil_host_text_that_breaks_the_line() {
    let value = Value::shown("a\"b\nc\u{1b}[2J\u{202e}é");
    let line = line(UNIX_EPOCH, Level::Info, "pid1", "text", &[(Key::Device, value)], 0);
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.bytes().all(|byte| byte == b'\n' || byte == b' ' || byte.is_ascii_graphic()), "{line}");
    let found: Json = serde_json::from_str(&line).unwrap();
    assert_eq!(found["device"], "a\"b?c?[2J??");
    let long = Value::shown(&"x".repeat(10_000));
    assert_eq!(long.0.as_str().unwrap().len(), 512);
}

#[test]
fn levels_below_the_chosen_one_are_not_written() {
    let (log, bytes) = recorded();
    log.say(Level::Debug, "pid1", "not yet", &[]);
    log.set_level(Level::Debug);
    assert_eq!(log.level(), Level::Debug);
    log.say(Level::Debug, "pid1", "now", &[]);
    log.set_level(Level::Critical);
    log.warn("pid1", "not any more", &[]);
    log.say(Level::Critical, "pid1", "always", &[]);
    let texts: Vec<_> = lines(&bytes).into_iter().map(|line| line["msg"].clone()).collect();
    assert_eq!(texts, ["now", "always"]);
}

#[test]
fn errors_have_code_and_causes() {
    let (log, bytes) = recorded();
    let source = std::io::Error::other("cause");
    let error = AgentError::Mount { kind: "proc", target: "/proc", source };
    log.fail(Level::Critical, "pid1", "start", &error);
    let lines = lines(&bytes);
    assert_eq!(lines[0]["code"], "AGENT_MOUNT");
    assert_eq!(lines[0]["error"], "mount proc on /proc: cause");
    assert_eq!(lines[0]["level"], "CRIT");
}

#[test]
fn evil_host_console_that_takes_nothing() {
    let (go, wait) = mpsc::channel::<()>();
    let bytes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = Arc::clone(&bytes);
    let sink = Sink::new(Box::new(move |line| {
        let _ = wait.recv();
        theirs.lock().unwrap().extend_from_slice(line);
    }));
    let log = Log::to(sink);
    log.write_behind().unwrap();
    // Nobody takes a line, and nobody waits: not who logs, and not for ever who wants all to be written.
    for _ in 0..2_000 {
        log.info("pid1", "line", &[]);
    }
    log.flush(Duration::from_millis(10));
    drop(go);
    while lines(&bytes).len() < 1_000 {
        std::thread::yield_now();
    }
    log.flush(Duration::from_secs(60));
    log.info("pid1", "after", &[]);
    log.flush(Duration::from_secs(60));
    let lines = lines(&bytes);
    let last = lines.last().unwrap();
    assert_eq!(last["msg"], "after");
    let lost = last["lost"].as_u64().unwrap();
    assert_eq!(lost + u64::try_from(lines.len()).unwrap(), 2_001);
}

#[test]
fn words_of_the_command_line_are_levels() {
    let table = [
        ("fatal", Some("CRIT")),
        ("panic", Some("CRIT")),
        ("critical", Some("CRIT")),
        ("error", Some("ERRO")),
        ("warn", Some("WARN")),
        ("warning", Some("WARN")),
        ("info", Some("INFO")),
        ("debug", Some("DEBG")),
        ("trace", Some("TRCE")),
        ("Debug", None),
        ("", None),
    ];
    for (word, name) in table {
        assert_eq!(Level::parse(word).map(Level::name), name, "{word}");
    }
}

#[test]
fn last_words_do_not_wait_for_whoever_holds_the_log() {
    let (log, _) = recorded();
    let limit = Duration::from_millis(20);
    // As a panic would, inside the log itself.
    log.inner.sink.put(|_| {
        log.last_words("pid1", "last words", &[], limit);
        String::new()
    });
    log.write_behind().unwrap();
    log.last_words("pid1", "last words", &[], limit);
}
