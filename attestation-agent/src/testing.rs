//! A platform for tests: quotes in the real format by an emulated platform, registers in memory, and faults.

use std::path::Path;
use std::sync::{Arc, Mutex};

use evidence::Octets;
use evidence::abi::tdx::TdBody;
use evidence::mint::tdx::{SEPT_VE_DISABLE, TdxPlatform};
use evidence::verify::replay;

use crate::attester::Attester;
use crate::error::TeeError;
use crate::provider::{InitdataRegister, LogIndex, Provider, RuntimeRegisters};
use crate::received::Evidence;
use crate::report_data::ReportData;
use crate::root::TeeRoot;
use crate::tee::Tee;

pub(crate) const ISSUED: u64 = 1_790_000_000;

/// What a test sees and decides of the platform.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Report data that quotes were made for.
    pub(crate) asked: Vec<ReportData>,
    /// RTMR 0 to 3.
    pub(crate) rtmr: [Octets<48>; 4],
    /// MRCONFIGID.
    pub(crate) config_id: Octets<48>,
    /// Registers in quotes, instead of the real ones.
    pub(crate) lie: Option<[Octets<48>; 4]>,
    /// Extensions do nothing.
    pub(crate) stuck: bool,
    /// Extensions fail.
    pub(crate) broken: bool,
}

/// A TDX guest in memory.
#[derive(Clone, Debug)]
pub(crate) struct FakeTdx {
    pub(crate) state: Arc<Mutex<State>>,
    platform: Arc<TdxPlatform>,
}

impl FakeTdx {
    pub(crate) fn new() -> Self {
        let platform = TdxPlatform::new("tests", ISSUED, ISSUED + 2_000_000).unwrap();
        Self { state: Arc::default(), platform: Arc::new(platform) }
    }

    /// This platform with its run directory below `root`.
    pub(crate) fn attester(&self, root: &Path) -> Attester {
        Attester::with_provider(Box::new(self.clone()), &TeeRoot::insecure(root))
    }

    /// The collateral file of this platform.
    pub(crate) fn collateral(&self) -> String {
        self.platform.collateral().unwrap().encode()
    }

    /// A quote in bytes, with what the platform is told to say.
    pub(crate) fn quote(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let body = TdBody {
            td_attributes: SEPT_VE_DISABLE,
            mr_config_id: state.config_id,
            rtmr: state.lie.unwrap_or(state.rtmr),
            report_data: Octets(*report_data),
            ..TdBody::default()
        };
        self.platform.quote(body).unwrap().encode()
    }
}

impl Provider for FakeTdx {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn evidence(&self, report_data: &ReportData) -> Result<Evidence, TeeError> {
        self.state.lock().unwrap().asked.push(*report_data);
        Evidence::tdx(&self.quote(report_data.as_bytes()), report_data)
    }

    fn initdata_register(&self) -> Result<Option<InitdataRegister>, TeeError> {
        let value = self.state.lock().unwrap().config_id.0.to_vec();
        Ok(Some(InitdataRegister { name: "MRCONFIGID", value }))
    }

    fn runtime_registers(&self) -> Option<&dyn RuntimeRegisters> {
        Some(self)
    }
}

impl RuntimeRegisters for FakeTdx {
    fn read(&self, register: LogIndex) -> Result<Octets<48>, TeeError> {
        let index = usize::try_from(register.rtmr()).unwrap();
        Ok(self.state.lock().unwrap().rtmr[index])
    }

    fn extend(&self, register: LogIndex, digest: &Octets<48>) -> Result<(), TeeError> {
        let mut state = self.state.lock().unwrap();
        if state.broken {
            return Err(TeeError::Unsupported { what: "extension", platform: "a broken test platform" });
        }
        if !state.stuck {
            let index = usize::try_from(register.rtmr()).unwrap();
            state.rtmr[index] = replay::extend(&state.rtmr[index], &digest.0);
        }
        Ok(())
    }

    fn can_extend(&self) -> bool {
        true
    }
}
