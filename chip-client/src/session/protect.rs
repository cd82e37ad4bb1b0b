//! Submissions and completions of a session (spec §7.4): sealed under directional keys, in sequence, each completion
//! bound to its whole submission.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::Inner;
use super::keys::SessionSecrets;
use crate::abi::limits::{MAX_SUBMISSIONS, TAG};
use crate::abi::{Completion, LABEL_COMPLETION_AAD, LABEL_SUBMISSION_AAD, Opcode, QUEUE_CONTROL, Status};
use crate::driver::{Finished, Lengths, Ticket};
use crate::error::{ChipError, DeviceError, SessionError};

/// Keys and counters of a session.
pub(super) struct Protection {
    keys: SessionSecrets,
    // Last sequence number used, per queue.
    sequence: [u64; 2],
}

/// A command on its way.
#[derive(Debug)]
pub(crate) struct Submitted {
    pub(crate) ticket: Ticket,
    pub(crate) opcode: Opcode,
    pub(crate) hash: [u8; 32],
    sequence: u64,
}

/// An authentic answer. The output is plaintext and wiped when dropped.
pub(crate) struct Answer {
    pub(crate) output: Zeroizing<Vec<u8>>,
}

impl Protection {
    pub(super) fn new(keys: SessionSecrets) -> Self {
        Self { keys, sequence: [0; 2] }
    }

    #[cfg(test)]
    pub(super) fn set_sequence(&mut self, last: u64) {
        self.sequence = [last; 2];
    }

    /// The input as it is sent: ciphertext and tag.
    fn seal(&self, queue: u16, sequence: u64, entry: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, ChipError> {
        let aad = [LABEL_SUBMISSION_AAD, entry].concat();
        let mut sealed = plaintext.to_vec();
        let nonce = nonce(queue.into(), sequence);
        let done = self.keys.submission.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed);
        done.map_err(|_| SessionError::Crypto { what: "sealing of a submission" })?;
        Ok(sealed)
    }

    /// The output of an authentic completion.
    fn open(&self, submitted: &Submitted, finished: &Finished) -> Result<Answer, ChipError> {
        let Completion { status, cid, out_len, detail, .. } = finished.completion;
        let queue = submitted.ticket.queue;
        let aad = [
            LABEL_COMPLETION_AAD,
            &submitted.hash,
            &status.to_le_bytes(),
            &cid.to_le_bytes(),
            &out_len.to_le_bytes(),
            &detail.to_le_bytes(),
        ]
        .concat();
        let mut output = Zeroizing::new(vec![0; finished.output.len()]);
        let verdict = self.keys.completion.open_separate_gather(
            nonce(queue.into(), submitted.sequence),
            Aad::from(aad),
            &finished.output,
            &finished.completion.tag,
            &mut output,
        );
        let forged = DeviceError::CompletionForged { queue, cid, claimed: status };
        // GUARD: completion-authentic -> evil_completion_forged, evil_completion_replayed, evil_completion_of_another_command
        verdict.map_err(|_| forged)?;
        Ok(Answer { output })
    }
}

impl Inner<'_> {
    /// Key of segments that cross shared memory.
    pub(crate) fn bulk_key(&self) -> &LessSafeKey {
        &self.protection.keys.bulk
    }

    /// Sends a command; `None` while all slots of the queue are taken.
    pub(crate) fn submit(
        &mut self,
        queue: u16,
        opcode: Opcode,
        plaintext: &[u8],
        out_cap: u32,
    ) -> Result<Option<Submitted>, ChipError> {
        if self.ended {
            return Err(SessionError::Ended.into());
        }
        let slot = usize::from(queue);
        let last = self.protection.sequence.get(slot).copied().unwrap_or(MAX_SUBMISSIONS);
        // GUARD: session-budget -> submissions_above_the_budget_are_not_sent
        if last >= MAX_SUBMISSIONS {
            return Err(SessionError::Budget.into());
        }
        let sequence = last + 1;
        let input = u32::try_from(plaintext.len() + TAG).unwrap_or(u32::MAX);
        let lengths = Lengths { input, output: out_cap };
        let Some(reserved) = self.driver.reserve(queue, opcode, self.id, sequence, lengths)? else {
            return Ok(None);
        };
        // From here on the number is used, whatever happens: a nonce never seals two inputs.
        self.protection.sequence.iter_mut().skip(slot).take(1).for_each(|last| *last = sequence);
        let entry = reserved.entry.encode();
        let sealed = self.protection.seal(queue, sequence, &entry, plaintext)?;
        let mut hash = Context::new(&SHA256);
        hash.update(&entry);
        hash.update(&sealed);
        let mut submission_hash = [0; 32];
        submission_hash.copy_from_slice(hash.finish().as_ref());
        self.driver.launch(&reserved, &sealed)?;
        Ok(Some(Submitted { ticket: reserved.ticket, opcode, hash: submission_hash, sequence }))
    }

    /// The authentic answer to a command that finished. Anything else ends the session and resets the controller.
    pub(crate) fn answer(&mut self, submitted: &Submitted, finished: &Finished) -> Result<Answer, ChipError> {
        let answer = self.protection.open(submitted, finished).map_err(|e| self.end(e))?;
        match finished.status {
            Status::Ok => Ok(answer),
            status => {
                let (command, detail) = (submitted.opcode, finished.completion.detail);
                Err(ChipError::Refused { command, status, detail })
            }
        }
    }

    /// A control command and its authentic answer.
    pub(crate) fn call(
        &mut self,
        opcode: Opcode,
        plaintext: &[u8],
        out_cap: u32,
    ) -> Result<Answer, ChipError> {
        let submitted = self.submit(QUEUE_CONTROL, opcode, plaintext, out_cap)?.ok_or(DeviceError::Down)?;
        let waited = self.driver.wait(QUEUE_CONTROL, Some(submitted.ticket), opcode.name());
        let (_, finished) = waited.map_err(|e| self.end(e))?;
        self.answer(&submitted, &finished)
    }

    /// Ends the session after a fault.
    pub(crate) fn end(&mut self, error: ChipError) -> ChipError {
        self.ended = true;
        self.driver.fault(error)
    }
}

/// `u32(queue) ‖ u64(number)`.
pub(crate) fn nonce(word: u32, number: u64) -> Nonce {
    let [a, b, c, d] = word.to_le_bytes();
    let [e, f, g, h, i, j, k, l] = number.to_le_bytes();
    Nonce::assume_unique_for_key([a, b, c, d, e, f, g, h, i, j, k, l])
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("len", &self.output.len()).finish()
    }
}
