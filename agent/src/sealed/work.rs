//! The thread that lands, one artifact after the other.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use policy_engine::audit::Audit;

use super::state::{Count, Next};
use super::{SUBSYSTEM, Sealed, SealedError, Stage};
use crate::log::{Key, Level, Value};

/// Longest sleep of somebody who is woken when there is something to do.
const REST: Duration = Duration::from_secs(3600);

impl Sealed {
    /// Lands what is to be landed, for ever.
    pub(super) fn work(&self, audit: &Audit) {
        loop {
            match self.inner.states.next(Instant::now()) {
                Next::Land(index) => self.land(index, || audit.evidence_bytes().is_some()),
                Next::Wait(pause) => self.sleep(pause),
                Next::Rest => self.sleep(REST),
            }
        }
    }

    /// There is evidence for the audit: what waited for it is landed now.
    pub(crate) fn attested(&self) {
        self.inner.states.due(SealedError::NotAttested.code(), Instant::now());
        self.wake();
    }

    fn sleep(&self, pause: Duration) {
        let (asked, condition) = &self.inner.wake;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = condition.wait_timeout_while(asked, pause, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    pub(super) fn land(&self, index: usize, is_attested: impl Fn() -> bool) {
        let (log, states) = (&self.inner.log, &self.inner.states);
        let Some(artifact) = self.artifacts().get(index) else { return };
        let name = || Value::shown(artifact.name.as_str());
        if let Err(error) = require_attested(is_attested()) {
            // Not this artifact's failure: it is not counted as one, and it is said once.
            if states.stage(index) != Stage::Waiting(Some(error.code())) {
                let fields = [(Key::Artifact, name()), (Key::Code, error.code().into())];
                log.info(SUBSYSTEM, "artifact waits until the audit is attested", &fields);
            }
            states.postponed(index, error.code(), Instant::now());
            // Whoever said in between that there is some has not been heard.
            if is_attested() {
                states.due(error.code(), Instant::now());
            }
            return;
        }
        let start = Instant::now();
        let fetching = || {
            let text = "artifact is not among the stored ones: its registry is asked";
            log.info(SUBSYSTEM, text, &[(Key::Artifact, name())]);
        };
        let begin = |total| {
            let (own, shown) = (log.clone(), artifact.name.to_string());
            let quarter = move |percent: u8| {
                let fields =
                    [(Key::Artifact, Value::shown(&shown)), (Key::Percent, u64::from(percent).into())];
                own.info(SUBSYSTEM, "artifact landing", &fields);
            };
            let count = Arc::new(Count::new(total, quarter));
            states.begin(index, Arc::clone(&count));
            let fields = [(Key::Artifact, name()), (Key::Bytes, total.into())];
            log.info(SUBSYSTEM, "artifact: origin proven, landing", &fields);
            count
        };
        match self.inner.setup.land(index, artifact, fetching, begin) {
            Ok(landed) => {
                let milliseconds = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                let fields = [
                    (Key::Artifact, name()),
                    (Key::Milliseconds, milliseconds.into()),
                    (Key::Insecure, Value::shown(&landed.facts.names().join(" "))),
                ];
                log.info(SUBSYSTEM, "artifact landed", &fields);
                states.ready(index, landed.landing);
            }
            Err(error) => {
                if error.is_refusal() {
                    states.refused(index);
                }
                let again = states.failed(index, error.code(), Instant::now());
                let text =
                    if again { "artifact not landed, to be tried again" } else { "artifact not landed" };
                let fields = [
                    (Key::Artifact, name()),
                    (Key::Code, error.code().into()),
                    (Key::Error, Value::shown(&crate::error::chain(&error))),
                ];
                log.say(Level::Warning, SUBSYSTEM, text, &fields);
            }
        }
    }
}

/// What is released has to be seen by whoever reads the audit.
fn require_attested(is_attested: bool) -> Result<(), SealedError> {
    // GUARD: sealed-audit-attested -> evil_host_artifact_before_the_audit_is_attested
    if !is_attested {
        return Err(SealedError::NotAttested);
    }
    Ok(())
}
