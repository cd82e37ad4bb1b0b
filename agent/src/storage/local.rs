//! `local`: a directory of the guest's own, for as long as the sandbox lives.

use rustix::fs::{Gid, Mode, fchmod, fchown, fstat};

use super::StorageError;
use super::options::mode;
use super::request::Request;
use super::steps::Steps;

const SET_GROUP: u32 = 0o2000;
const KEYS: [&str; 1] = ["mode"];

pub(super) async fn make(request: &Request, steps: &mut Steps) -> Result<(), StorageError> {
    request.expect_type("local", &["", "local"], "local")?;
    request.options.only(&KEYS, "mode and fsgid")?;
    let values = request.options.values.iter().rev().find(|(key, _)| key == "mode");
    let mode = values.map(|(_, value)| mode(value)).transpose()?;
    let request = request.clone();
    let work = move |steps: &mut Steps| {
        let directory = steps.make_directory(&request.place)?;
        let failed = StorageError::errno("set up", &request.place.on_the_wire());
        let set_up = || {
            if let Some(mode) = mode {
                fchmod(&directory, Mode::from_raw_mode(mode))?;
            }
            if let Some(group) = request.directory_group {
                fchown(&directory, None, Some(Gid::from_raw(group)))?;
                let found = fstat(&directory)?.st_mode & 0o7777;
                fchmod(&directory, Mode::from_raw_mode(found | SET_GROUP))?;
            }
            Ok(())
        };
        set_up().map_err(failed)
    };
    steps.blocking(work).await
}
