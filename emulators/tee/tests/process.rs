//! The emulator as a process: `init`, `serve`, `run`, and who may use them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use evidence::verify::roots::TrustBundle;
use rustix::process::geteuid;
use sha2::{Digest, Sha384};
use tempfile::TempDir;

const EMULATOR: &str = env!("CARGO_BIN_EXE_innerkeep-tee-emulator");
const NOBODY: u32 = 65534;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A directory with a platform in `state`.
fn platform() -> TempDir {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/evidence/keys/insecure-test-");
    for name in ["ark", "ask"] {
        fs::copy(format!("{keys}{name}.pk8"), state.join(format!("snp-{name}.pk8"))).unwrap();
    }
    succeeded(&Command::new(EMULATOR).arg("init").arg("--state").arg(&state).output().unwrap());
    directory
}

/// A shell in a mount namespace of its own, in which `$EMULATOR` and `$DIR` are set.
fn shell(directory: &Path, script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["sh", "-euc", script]).env("EMULATOR", EMULATOR).env("DIR", directory);
    command
}

#[test]
fn init_makes_all_keys_and_keeps_them() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("new");
    let init =
        || Command::new(EMULATOR).args(["init", "--tee", "snp", "--state"]).arg(&state).output().unwrap();
    succeeded(&init());
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("seed"), mode("snp-ark.pk8")), (0o700, 0o600, 0o600));
    let roots = fs::read(state.join("trust-roots.json")).unwrap();
    let bundle = TrustBundle::parse(&roots).unwrap();
    assert_eq!((bundle.snp.len(), bundle.tdx.is_some()), (3, true));
    assert!(fs::read_to_string(state.join("launch.toml")).unwrap().contains("\ntee = \"snp\""));
    let again = init();
    assert!(!again.status.success() && text(&again.stderr).contains("already"));
    assert_eq!(fs::read(state.join("trust-roots.json")).unwrap(), roots);
}

#[test]
fn serve_is_ready_mounts_and_ends_cleanly() {
    let directory = platform();
    let script = r#"
        "$EMULATOR" serve --state "$DIR/state" --root "$DIR/root" >"$DIR/out" 2>"$DIR/log" &
        until grep -qx ready "$DIR/out"; do kill -0 $! || { cat "$DIR/log"; exit 1; }; sleep 0.01; done
        cd "$DIR/root/sys/kernel/config/tsm/report"
        mkdir one
        head -c 64 /dev/zero >one/inblob
        cat one/outblob >"$DIR/quote"
        echo "$(cat one/generation)$(cat one/provider)"
        # The working directory keeps the mount busy; it goes all the same.
        kill -TERM $!
        wait $!
        cd "$DIR"
        ls -A root/sys
        # What a killed emulator leaves behind does not hinder the next one, nor does a boot keep the log of the last.
        "$EMULATOR" serve --state "$DIR/state" --root "$DIR/root" >"$DIR/out" 2>"$DIR/log" &
        until grep -qx ready "$DIR/out"; do kill -0 $! || { cat "$DIR/log"; exit 1; }; sleep 0.01; done
        kill -KILL $!
        wait $! || true
        echo old >root/run/attestation-agent/eventlog
        "$EMULATOR" run --state "$DIR/state" --root "$DIR/root" -- ls root/sys root/run/attestation-agent
    "#;
    let output = shell(directory.path(), script).output().unwrap();
    let expected = "1tdx_guest\nroot/run/attestation-agent:\n\nroot/sys:\ndevices\nfirmware\nkernel\n";
    assert_eq!(succeeded(&output), expected);
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(log.starts_with("innerkeep-tee-emulator: INSECURE: EMULATED TDX"), "{log}");
    let quote = fs::read(directory.path().join("quote")).unwrap();
    assert_eq!(evidence::abi::tdx::TdxQuote::parse(&quote).unwrap().body.report_data.0, [0; 64]);
}

#[test]
fn run_passes_the_status_on() {
    let directory = platform();
    let run = |command: &[&str]| {
        let mut run = Command::new(EMULATOR);
        run.arg("run").arg("--state").arg(directory.path().join("state"));
        run.arg("--root").arg(directory.path().join("root")).arg("--").args(command);
        run.output().unwrap()
    };
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)] {
        assert_eq!(run(&["sh", "-c", script]).status.code(), Some(status));
    }
    // SIGTERM ends the command and so the emulator; the command starts with no signal blocked.
    assert_eq!(run(&["sh", "-c", "kill -TERM $PPID; exec sleep 60"]).status.code(), Some(143));
    let missing = run(&["/no/such/program"]);
    assert!(!missing.status.success() && text(&missing.stderr).contains("/no/such/program"));
}

#[test]
fn roots_that_are_none_are_refused() {
    let directory = platform();
    let state = directory.path().join("state");
    let refused = |root: &Path| {
        let mut run = Command::new(EMULATOR);
        run.arg("run").arg("--state").arg(&state).arg("--root").arg(root).args(["--", "true"]);
        let output = run.output().unwrap();
        assert!(!output.status.success());
        text(&output.stderr)
    };
    assert!(refused(Path::new("/")).contains("found /"));
    let used = directory.path().join("used");
    fs::create_dir_all(used.join("sys/kernel")).unwrap();
    assert!(refused(&used).contains("expected an empty directory"));
    let linked = directory.path().join("linked");
    fs::create_dir_all(linked.join("run")).unwrap();
    let precious = directory.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), b"").unwrap();
    std::os::unix::fs::symlink(&precious, linked.join("run/attestation-agent")).unwrap();
    assert!(refused(&linked).contains("expected a directory"));
    assert!(precious.join("file").exists());
}

/// A tree in place of /sys that has what a kernel without a TEE has, in a mount namespace; `$1…` are more arguments.
const MACHINE: &str = r#"
    mount -t tmpfs none /sys
    mount -t tmpfs none /run
    cd /sys
    mkdir -p kernel/config/tsm/report devices/virtual/misc/loop-control devices/platform/serial firmware/acpi/tables/data
    echo 10:237 >devices/virtual/misc/loop-control/dev
    ln -s ../../platform devices/virtual/misc/link
    echo table >firmware/acpi/tables/FACP
    mkdir -p /run/attestation-agent
    echo old >/run/attestation-agent/eventlog
    guest() {
        "$EMULATOR" guest --state "$DIR/state" --without device --ready-file /run/ready "$@" >"$DIR/out" 2>"$DIR/log" &
        until test -e /run/ready; do kill -0 $! || { cat "$DIR/log"; exit 1; }; sleep 0.01; done
    }
"#;

fn machine(directory: &Path, script: &str) -> Output {
    shell(directory, &format!("{MACHINE}{script}")).output().unwrap()
}

/// All but the driver's node, which needs a kernel with CUSE.
#[test]
fn a_machine_has_its_tee_at_the_real_paths() {
    let directory = platform();
    let script = r#"
        guest
        cat "$DIR/out"
        ls devices/virtual/misc devices/virtual/misc/tdx_guest/measurements | tr '\n' ' '
        cat devices/virtual/misc/loop-control/dev
        ls devices/virtual/misc/link
        ls firmware/acpi/tables | tr '\n' ' '
        head -c 4 firmware/acpi/tables/CCEL
        cat firmware/acpi/tables/data/CCEL | wc -c
        cat firmware/acpi/tables/FACP
        mkdir kernel/config/tsm/report/one
        cat kernel/config/tsm/report/one/provider
        ls -A /run/attestation-agent
        mkdir devices/virtual/misc/other 2>&1 | grep -o 'Read-only'
        head -c 48 /dev/zero | tr '\0' 'x' >devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384
        od -An -tx1 -N4 devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384
        kill -TERM $!
        wait $!
        ls devices/virtual/misc kernel/config/tsm/report firmware/acpi/tables firmware/acpi/tables/data | tr '\n' ' '
        grep -c tee-emulator /proc/self/mountinfo || true
    "#;
    let said = succeeded(&machine(directory.path(), script));
    let registers = "mrconfigid mrowner mrownerconfig mrtd:sha384 \
                     rtmr0:sha384 rtmr1:sha384 rtmr2:sha384 rtmr3:sha384 ";
    let misc =
        "devices/virtual/misc: link loop-control tdx_guest  devices/virtual/misc/tdx_guest/measurements: ";
    let after = "devices/virtual/misc: link loop-control  firmware/acpi/tables: FACP data  \
                 firmware/acpi/tables/data:  kernel/config/tsm/report: 0\n";
    let register = Sha384::digest([[0_u8; 48], [b'x'; 48]].concat());
    let register: String = register.iter().take(4).map(|byte| format!(" {byte:02x}")).collect();
    let expected = format!(
        "ready\n{misc}{registers}10:237\nserial\nCCEL FACP data CCEL65536\ntable\ntdx_guest\nRead-only\n\
         {register}\n{after}"
    );
    assert_eq!(said, expected);
}

#[test]
fn parts_of_a_machine_can_be_left_away() {
    let directory = platform();
    let script = r#"
        guest --without configfs-tsm --without measurements --without event-log
        ls devices/virtual/misc firmware/acpi/tables firmware/acpi/tables/data | tr '\n' ' '
        mkdir kernel/config/tsm/report/one
        ls kernel/config/tsm/report/one
        kill -TERM $!
        wait $!
    "#;
    let said = succeeded(&machine(directory.path(), script));
    let expected = "devices/virtual/misc: link loop-control  firmware/acpi/tables: FACP data  firmware/acpi/tables/data: ";
    assert_eq!(said, expected);
}

#[test]
fn a_machine_with_a_tee_keeps_it() {
    let directory = platform();
    let script = r#"
        guest
        "$EMULATOR" guest --state "$DIR/state" --root /run/other --without device 2>&1 && exit 1
        mount -t tmpfs none /dev
        : >/dev/sev-guest
        kill -TERM $!
        wait $!
        "$EMULATOR" guest --state "$DIR/state" --root /run/other --without device 2>&1 && exit 1
        ls kernel/config/tsm/report
    "#;
    let said = succeeded(&machine(directory.path(), script));
    let refusals = said.matches("expected a machine without a TEE, found one").count();
    assert_eq!(refusals, 2, "{said}");
    assert!(said.contains("/dev/sev-guest: expected"), "{said}");
}

#[test]
fn a_machine_without_the_kernel_s_part_is_refused() {
    let directory = platform();
    let script = r#"
        rmdir kernel/config/tsm/report
        "$EMULATOR" guest --state "$DIR/state" --without device 2>&1 && exit 1
        grep -c tee-emulator /proc/self/mountinfo || true
    "#;
    let output = machine(directory.path(), script);
    let said = succeeded(&output);
    assert!(said.contains("load the kernel modules configfs and tsm_report"), "{said}");
    assert!(said.ends_with("\n0\n"), "{said}");
}

/// Below it a program may enter a user and a mount namespace of its own, as a confined consumer does, and still sees
/// the guest's files.
#[test]
fn an_ordinary_user_runs_a_guest() {
    let directory = platform();
    let inner = r#"
        cd "$DIR/root/sys/kernel/config/tsm/report"
        mkdir nested
        head -c 64 /dev/zero >nested/inblob
        head -c 4 nested/outblob | od -An -tx1
        head -c 8 "$DIR/root/sys/firmware/acpi/tables/data/CCEL" | wc -c
        rmdir nested
        id -u
    "#;
    let guest = r#"exec "$EMULATOR" run --state "$DIR/state" --root "$DIR/root" -- \
        unshare --user --map-current-user --mount sh -euc "$INNER""#;
    let id = if geteuid().is_root() { NOBODY } else { geteuid().as_raw() };
    let mut command = if geteuid().is_root() {
        for path in [directory.path().to_owned(), directory.path().join("state")] {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        for file in fs::read_dir(directory.path().join("state")).unwrap() {
            chown(file.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        // On most machines everybody may open /dev/fuse; here it is made so, for this namespace.
        let script = r#"
            mount -t tmpfs none /mnt
            mknod -m 666 /mnt/fuse c 10 229
            mount --bind /mnt/fuse /dev/fuse
            exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -euc "$GUEST"
        "#;
        shell(directory.path(), script)
    } else {
        let mut command = Command::new("sh");
        command.args(["-euc", guest]).env("EMULATOR", EMULATOR).env("DIR", directory.path());
        command
    };
    let output = command.env("GUEST", guest).env("INNER", inner).output().unwrap();
    assert_eq!(succeeded(&output), format!(" 04 00 02 00\n8\n{id}\n"));
}
