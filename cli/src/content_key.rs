//! The content key file: what `seal` hands to `grant add`. Three lines of text, mode 0600.
//!
//! ```text
//! innerkeep content key v1
//! core sha256:…
//! key …64 hex digits…
//! ```

use std::path::Path;

use sealed_artifact::core::Core;
use sealed_artifact::digest::CoreDigest;
use sealed_artifact::keys::ContentKey;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::files;

const TITLE: &str = "innerkeep content key v1";
const EXPECTED: &str = "a content key file that `innerkeep seal` wrote";

/// Writes the key of a core to a new file.
pub(crate) fn write(path: &Path, core: CoreDigest, key: &ContentKey) -> Result<(), Failure> {
    let hex = Zeroizing::new(hex::encode(key.expose_bytes()));
    let text = Zeroizing::new(format!("{TITLE}\ncore {core}\nkey {}\n", hex.as_str()));
    Ok(files::create("write the content key", path, 0o600, text.as_bytes())?)
}

/// Reads the key of a core.
pub(crate) fn read(path: &Path, core: &Core) -> Result<ContentKey, Failure> {
    let text = Zeroizing::new(files::read_text("read the content key", path, 1024)?);
    let unfit =
        |found: &str| Failure::Input { path: path.to_owned(), expected: EXPECTED, found: found.to_owned() };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(unfit("another first line"));
    }
    let digest =
        lines.next().and_then(|line| line.strip_prefix("core ")).ok_or_else(|| unfit("no core line"))?;
    if CoreDigest::parse(digest)? != core.digest() {
        return Err(unfit("the key of another core"));
    }
    let hex = lines.next().and_then(|line| line.strip_prefix("key ")).ok_or_else(|| unfit("no key line"))?;
    let bytes = Zeroizing::new(hex::decode(hex).map_err(|_| unfit("a key that is not hex"))?);
    if lines.next().is_some() {
        return Err(unfit("more lines"));
    }
    Ok(ContentKey::from_bytes(&bytes)?)
}
