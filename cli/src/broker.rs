//! The key broker, as the command line names it.

use std::sync::Arc;
use std::time::Duration;

use attestation_agent::Attester;
use attestation_agent::binding::bound_initdata;
use attestation_agent::kbs::{
    BrokerTrust, ConfigFault, Hop, KbsClient, KbsError, KbsOptions, KbsUrl, PlainHttp, SpkiSha256, TeeKeyKind,
};
use attestation_agent::service::AttestationSource;
use cdh::Error;
use cdh::artifact::{Broker, BrokerAccess};

use crate::args::attest::{BrokerArgs, TeeKeyArg};
use crate::files;

/// Longest CA file in bytes.
const MAXIMUM_FILE: u64 = 256 * 1024;

/// The broker of the arguments. Nothing is sent yet.
pub(crate) fn open(arguments: &BrokerArgs, attester: Arc<Attester>) -> Result<Broker, Error> {
    let url = arguments.url.as_deref().ok_or(Error::Usage {
        argument: "--kbs",
        expected: "the URL of a key broker",
        found: String::new(),
    })?;
    let options = KbsOptions {
        key: key(arguments.key),
        plain_http: if arguments.insecure_plain_http { PlainHttp::Insecure } else { PlainHttp::LoopbackOnly },
        ..KbsOptions::new(KbsUrl::parse(url).map_err(setup)?, trust(arguments)?)
    };
    let initdata = arguments.initdata.as_deref().map(|path| bound_initdata(&attester, path)).transpose()?;
    let source = AttestationSource::new(attester, initdata);
    let client = KbsClient::background_check(&options, Arc::new(source))?;
    Broker::new(client, Duration::from_secs(arguments.timeout))
}

/// The broker of the arguments, for when it is needed.
pub(crate) struct Named(pub(crate) BrokerArgs);

impl BrokerAccess for Named {
    fn connect(&self, attester: Arc<Attester>) -> Result<Broker, Error> {
        open(&self.0, attester)
    }
}

fn key(argument: TeeKeyArg) -> TeeKeyKind {
    match argument {
        TeeKeyArg::P256 => TeeKeyKind::EcP256,
        TeeKeyArg::P521 => TeeKeyKind::EcP521,
        TeeKeyArg::Rsa => TeeKeyKind::Rsa2048,
        TeeKeyArg::MlKem768 => TeeKeyKind::MlKem768,
    }
}

fn trust(arguments: &BrokerArgs) -> Result<Option<BrokerTrust>, Error> {
    let ca = arguments
        .ca
        .as_deref()
        .map(|path| files::read_text("read the broker's CA", path, MAXIMUM_FILE))
        .transpose()?;
    let pins = arguments.spki.iter().map(|text| pin(text)).collect::<Result<Vec<_>, _>>()?;
    if ca.is_none() && pins.is_empty() {
        return Ok(None);
    }
    Ok(Some(BrokerTrust::new(ca.as_deref(), &pins).map_err(setup)?))
}

fn pin(text: &str) -> Result<SpkiSha256, Error> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Error::Usage {
        argument: "--kbs-spki",
        expected: "64 hex digits",
        found: text.to_owned(),
    })
}

fn setup(fault: ConfigFault) -> Error {
    KbsError::new(Hop::Setup, fault).into()
}
