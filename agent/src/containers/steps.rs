//! How a container comes to be: steps in one order, and all of them taken back when one fails or nobody waits any more.

use protocol::status::RpcError;

/// The steps, in upstream's order. Each needs those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The container's directory.
    Bundle,
    /// Devices of the guest, in the specification.
    Devices,
    /// Storages are mounted.
    Storages,
    /// Files of its mounts that are sealed get a place of their own.
    Secrets,
    /// What the sandbox's containers share.
    Sandbox,
    /// The root of the container's files is in its directory.
    Root,
    /// The specification is one that can be enforced.
    Prepare,
    /// Its first process, held before its program.
    Engine,
    /// Streams, and the sandbox's process ids.
    Settle,
}

impl Step {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 9] = [
        Self::Bundle,
        Self::Devices,
        Self::Storages,
        Self::Secrets,
        Self::Sandbox,
        Self::Root,
        Self::Prepare,
        Self::Engine,
        Self::Settle,
    ];

    /// Its name, in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Devices => "devices",
            Self::Storages => "storages",
            Self::Secrets => "secrets",
            Self::Sandbox => "sandbox",
            Self::Root => "root",
            Self::Prepare => "prepare",
            Self::Engine => "engine",
            Self::Settle => "settle",
        }
    }
}

/// What the steps are taken on.
pub(crate) trait Ground {
    /// Takes a step.
    ///
    /// # Errors
    /// What the caller is told. Part of the step may have been taken: it is undone as one that was.
    async fn take(&mut self, step: Step) -> Result<(), RpcError>;

    /// Undoes a step, whatever of it was taken.
    ///
    /// # Errors
    /// Something is left.
    async fn undo(&mut self, step: Step) -> Result<(), RpcError>;
}

/// Why there is no container.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the caller is told.
    pub(crate) error: RpcError,
    /// What could not be undone, in the order in which it was tried. While this is not empty, something of it may be left.
    pub(crate) left: Vec<(Step, RpcError)>,
}

/// Takes all steps. Asks before each of them and at the end whether the caller still waits. On an error everything is undone, the
/// last step first; a step that cannot be undone does not keep the others from it.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn take_all<G: Ground>(ground: &mut G, is_late: impl Fn() -> bool) -> Result<(), Failure> {
    let mut taken = Vec::new();
    let Err(error) = forward(ground, &is_late, &mut taken).await else { return Ok(()) };
    let mut left = Vec::new();
    for step in taken.into_iter().rev() {
        if let Err(error) = ground.undo(step).await {
            left.push((step, error));
        }
    }
    Err(Failure { error, left })
}

async fn forward<G: Ground>(
    ground: &mut G,
    is_late: &impl Fn() -> bool,
    taken: &mut Vec<Step>,
) -> Result<(), RpcError> {
    for step in Step::ALL {
        in_time(is_late)?;
        taken.push(step);
        ground.take(step).await?;
    }
    // GUARD: create-in-time -> evil_host_deadline_at_any_step
    in_time(is_late)?;
    Ok(())
}

fn in_time(is_late: &impl Fn() -> bool) -> Result<(), RpcError> {
    if is_late() { Err(RpcError::Deadline) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Records what is there; a step that fails has left a part of itself.
    #[derive(Debug, Default)]
    struct Recorder {
        there: Vec<Step>,
        history: Vec<(Step, bool)>,
        fails: Option<Step>,
        stays: Vec<Step>,
    }

    impl Ground for Recorder {
        async fn take(&mut self, step: Step) -> Result<(), RpcError> {
            self.there.push(step);
            self.history.push((step, true));
            if self.fails == Some(step) { Err(RpcError::Failed("TEST", "fails".to_owned())) } else { Ok(()) }
        }

        async fn undo(&mut self, step: Step) -> Result<(), RpcError> {
            self.history.push((step, false));
            if self.stays.contains(&step) {
                return Err(RpcError::Failed("STAYS", "stays".to_owned()));
            }
            assert_eq!(self.there.pop(), Some(step), "the last step first");
            Ok(())
        }
    }

    fn run(recorder: &mut Recorder, late_at: usize) -> Result<(), Failure> {
        let asked = Cell::new(0);
        let is_late = || {
            asked.set(asked.get() + 1);
            asked.get() > late_at
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(take_all(recorder, is_late))
    }

    const NEVER: usize = usize::MAX;

    #[test]
    fn steps_are_taken_in_order() {
        let mut recorder = Recorder::default();
        run(&mut recorder, NEVER).unwrap();
        assert_eq!(recorder.there, Step::ALL);
    }

    // COMPAT: CreateContainer stricter: everything is taken back when a step fails or the caller's time is over
    #[test]
    fn evil_host_deadline_at_any_step() {
        for late_at in 0..=Step::ALL.len() {
            let mut recorder = Recorder::default();
            let failure = run(&mut recorder, late_at).unwrap_err();
            assert_eq!(failure.error, RpcError::Deadline);
            assert!(failure.left.is_empty() && recorder.there.is_empty(), "{late_at}: {recorder:?}");
            assert_eq!(recorder.history.iter().filter(|(_, taken)| *taken).count(), late_at);
        }
    }

    proptest! {
        #[test]
        fn whatever_fails_nothing_is_left(at in 0..Step::ALL.len(), late_at in 0..Step::ALL.len() * 2) {
            let mut recorder = Recorder { fails: Some(Step::ALL[at]), ..Recorder::default() };
            let failure = run(&mut recorder, late_at).unwrap_err();
            prop_assert!(recorder.there.is_empty());
            prop_assert!(failure.left.is_empty());
            let expected = if late_at <= at { "DEADLINE" } else { "TEST" };
            let found = if failure.error == RpcError::Deadline { "DEADLINE" } else { "TEST" };
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn what_stays_is_told_and_the_rest_goes(at in 0..Step::ALL.len(), stays in 0..Step::ALL.len()) {
            let stays = Step::ALL[stays.min(at)];
            let mut recorder =
                Recorder { fails: Some(Step::ALL[at]), stays: vec![stays], ..Recorder::default() };
            // Undone in any order from here on: what stays is in the way of the assertion on the order.
            recorder.there.clear();
            let mut lenient = Lenient(recorder);
            let asked = || false;
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let failure = runtime.block_on(take_all(&mut lenient, asked)).unwrap_err();
            prop_assert_eq!(failure.left.len(), 1);
            prop_assert_eq!(failure.left[0].0, stays);
            let undone = lenient.0.history.iter().filter(|(_, taken)| !taken).count();
            prop_assert_eq!(undone, at + 1);
        }
    }

    /// Without an opinion on the order.
    struct Lenient(Recorder);

    impl Ground for Lenient {
        async fn take(&mut self, step: Step) -> Result<(), RpcError> {
            self.0.take(step).await
        }

        async fn undo(&mut self, step: Step) -> Result<(), RpcError> {
            self.0.there.retain(|there| *there != step);
            self.0.there.push(step);
            self.0.undo(step).await
        }
    }
}
