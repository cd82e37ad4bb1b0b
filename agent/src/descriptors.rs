//! How many descriptors this process may hold: each process of a container takes four, and the kernel's default is 1,024.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::AgentError;

/// Some 16,000 processes.
const WANTED: u64 = 1 << 16;

/// Raises the limit of this process, as far as it may, and never lowers it.
///
/// Comes after the zygote: what containers inherit, where their specification says nothing, is what this process was started with.
pub(crate) fn raise() -> Result<(), AgentError> {
    let found = getrlimit(Resource::Nofile);
    if found.current.is_none_or(|current| current >= WANTED) {
        return Ok(());
    }
    let wanted = |maximum: Option<u64>| {
        let current = maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
        Rlimit { current: Some(current), maximum }
    };
    let raised = match setrlimit(Resource::Nofile, wanted(found.maximum.map(|most| most.max(WANTED)))) {
        // Without privileges the hard limit is the end.
        Err(Errno::PERM) => setrlimit(Resource::Nofile, wanted(found.maximum)),
        done => done,
    };
    raised.map_err(AgentError::system("raise the limit of descriptors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_and_never_lowered() {
        let before = getrlimit(Resource::Nofile);
        let few = Rlimit { current: Some(256), maximum: before.maximum };
        setrlimit(Resource::Nofile, few).unwrap();
        raise().unwrap();
        let raised = getrlimit(Resource::Nofile);
        // As far as this user may.
        let allowed = before.maximum.map_or(WANTED, |most| most.min(WANTED));
        assert!([WANTED, allowed].contains(&raised.current.unwrap()), "{raised:?}");
        assert!(raised.maximum >= before.maximum || before.maximum.is_none());
        raise().unwrap();
        assert_eq!(getrlimit(Resource::Nofile), raised);
    }
}
