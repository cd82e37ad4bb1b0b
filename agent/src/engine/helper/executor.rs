//! The last steps of a process before its program: what libcontainer leaves out, in an order that the kernel takes.
//!
//! ```text
//!  groups ─▶ directory ─▶ (filter, without no_new_privs) ─▶ capabilities ─▶ (filter, with it) ─▶ latch: ready, go ─▶ execve
//! ```
//! A filter without `no_new_privs` needs a capability, and so comes before they go; with it, it comes last, so that it need not
//! allow what was done before.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::Spec;
use rustix::io::Errno;
use rustix::process::Gid;
use rustix::thread::{no_new_privs, set_thread_groups};
use zeroize::Zeroizing;

use super::privileges;
use crate::engine::latch::{ENTRY, FAILED, GO, READY};
use crate::engine::order::MAXIMUM_ENTRY_BYTES;
use crate::engine::wire::Guise;
use crate::sys::{execute, seccomp};

/// Executes the program of a process, as it was ordered.
#[derive(Clone, Debug)]
pub(super) struct OwnExecutor {
    guise: Guise,
    latch: Arc<OwnedFd>,
    /// Where the user is at home, as libcontainer found out.
    home: RefCell<Option<String>>,
}

impl OwnExecutor {
    pub(super) const fn new(guise: Guise, latch: Arc<OwnedFd>) -> Self {
        Self { guise, latch, home: RefCell::new(None) }
    }

    /// Becomes what was ordered, asks whether to go on, and executes. Returns why it could not.
    fn become_the_program(&self, spec: &Spec) -> Failure {
        let mut program = match Program::of(spec, self.home.borrow().as_deref()) {
            Ok(program) => program,
            Err(errno) => return Failure::Before(errno),
        };
        if let Err(errno) = self.dress() {
            return Failure::Before(errno);
        }
        match self.ask(&mut program) {
            Ok(()) => Failure::Program(program.execute()),
            Err(errno) => Failure::Before(errno),
        }
    }

    fn dress(&self) -> Result<(), Errno> {
        let guise = &self.guise;
        let groups: Vec<Gid> = guise.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        // libcontainer sets none where there are none, and the helper's would stay.
        set_thread_groups(&groups)?;
        // GUARD: directory-inside -> vm_engine
        if !is_inside(rustix::process::getcwd(Vec::new())?.as_bytes()) {
            return Err(Errno::NOTDIR);
        }
        if no_new_privs()? != guise.no_new_privileges {
            return Err(Errno::PERM);
        }
        if !guise.no_new_privileges {
            self.filter()?;
        }
        privileges::become_only(&guise.capabilities)?;
        if guise.no_new_privileges {
            self.filter()?;
        }
        Ok(())
    }

    fn filter(&self) -> Result<(), Errno> {
        self.guise
            .seccomp
            .as_ref()
            .map_or(Ok(()), |filter| seccomp::load(&filter.instructions(), filter.flags))
    }

    /// Says that it is ready, and waits until it was looked at. What of the environment is a secret comes only then.
    fn ask(&self, program: &mut Program) -> Result<(), Errno> {
        rustix::io::write(&self.latch, READY)?;
        let mut message = std::mem::take(&mut program.message);
        loop {
            let length = rustix::io::read(&self.latch, message.as_mut_slice())?;
            match message.get(..length).and_then(<[u8]>::split_first) {
                Some((mark, [])) if GO == [*mark] => break,
                Some((&ENTRY, entry)) if entry.len() <= MAXIMUM_ENTRY_BYTES => program.take(entry)?,
                _ => return Err(Errno::CANCELED),
            }
        }
        // Not given back before the program runs: the filter need not allow it.
        program.message = message;
        Ok(())
    }

    fn tell(&self, failure: Failure) {
        let (mark, errno) = match failure {
            Failure::Before(errno) => (FAILED[0], errno),
            Failure::Program(errno) => (FAILED[1], errno),
        };
        let mut message = vec![mark];
        message.extend(errno.raw_os_error().to_le_bytes());
        let _ = rustix::io::write(&self.latch, &message);
    }
}

/// Why a program does not run.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// A step before it.
    Before(Errno),
    /// The program itself.
    Program(Errno),
}

impl Executor for OwnExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = self.become_the_program(spec);
        self.tell(failure);
        // Whoever waits knows. What libcontainer does with this goes nowhere.
        Err(ExecutorError::CantHandle("own"))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let arguments = spec.process().as_ref().and_then(|process| process.args().as_ref());
        if arguments.is_none_or(Vec::is_empty) {
            return Err(ExecutorValidationError::ArgValidationError(
                "a process without arguments".to_owned(),
            ));
        }
        Ok(())
    }

    fn setup_envs(&self, mut environment: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The rest is taken from the specification, in its order.
        *self.home.borrow_mut() = environment.remove("HOME");
        Ok(())
    }
}

/// Whether a directory, as the kernel names it, is below the root: what is not begins with `(unreachable)`.
fn is_inside(directory: &[u8]) -> bool {
    directory.starts_with(b"/")
}

/// What is executed, made before a filter could forbid to.
struct Program {
    places: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Room for a message at the latch, and a byte more, so that a longer one is seen to be one.
    message: Zeroizing<Vec<u8>>,
}

impl Program {
    fn of(spec: &Spec, home: Option<&str>) -> Result<Self, Errno> {
        let process = spec.process().as_ref().ok_or(Errno::INVAL)?;
        let text = |text: &str| CString::new(text).map_err(|_| Errno::INVAL);
        let words = process.args().as_ref().ok_or(Errno::INVAL)?;
        let name = words.first().ok_or(Errno::INVAL)?;
        let variables = process.env().as_deref().unwrap_or_default();
        let find = |key: &str| {
            variables
                .iter()
                .rev()
                .find_map(|entry| entry.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
        };
        let mut environment = last_of_each(variables);
        let own;
        if let (None | Some(""), Some(home)) = (find("HOME"), home) {
            own = format!("HOME={home}");
            environment.retain(|entry| *entry != "HOME=");
            environment.push(&own);
        }
        let environment = environment.into_iter().map(text).collect::<Result<_, _>>()?;
        let places = places(name, find("PATH")).iter().map(|place| text(place)).collect::<Result<_, _>>()?;
        let arguments = words.iter().map(|word| text(word)).collect::<Result<_, _>>()?;
        let message = Zeroizing::new(vec![0; MAXIMUM_ENTRY_BYTES + 2]);
        Ok(Self { places, arguments, environment, message })
    }

    /// Takes a value in the place of the one that the specification has under this name.
    fn take(&mut self, entry: &[u8]) -> Result<(), Errno> {
        let name = entry.iter().position(|byte| *byte == b'=').ok_or(Errno::INVAL)?;
        let name = entry.get(..=name).ok_or(Errno::INVAL)?;
        let mut places = self.environment.iter_mut().filter(|own| own.as_bytes().starts_with(name));
        let place = places.next().ok_or(Errno::INVAL)?;
        *place = CString::new(entry).map_err(|_| Errno::INVAL)?;
        Ok(())
    }

    /// Tries one place after the other. Returns what the system said of the best one.
    fn execute(&self) -> Errno {
        let mut answer = Errno::NOENT;
        for place in &self.places {
            match execute::execute(place, &self.arguments, &self.environment) {
                Errno::NOENT | Errno::NOTDIR => {}
                // There is one, and perhaps another that may be executed.
                Errno::ACCESS => answer = Errno::ACCESS,
                other => return other,
            }
        }
        answer
    }
}

/// Of variables of one name the last one, where it stands.
fn last_of_each(variables: &[String]) -> Vec<&str> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<&str> =
        variables.iter().rev().filter(|entry| seen.insert(key(entry))).map(String::as_str).collect();
    kept.reverse();
    kept
}

/// Where a program may be: by its path, or in the directories of `PATH`, absolute ones only.
fn places(name: &str, path: Option<&str>) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    if name.is_empty() {
        return Vec::new();
    }
    let directories = path.unwrap_or_default().split(':').filter(|directory| directory.starts_with('/'));
    directories.map(|directory| format!("{}/{name}", directory.trim_end_matches('/'))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_or_in_path() {
        assert_eq!(places("/bin/sh", Some("/usr/bin")), ["/bin/sh"]);
        assert_eq!(places("./sh", None), ["./sh"]);
        assert_eq!(places("sh", Some("/usr/bin:/bin/::rel:.")), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(places("sh", Some("/")), ["/sh"]);
        assert!(places("sh", None).is_empty());
        assert!(places("", Some("/bin")).is_empty());
    }

    #[test]
    fn the_environment_keeps_its_order_and_gets_a_home() {
        let process = serde_json::json!({
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh", "-c"], "env": ["B=1", "PATH=/bin", "A=2", "PATH=/sbin"],
        });
        let spec = serde_json::json!({"ociVersion": "1.0.0", "process": process});
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let program = Program::of(&spec, Some("/root")).unwrap();
        let shown: Vec<_> = program.environment.iter().map(|entry| entry.to_str().unwrap()).collect();
        assert_eq!(shown, ["B=1", "A=2", "PATH=/sbin", "HOME=/root"]);
        assert_eq!(program.places, [c"/sbin/sh".to_owned()]);
        assert_eq!(program.execute_nowhere(), Errno::NOENT);
    }

    fn program() -> Program {
        let process = serde_json::json!({
            "cwd": "/", "user": {"uid": 0, "gid": 0}, "args": ["sh"], "env": ["A=sealed.a", "AB=sealed.b", "C=c"],
        });
        let spec = serde_json::json!({"ociVersion": "1.0.0", "process": process});
        Program::of(&serde_json::from_value(spec).unwrap(), None).unwrap()
    }

    /// What a process that waits at its latch has for an environment when it goes on, or why it does not.
    async fn brought(variables: &[(&str, &str)]) -> Result<Vec<String>, Errno> {
        let (latch, theirs) = crate::engine::latch::Latch::pair().unwrap();
        rustix::io::ioctl_fionbio(&theirs, false).unwrap();
        let waiting = tokio::task::spawn_blocking(move || {
            let capabilities = crate::engine::wire::CapabilityBits::default();
            let guise = Guise {
                uid: 0,
                gid: 0,
                groups: Vec::new(),
                no_new_privileges: true,
                capabilities,
                seccomp: None,
            };
            let mut program = program();
            let executor = OwnExecutor::new(guise, Arc::new(theirs));
            executor.ask(&mut program).map(|()| program.environment)
        });
        latch.ready().await.unwrap();
        for (name, value) in variables {
            let variable = crate::engine::SecretVariable::new(name, value).unwrap();
            // It may have given up already.
            let _ = latch.bring(&variable).await;
        }
        let _ = latch.go();
        let environment = waiting.await.unwrap()?;
        Ok(environment.into_iter().map(|entry| entry.into_string().unwrap()).collect())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn secrets_come_at_the_latch_and_under_known_names() {
        assert_eq!(brought(&[]).await.unwrap(), ["A=sealed.a", "AB=sealed.b", "C=c"]);
        assert_eq!(brought(&[("AB", "x=y"), ("A", "")]).await.unwrap(), ["A=", "AB=x=y", "C=c"]);
        let long = "x".repeat(MAXIMUM_ENTRY_BYTES - 2);
        assert_eq!(brought(&[("A", &long)]).await.unwrap()[0], format!("A={long}"));
        // A variable that nobody ordered is none.
        assert_eq!(brought(&[("B", "x")]).await.unwrap_err(), Errno::INVAL);
        assert_eq!(brought(&[("LD_PRELOAD", "x")]).await.unwrap_err(), Errno::INVAL);
    }

    impl Program {
        fn execute_nowhere(&self) -> Errno {
            let places = vec![c"/nonexistent/a".to_owned(), c"/proc/version/b".to_owned()];
            let (arguments, message) = (self.arguments.clone(), Zeroizing::default());
            Self { places, arguments, environment: Vec::new(), message }.execute()
        }
    }
}
