//! A volume that is open: what was done for it, and how that is undone.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::ext4::{self, Helper};
use super::luks2::{self, DATA_OFFSET, HEADER_BYTES};
use super::place::{self, Attached};
use super::request::{Order, Source, Target};
use super::seal::{Opener, SEAL_BYTES, Seal, SealKey, digest_of};
use super::stack::{self, Stack, exclusively};
use super::{VolumeError, device};
use crate::dm::{BlockDevice, IntegrityMode, IntegrityParameters, SECTOR_BYTES, random_bytes};
use crate::plaintext::Plaintext;

/// Smaller devices have no room for a journal and a file system.
const SMALLEST_BYTES: u64 = 8 << 20;
/// How long a mark has to stay before it counts: who read the seal before it was there has written its own by then.
const SETTLE: Duration = Duration::from_secs(1);

/// Where the machine is.
pub(super) struct Site {
    pub(super) sys: PathBuf,
    pub(super) dev: PathBuf,
    pub(super) helper: Box<dyn Helper>,
}

/// What bound configuration allows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Permission {
    /// A mark of somebody who did not close it does not count.
    pub(super) unclean: bool,
}

/// An open volume. Dropped, it is closed, as far as that goes.
pub(super) struct Opened {
    attached: Vec<Attached>,
    stack: Option<Stack>,
    mark: Option<Mark>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// A mark that has to be taken off.
struct Mark {
    device: BlockDevice,
    header: Vec<u8>,
    key: SealKey,
    opener: Opener,
}

/// Opens a volume, or leaves nothing.
pub(super) fn open(
    site: &Site,
    order: &Order,
    key: Option<&Plaintext>,
    permission: Permission,
) -> Result<Opened, VolumeError> {
    let mut opened = Opened { attached: Vec::new(), stack: None, mark: None };
    match opened.make(site, order, key.map(Plaintext::expose), permission) {
        Ok(()) => Ok(opened),
        Err(error) => Err(opened.undone_for(error)),
    }
}

impl Opened {
    fn make(
        &mut self,
        site: &Site,
        order: &Order,
        key: Option<&[u8]>,
        permission: Permission,
    ) -> Result<(), VolumeError> {
        // Before the disk is touched: a place that is refused costs nobody a volume.
        let target = match order.target {
            Target::FileSystem => Some(place::empty_directory(&order.place)?),
            Target::Device => None,
        };
        let device = device::find(&order.device, &site.sys, &site.dev)?;
        let name = order.mapper_name.as_deref();
        let mut file = exclusively(&device, !order.read_only)?;
        let size = file.seek(SeekFrom::End(0)).map_err(VolumeError::io("measure", &device.node))?;
        if size < SMALLEST_BYTES {
            return Err(VolumeError::Size { least: SMALLEST_BYTES, found: size });
        }
        match (&order.source, key) {
            (Source::Empty(None), _) => {
                drop(file);
                self.stack = Some(stack::ephemeral(&site.dev, &device, name)?);
                self.make_file_system(site, order, false)?;
            }
            (Source::Empty(Some(_)), Some(key)) => self.create(site, order, &device, file, key)?,
            (Source::Encrypted(_), Some(key)) => {
                self.unlock(site, order, &device, file, key, permission)?;
            }
            (_, None) => return Err(VolumeError::Key { expected: "one" }),
        }
        self.attach(site, order, target.as_ref())
    }

    /// A new volume of a key.
    fn create(
        &mut self,
        site: &Site,
        order: &Order,
        device: &BlockDevice,
        file: File,
        key: &[u8],
    ) -> Result<(), VolumeError> {
        let seal_key = SealKey::of(key);
        let (before, seal) = read(&file, device)?;
        // GUARD: volume-not-formatted-twice -> evil_host_volume_formatted_again
        if Seal::decode(&seal, &before, &seal_key).is_ok() {
            return Err(VolumeError::Exists);
        }
        let (header, volume_key) = luks2::create(key)?;
        let written = file.write_all_at(&header, 0).and_then(|()| file.sync_all());
        written.map_err(VolumeError::io("write the header of", &device.node))?;
        drop(file);
        let offset = u64::try_from(DATA_OFFSET).unwrap_or_default();
        let name = order.mapper_name.as_deref();
        let stack = Stack::create(&site.dev, device, offset, &volume_key, name)?;
        let sectors = stack.sectors();
        self.stack = Some(stack);
        self.make_file_system(site, order, true)?;
        let opener = opener(device)?;
        let seal = Seal { header: digest_of(&header), sectors, generation: 1, opener: Some(opener) };
        write_seal(device, &seal, &seal_key)?;
        self.mark = Some(Mark { device: device.clone(), header, key: seal_key, opener });
        Ok(())
    }

    /// A volume that is there.
    fn unlock(
        &mut self,
        site: &Site,
        order: &Order,
        device: &BlockDevice,
        file: File,
        key: &[u8],
        permission: Permission,
    ) -> Result<(), VolumeError> {
        let seal_key = SealKey::of(key);
        // Read once: what is verified is what is used.
        let (header, bytes) = read(&file, device)?;
        let seal = Seal::decode(&bytes, &header, &seal_key)?;
        // GUARD: volume-marked -> evil_second_pod_opens_what_another_writes
        if seal.opener.is_some() && !permission.unclean {
            return Err(VolumeError::InUse);
        }
        let volume_key = luks2::open(&header, key)?;
        let mode = if order.read_only { IntegrityMode::ReadOnly } else { IntegrityMode::Journal };
        let sectors = seal.sectors;
        if !order.read_only {
            let opener = opener(device)?;
            let marked = Seal { generation: seal.generation.saturating_add(1), opener: Some(opener), ..seal };
            write_seal(device, &marked, &seal_key)?;
            self.mark = Some(Mark { device: device.clone(), header, key: seal_key, opener });
            sleep(SETTLE);
            if !self.mark.as_ref().map_or(Ok(true), Mark::is_there)? {
                // Another one's now.
                self.mark = None;
                return Err(VolumeError::InUse);
            }
        }
        drop(file);
        let start_sector = u64::try_from(DATA_OFFSET).unwrap_or_default() / SECTOR_BYTES;
        let parameters = IntegrityParameters { start_sector, sectors, mode };
        let name = order.mapper_name.as_deref();
        self.stack = Some(Stack::open(&site.dev, device, &parameters, &volume_key, name)?);
        Ok(())
    }

    fn make_file_system(&self, site: &Site, order: &Order, is_opened_again: bool) -> Result<(), VolumeError> {
        let Some(stack) = self.stack.as_ref().filter(|_| order.target == Target::FileSystem) else {
            return Ok(());
        };
        ext4::prime(stack.node())?;
        site.helper.make_ext4(&order.ext4.arguments(is_opened_again), stack.node())
    }

    fn attach(
        &mut self,
        site: &Site,
        order: &Order,
        target: Option<&std::os::fd::OwnedFd>,
    ) -> Result<(), VolumeError> {
        let Some(stack) = &self.stack else { return Ok(()) };
        let node = stack.node().to_owned();
        if let Some(name) = &order.mapper_name {
            // Where upstream's device would be.
            self.attached.push(Attached::link(&node, &site.dev.join("mapper").join(name))?);
        }
        self.attached.push(match target {
            Some(target) => Attached::mount(&node, target, &order.place, order.read_only, order.no_programs)?,
            None => Attached::link(&node, &order.place)?,
        });
        Ok(())
    }

    /// Closes it, the last step first. What is in use stays as it is, and can be closed later.
    pub(super) fn close(&mut self) -> Result<(), VolumeError> {
        while let Some(last) = self.attached.last() {
            last.take_off()?;
            self.attached.pop();
        }
        if let Some(stack) = &mut self.stack {
            stack.remove()?;
        }
        self.stack = None;
        match self.mark.take() {
            Some(mark) => mark.take_off(),
            None => Ok(()),
        }
    }

    /// Undoes it, for this reason.
    pub(super) fn undone_for(mut self, cause: VolumeError) -> VolumeError {
        match self.close() {
            Ok(()) => cause,
            Err(source) => VolumeError::Rollback { cause: Box::new(cause), source: Box::new(source) },
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Who wants to know whether it worked calls `close`.
        let _ = self.close();
    }
}

impl Mark {
    fn seal(&self) -> Result<Seal, VolumeError> {
        let file = File::open(&self.device.node).map_err(VolumeError::io("open", &self.device.node))?;
        // What was read before may still be in memory.
        let dropped = fadvise(&file, 0, None, Advice::DontNeed);
        dropped.map_err(VolumeError::io("look again at", &self.device.node))?;
        let (_, seal) = read(&file, &self.device)?;
        Seal::decode(&seal, &self.header, &self.key)
    }

    fn is_there(&self) -> Result<bool, VolumeError> {
        Ok(self.seal()?.opener == Some(self.opener))
    }

    fn take_off(self) -> Result<(), VolumeError> {
        let seal = self.seal()?;
        if seal.opener != Some(self.opener) {
            return Err(VolumeError::InUse);
        }
        write_seal(&self.device, &Seal { opener: None, ..seal }, &self.key)
    }
}

fn opener(device: &BlockDevice) -> Result<Opener, VolumeError> {
    let mut opener = Opener::default();
    random_bytes(&mut opener).map_err(VolumeError::io("make a mark for", &device.node))?;
    Ok(opener)
}

/// What is before the data: header and seal.
fn read(file: &File, device: &BlockDevice) -> Result<(Vec<u8>, Vec<u8>), VolumeError> {
    let mut header = vec![0; DATA_OFFSET];
    file.read_exact_at(&mut header, 0).map_err(VolumeError::io("read the header of", &device.node))?;
    let seal = header.split_off(HEADER_BYTES);
    Ok((header, seal))
}

fn write_seal(device: &BlockDevice, seal: &Seal, key: &SealKey) -> Result<(), VolumeError> {
    let at = u64::try_from(DATA_OFFSET - SEAL_BYTES).unwrap_or_default();
    let written = OpenOptions::new().write(true).open(&device.node).and_then(|file| {
        file.write_all_at(&seal.encode(key), at)?;
        file.sync_all()
    });
    written.map_err(VolumeError::io("write the seal of", &device.node))
}

#[cfg(test)]
mod tests;
