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

use super::privileges;
use crate::engine::latch::{FAILED, GO, READY};
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
        let program = match Program::of(spec, self.home.borrow().as_deref()) {
            Ok(program) => program,
            Err(errno) => return Failure::Before(errno),
        };
        if let Err(errno) = self.dress() {
            return Failure::Before(errno);
        }
        match self.ask() {
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

    /// Says that it is ready, and waits until it was looked at.
    fn ask(&self) -> Result<(), Errno> {
        rustix::io::write(&self.latch, READY)?;
        let mut answer = [0; 1];
        let length = rustix::io::read(&self.latch, &mut answer)?;
        if length == GO.len() && answer == GO { Ok(()) } else { Err(Errno::CANCELED) }
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
        Ok(Self { places, arguments, environment })
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

    impl Program {
        fn execute_nowhere(&self) -> Errno {
            let places = vec![c"/nonexistent/a".to_owned(), c"/proc/version/b".to_owned()];
            Self { places, arguments: self.arguments.clone(), environment: Vec::new() }.execute()
        }
    }
}
