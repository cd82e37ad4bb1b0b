//! IDENTIFY, CHAIN, PROVISION (interface spec §6.3–§6.5).

use chip_client::abi::{
    CertificateList, DataPath, IdentityFlags, IdentityRecord, Provision, SessionSuites, Status,
};
use sealed_artifact::names::EnvironmentTag;
use zeroize::Zeroizing;

use super::{Failure, Firmware, Output};
use crate::identity::{LeafExpectation, Minimums, Provisioned, verify_provisioning};

/// All data paths.
pub(crate) const PATHS: u16 =
    DataPath::KeyRelease.as_u16() | DataPath::DmaDirect.as_u16() | DataPath::DmaSealed.as_u16();

impl Firmware {
    pub(super) fn identify(&self) -> Output {
        let nvm = self.nvm();
        let mut flags = IdentityFlags::EMULATED;
        for (condition, flag) in [
            (nvm.provisioned().is_some(), IdentityFlags::PROVISIONED),
            (self.modes.no_evidence, IdentityFlags::NO_EVIDENCE),
            (self.modes.emulated_dma, IdentityFlags::EMULATED_DMA),
            (self.roots.are_emulated(), IdentityFlags::EMULATED_TEE),
        ] {
            if condition {
                flags |= flag;
            }
        }
        let record = IdentityRecord {
            flags: IdentityFlags(flags),
            id: self.keys.id(),
            key_epoch: self.keys.epoch(),
            environment: nvm.provisioned().map(|p| p.environment.clone()).unwrap_or_default(),
            signing_spki: self.keys.signing_spki().to_vec(),
            noise: *self.keys.noise_public(),
            p384: *self.keys.grant_p384().1,
            x_wing: Box::new(*self.keys.grant_x_wing().1),
            suites: SessionSuites::ALL,
            paths: PATHS,
        };
        Ok(Zeroizing::new(record.encode()))
    }

    /// Model CA and chip.
    pub(crate) fn certificates(&self) -> Result<CertificateList, Failure> {
        let nvm = self.nvm();
        let provisioned = nvm.provisioned().ok_or(Status::NotProvisioned)?;
        Ok(CertificateList { model: provisioned.model.clone(), chip: provisioned.chip.clone() })
    }

    pub(super) fn chain(&self) -> Output {
        Ok(Zeroizing::new(self.certificates()?.encode()))
    }

    pub(super) fn provision(&self, input: &[u8]) -> Output {
        let mut nvm = self.nvm();
        // GUARD: provision-once -> evil_second_provisioning_is_refused
        if nvm.provisioned().is_some() {
            return Err(Status::AlreadyProvisioned.into());
        }
        let body = Provision::parse(input)?;
        if EnvironmentTag::parse(&body.environment).is_err() || body.key_epoch != self.keys.epoch() {
            return Err(Status::BadField.into());
        }
        let expectation = LeafExpectation { keys: &self.keys, environment: &body.environment };
        let CertificateList { model, chip } = body.certificates;
        if let Err(refused) = verify_provisioning(&body.root, &model, &chip, expectation) {
            crate::log::note(&format!("provisioning refused: {refused}"));
            return Err(Status::BadField.into());
        }
        let minimums = Minimums {
            tcb_evaluation: body.min_tcb_evaluation,
            pck_crl: body.min_pck_crl,
            root_crl: body.min_root_crl,
            snp_crl: body.min_snp_crl,
        };
        let provisioned = Provisioned { environment: body.environment, model, chip, root: body.root };
        nvm.provision(provisioned, minimums).map_err(|error| {
            crate::log::note(&error.to_string());
            Failure::from(Status::Internal)
        })?;
        Ok(Zeroizing::default())
    }
}
