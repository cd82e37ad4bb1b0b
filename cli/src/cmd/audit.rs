//! `innerkeep audit`: what a guest decided, read outside it.

mod agent;
mod explain;
mod follow;
mod saved;
mod tell;
mod verify;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy_engine::audit::{AuditError, Frame, OperatorSecret, OperatorSuite, Story};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::args::audit::{AuditCommand, SourceArgs};
use crate::error::Failure;
use crate::files;
use crate::output::{Output, Report};
use agent::{Address, Connection};

/// Largest file of an operator's key in bytes.
const MAXIMUM_KEY_FILE: u64 = 4096;

/// Runs the command; nothing is to be said where everything was said already.
pub(crate) fn run(command: &AuditCommand, output: Output) -> Result<Option<Report>, Failure> {
    match command {
        AuditCommand::Show(source) => show(source).map(Some),
        AuditCommand::Follow(arguments) => follow::run(arguments, output).map(|()| None),
        AuditCommand::Verify(arguments) => verify::run(arguments, output).map(Some),
        AuditCommand::Explain { source, trace } => {
            let story = story(source)?;
            Ok(Some(explain::report(&story, trace.as_deref())))
        }
    }
}

fn show(source: &SourceArgs) -> Result<Report, Failure> {
    let story = story(source)?;
    let parts: Vec<Value> = story.told().iter().map(tell::facts).collect();
    let mut lines: Vec<String> = story.told().iter().map(tell::line).collect();
    let unsigned = story.require_signed(&[]).err();
    if let Some(error) = &unsigned {
        lines.push(format!("WARNING: {error}"));
    }
    lines.push("evidence was not looked at: `audit verify` does".to_owned());
    Ok(Report {
        json: json!({ "genesis_digest": hex::encode(story.genesis_digest()), "records": parts, "signed": unsigned.is_none() }),
        text: lines.join("\n"),
    })
}

/// What a file of saved records says.
pub(super) fn saved_story(path: &Path, key: Option<&Path>) -> Result<Story, Failure> {
    let key = key.map(read_key).transpose()?;
    Ok(Story::read(&saved::read(path)?, key.as_ref())?)
}

/// What frames from a file, from an agent, or from both say.
fn story(source: &SourceArgs) -> Result<Story, Failure> {
    let key = source.key.as_deref().map(read_key).transpose()?;
    Ok(Story::read(&gathered(source)?, key.as_ref())?)
}

fn gathered(source: &SourceArgs) -> Result<Vec<Frame>, Failure> {
    let mut frames = source.saved.as_deref().map_or_else(|| Ok(Vec::new()), saved::read)?;
    let Some(address) = Address::parse(&source.source)? else {
        frames.extend(saved::read(Path::new(&source.source))?);
        return Ok(frames);
    };
    let connection = Connection::open(&address, source.timeout)?;
    read_on(&connection, &mut frames)?;
    Ok(frames)
}

/// Reads records until there are no more.
fn read_on(connection: &Connection, frames: &mut Vec<Frame>) -> Result<(), Failure> {
    let mut taken = 0;
    loop {
        let (bytes, more) = connection.read(saved::next(frames))?;
        taken += bytes.len();
        if more.is_empty() {
            return Ok(());
        }
        if taken > saved::MAXIMUM {
            return Err(Failure::Service {
                code: "AUDIT_TOO_LONG",
                found: "more records than fit in a file".to_owned(),
            });
        }
        let before = saved::next(frames);
        frames.extend(more);
        // Whoever answers with what was there already would be asked for ever.
        if saved::next(frames) <= before {
            return Ok(());
        }
    }
}

/// A nonce of the command line.
fn nonce(text: Option<&str>) -> Result<Option<Vec<u8>>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let decoded = hex::decode(text).ok().filter(|nonce| (16..=64).contains(&nonce.len()));
    decoded.map(Some).ok_or_else(|| Failure::Usage {
        argument: "--nonce",
        expected: "16 to 64 bytes in hex",
        found: text.to_owned(),
    })
}

fn random() -> Result<Vec<u8>, Failure> {
    let mut nonce = vec![0; 32];
    getrandom::fill(&mut nonce).map_err(|_| AuditError::Random)?;
    Ok(nonce)
}

/// Makes an operator's key: the secret, and `audit.toml` of initdata.
pub(crate) fn new_key(output: &Path, suite: OperatorSuite) -> Result<Report, Failure> {
    let key = OperatorSecret::generate(suite)?;
    let public = STANDARD.encode(key.public_bytes());
    let name = suite_name(suite);
    let secret = Zeroizing::new(STANDARD.encode(key.expose_bytes().as_slice()));
    let text = Zeroizing::new(format!("{{\"secret\":\"{}\",\"suite\":\"{name}\"}}\n", secret.as_str()));
    let mut public_path = output.as_os_str().to_owned();
    public_path.push(".toml");
    let public_path = PathBuf::from(public_path);
    files::create("write the operator's key", output, 0o600, text.as_bytes())?;
    let toml = format!("suite = \"{name}\"\nkey = \"{public}\"\n");
    files::create("write the public key", &public_path, 0o644, toml.as_bytes())?;
    let id = hex::encode(key.id().key);
    Ok(Report {
        json: json!({ "secret": output, "public": public_path, "suite": name, "id": id }),
        text: format!(
            "secret  {}\npublic  {} (audit.toml of initdata)\nid      {id}",
            output.display(),
            public_path.display()
        ),
    })
}

const fn suite_name(suite: OperatorSuite) -> &'static str {
    match suite {
        OperatorSuite::P384 => "p-384",
        OperatorSuite::XWing => "x-wing",
    }
}

fn read_key(path: &Path) -> Result<OperatorSecret, Failure> {
    let text = Zeroizing::new(files::read_text("read the operator's key", path, MAXIMUM_KEY_FILE)?);
    let unfit = || Failure::Input {
        path: path.to_owned(),
        expected: "an operator's key of `innerkeep key audit`",
        found: "another file".to_owned(),
    };
    let parsed: Value = serde_json::from_str(&text).map_err(|_| unfit())?;
    let member = |name: &str| parsed.get(name).and_then(Value::as_str).ok_or_else(unfit);
    let suite = match member("suite")? {
        "p-384" => OperatorSuite::P384,
        "x-wing" => OperatorSuite::XWing,
        _ => return Err(unfit()),
    };
    let secret = Zeroizing::new(STANDARD.decode(member("secret")?).map_err(|_| unfit())?);
    Ok(OperatorSecret::parse(suite, &secret)?)
}
