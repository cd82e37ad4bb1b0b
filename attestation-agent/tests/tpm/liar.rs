//! Who sits between a guest and its TPM: reads everything, answers what it likes.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use attestation_agent::tpm::{Tpm, TpmLocation};
use tempfile::TempDir;

use crate::swtpm::{Swtpm, message};

/// What the guest gets.
pub enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// These bytes, then the end.
    Last(Vec<u8>),
    /// Nothing, for ever.
    Silence,
}

/// A socket in front of a TPM.
pub struct Liar {
    directory: TempDir,
    traffic: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Liar {
    /// `lie` gets the code of each command, how often that command came before, and the TPM's true response.
    pub fn before(
        swtpm: &Swtpm,
        mut lie: impl FnMut(u32, usize, Vec<u8>) -> Answer + Send + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("tpm")).unwrap();
        let traffic = Arc::new(Mutex::new(Vec::new()));
        let (tpm, seen) = (swtpm.socket(), Arc::clone(&traffic));
        thread::spawn(move || {
            let mut counts = std::collections::HashMap::new();
            for guest in listener.incoming() {
                let mut guest = guest.unwrap();
                serve(&mut guest, &tpm, &seen, &mut |code, response| {
                    let count = counts.entry(code).or_insert(0);
                    *count += 1;
                    lie(code, *count - 1, response)
                });
            }
        });
        Self { directory, traffic }
    }

    /// Only listens.
    pub fn listening(swtpm: &Swtpm) -> Self {
        Self::before(swtpm, |_, _, response| Answer::Bytes(response))
    }

    /// The TPM as the guest sees it.
    pub fn tpm(&self) -> Tpm {
        Tpm::new(TpmLocation::danger_socket(self.directory.path().join("tpm")))
            .with_deadline(Duration::from_secs(20))
    }

    /// Everything that went over the bus.
    pub fn traffic(&self) -> Vec<Vec<u8>> {
        self.traffic.lock().unwrap().clone()
    }

    /// Codes of all commands so far.
    pub fn commands(&self) -> Vec<u32> {
        self.traffic()
            .iter()
            .filter(|message| message[6..8] == [0; 2] && message[8] == 1)
            .map(|m| code(m))
            .collect()
    }
}

fn serve(
    guest: &mut UnixStream,
    tpm: &PathBuf,
    seen: &Mutex<Vec<Vec<u8>>>,
    lie: &mut dyn FnMut(u32, Vec<u8>) -> Answer,
) {
    let mut tpm = UnixStream::connect(tpm).unwrap();
    while let Some(command) = message(guest) {
        seen.lock().unwrap().push(command.clone());
        tpm.write_all(&command).unwrap();
        let Some(response) = message(&mut tpm) else { return };
        seen.lock().unwrap().push(response.clone());
        match lie(code(&command), response) {
            Answer::Bytes(bytes) => {
                let _ = guest.write_all(&bytes);
            }
            Answer::Last(bytes) => {
                let _ = guest.write_all(&bytes);
                return;
            }
            Answer::Silence => {}
        }
    }
}

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}
