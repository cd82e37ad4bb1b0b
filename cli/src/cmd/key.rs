//! `innerkeep key`: sealer keys, operators' keys.

use std::path::Path;

use sealed_artifact::signature::{SealerPublicKey, SealerSigningKey};
use serde_json::json;
use zeroize::Zeroizing;

use policy_engine::audit::OperatorSuite;

use crate::args::{KeyCommand, SuiteArg};
use crate::cmd::audit;
use crate::error::Failure;
use crate::files;
use crate::output::Report;

/// Largest key file in bytes.
const MAXIMUM_KEY_FILE: u64 = 16_384;

/// Runs the command.
pub(crate) fn run(command: &KeyCommand) -> Result<Report, Failure> {
    match command {
        KeyCommand::New { output } => new(output),
        KeyCommand::Audit { output, suite } => audit::new_key(
            output,
            match suite {
                SuiteArg::Classical => OperatorSuite::P384,
                SuiteArg::Hybrid => OperatorSuite::XWing,
            },
        ),
        KeyCommand::Show { file } => show(file),
    }
}

fn new(output: &Path) -> Result<Report, Failure> {
    let key = SealerSigningKey::generate()?;
    let public = key.public_key();
    let mut public_path = output.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = Path::new(&public_path);
    files::create("write the private key", output, 0o600, key.to_pem()?.as_bytes())?;
    files::create("write the public key", public_path, 0o644, public.to_pem().as_bytes())?;
    Ok(Report {
        json: json!({ "private": output, "public": public_path, "digest": public.digest().to_string() }),
        text: format!(
            "private  {}\npublic   {}\ndigest   {}",
            output.display(),
            public_path.display(),
            public.digest()
        ),
    })
}

fn show(file: &Path) -> Result<Report, Failure> {
    let text = Zeroizing::new(files::read_text("read the key", file, MAXIMUM_KEY_FILE)?);
    let (kind, public) = match SealerPublicKey::from_pem(&text) {
        Ok(public) => ("public", public),
        Err(_) => ("private", SealerSigningKey::from_pem(&text)?.public_key()),
    };
    Ok(Report {
        json: json!({ "kind": kind, "digest": public.digest().to_string(), "public_pem": public.to_pem() }),
        text: format!("kind    {kind}\ndigest  {}\n{}", public.digest(), public.to_pem().trim_end()),
    })
}

/// Reads a sealer's private key.
pub(crate) fn read_private(path: &Path) -> Result<SealerSigningKey, Failure> {
    let text = Zeroizing::new(files::read_text("read the sealer's private key", path, MAXIMUM_KEY_FILE)?);
    Ok(SealerSigningKey::from_pem(&text)?)
}

/// Reads a sealer's public key.
pub(crate) fn read_public(path: &Path) -> Result<SealerPublicKey, Failure> {
    let text = files::read_text("read the sealer's public key", path, MAXIMUM_KEY_FILE)?;
    Ok(SealerPublicKey::from_pem(&text)?)
}
