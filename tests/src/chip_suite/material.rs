//! What the cases unseal.

use crate::layout::{ARTIFACT, GRANT, Layout};
use chip_client::abi::{DataPath, InsecureFlags};
use chip_client::chain::{ChipIdentity, TrustRoot};
use chip_client::driver::Driver;
use chip_client::session::{ExpectedChip, Presented, Requirement, Session, SuiteRequirement, UnwrapRequest};
use chip_client::unseal::{Handle, UnsealJob};
use protected_memory::dma::SharedMemoryProvider;
use sealed_artifact::core::Core;
use sealed_artifact::grant::Grant;
use sealed_artifact::names::PayloadIndex;
use serde_json::Value;
use std::path::Path;

/// An artifact of one payload, with a grant for the chip.
#[derive(Debug)]
pub struct Material {
    /// Root of the chips.
    pub root: TrustRoot,
    /// The core.
    pub core: Core,
    /// The payload's tag table.
    pub tags: Vec<u8>,
    /// The payload's ciphertext.
    pub ciphertext: Vec<u8>,
    /// What was sealed.
    pub plaintext: Vec<u8>,
    grants: Vec<Grant>,
}

impl Material {
    /// Reads an OCI layout, and beside it what it was made of.
    pub fn read(root: &Path, store: &Path, plaintext: &Path) -> anyhow::Result<Self> {
        let layout = Layout::at(store);
        let grants = layout.descriptors(GRANT).into_iter().map(|descriptor| {
            let manifest: Value = layout.json(&descriptor);
            Grant::parse(&layout.blob(&manifest["layers"][0]))
        });
        Ok(Self {
            root: TrustRoot::from_trusted(&std::fs::read(root)?)?,
            core: Core::parse(&layout.blob(&layout.manifest(ARTIFACT)["config"]))?,
            tags: std::fs::read(layout.tags(0))?,
            ciphertext: std::fs::read(layout.payload(0))?,
            plaintext: std::fs::read(plaintext)?,
            grants: grants.collect::<Result<_, _>>()?,
        })
    }

    /// A session on a data path in which the grant's policy was presented.
    pub fn session<'d>(&self, driver: &'d mut Driver, path: DataPath) -> Session<'d, Presented> {
        let chain = driver.chain().expect("the chip's certificates");
        let identity = ChipIdentity::verify(&self.root, &chain).expect("a chip below the root");
        let guest = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE);
        let dma = if path == DataPath::DmaDirect { InsecureFlags::EMULATED_DMA } else { InsecureFlags::NONE };
        let requirement = Requirement {
            root: &self.root,
            chip: ExpectedChip::Exactly(identity.id()),
            path,
            suite: SuiteRequirement::Hybrid,
            guest_insecure: guest.union(dma),
            accepted_insecure: guest.union(InsecureFlags::EMULATED_CHIP).union(InsecureFlags::EMULATED_DMA),
        };
        let session = Session::open(driver, &requirement).expect("a session");
        let grant = self.grant(&identity);
        session.present(grant.preimage(), |_| Ok(Vec::new())).expect("the policy is presented")
    }

    /// The request that opens the grant for the chip at the other end.
    pub fn request(&self, session: &Session<'_, Presented>) -> UnwrapRequest<'_> {
        UnwrapRequest::new(&self.core, self.grant(&session.agreement().chip), None)
    }

    /// The job that unseals the payload.
    pub fn job(&self, handle: Handle) -> UnsealJob<'_> {
        UnsealJob {
            handle,
            core: &self.core,
            payload: PayloadIndex::new(0),
            tag_table: &self.tags,
            staging: SharedMemoryProvider::Emulated,
        }
    }

    /// Ciphertext as a job reads it.
    pub fn read_at(&self, offset: u64, to: &mut [u8]) {
        let start = usize::try_from(offset).expect("an offset of memory");
        to.copy_from_slice(&self.ciphertext[start..start + to.len()]);
    }

    fn grant(&self, chip: &ChipIdentity) -> &Grant {
        let mut fitting =
            self.grants.iter().filter(|grant| grant.recipient().as_bytes() == chip.id().as_bytes());
        fitting.next().expect("a grant for this chip")
    }
}
