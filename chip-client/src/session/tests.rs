//! A chip, or who stands in for it, that lies in the handshake and after it.

use std::sync::{Arc, Mutex};

use super::*;
use crate::abi::{Accept, Opcode, SealedReply, Status};
use crate::chain::ChipId;
use crate::testing::{Chip, FakeDevice, World, assert_code};
use sealed_artifact::grant::GrantSuite;

const GUEST: InsecureFlags = InsecureFlags::NO_TEE.union(InsecureFlags::NO_EVIDENCE);

fn requirement<'a>(world: &'a World) -> Requirement<'a> {
    Requirement {
        root: &world.root,
        chip: ExpectedChip::Exactly(world.id()),
        path: DataPath::KeyRelease,
        suite: SuiteRequirement::Hybrid,
        guest_insecure: GUEST,
        accepted_insecure: InsecureFlags::EMULATED_CHIP,
    }
}

fn unwrap_request(core: &[u8]) -> UnwrapRequest<'_> {
    UnwrapRequest {
        suite: GrantSuite::P384,
        key_epoch: 1,
        core,
        encapsulated: vec![1; 97],
        wrapped: vec![2; 48],
        sealer: None,
    }
}

fn no_evidence(_: &ReportData) -> Result<Vec<u8>, EvidenceFailure> {
    Ok(Vec::new())
}

fn device(world: &World, lie: impl FnOnce(&mut Chip)) -> FakeDevice {
    let mut chip = world.chip();
    lie(&mut chip);
    FakeDevice::new(chip)
}

#[test]
fn key_release_in_both_suites() {
    for suite in
        [SuiteRequirement::Hybrid, SuiteRequirement::ClassicalOnly, SuiteRequirement::AtLeastClassical]
    {
        let world = World::new();
        let device = device(&world, |_| {});
        let mut driver = device.driver();
        let requirement = Requirement { suite, ..requirement(&world) };
        for _ in 0..2 {
            let session = Session::open(&mut driver, &requirement).unwrap();
            assert_eq!(session.agreement().chip.id(), world.id());
            let mut session = session.present(b"policy", no_evidence).unwrap();
            let key = session.release_key(&unwrap_request(b"core")).unwrap();
            assert_eq!(key.expose_bytes(), &[0x42; 32]);
            assert_eq!(session.status().unwrap().submissions_left, 2);
            session.close().unwrap();
        }
    }
}

#[test]
fn evidence_gets_the_report_data_of_its_session() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let session = Session::open(&mut driver, &requirement(&world)).unwrap();
        let expected = session.report_data();
        let session = session.present(b"policy", |report_data| {
            seen.push(*report_data);
            Ok(vec![1; 1_000])
        });
        assert_eq!(session.unwrap().report_data(), expected);
    }
    for data in &seen {
        let form = [b"innerkeep chip session v1".as_slice(), data.transcript()].concat();
        let recomputed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, &form);
        assert_eq!(recomputed.as_ref(), data.as_bytes());
    }
    assert_ne!(seen[0], seen[1], "evidence of one session is not evidence of another");
}

#[test]
fn missing_evidence_is_not_sent() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = Requirement { guest_insecure: InsecureFlags::NO_TEE, ..requirement(&world) };
    let session = Session::open(&mut driver, &requirement).unwrap();
    assert_code(session.present(b"policy", no_evidence), "CHIP_EVIDENCE_MISSING");
    let session = Session::open(&mut driver, &requirement).unwrap();
    assert_code(session.present(b"policy", |_| Err("no TEE".into())), "CHIP_EVIDENCE_FAILED");
    let session = Session::open(&mut driver, &requirement).unwrap();
    assert_code(session.present(&[b'x'; 65_537], |_| Ok(vec![1])), "CHIP_INPUT_TOO_LARGE");
    assert!(!device.state().seen.contains(&Opcode::Present.as_u8()));
}

/// Runs a handshake with a lie in message 2; nothing after message 1 may be sent, and the controller is reset.
#[track_caller]
fn handshake_lie(
    lie: impl FnMut(&mut Accept) + Send + 'static,
    change: impl FnOnce(&mut Requirement<'_>),
    code: &str,
) -> ChipError {
    let world = World::new();
    let device = device(&world, |chip| chip.lies.accept = Some(Box::new(lie)));
    let mut driver = device.driver();
    let mut requirement = requirement(&world);
    change(&mut requirement);
    let resets = device.state().resets;
    let error = assert_code(Session::open(&mut driver, &requirement), code);
    assert_eq!(device.state().seen, [Opcode::Open.as_u8()], "nothing was sent after message 1");
    assert_eq!(device.state().resets, resets + 1);
    error
}

#[test]
fn evil_suite_downgrade() {
    let classical = |accept: &mut Accept| {
        accept.suite = SessionSuite::Classical;
        accept.encapsulation_key.clear();
    };
    handshake_lie(classical, |_| {}, "CHIP_DOWNGRADE_SUITE");
}

#[test]
fn evil_path_downgrade() {
    let released = |accept: &mut Accept| accept.path = DataPath::KeyRelease;
    handshake_lie(released, |r| r.path = DataPath::DmaSealed, "CHIP_DOWNGRADE_PATH");
    handshake_lie(|a| a.path = DataPath::DmaDirect, |_| {}, "CHIP_DOWNGRADE_PATH");
}

#[test]
fn evil_insecure_flag_injected() {
    let inject = |accept: &mut Accept| {
        accept.insecure = InsecureFlags::EMULATED_CHIP.union(InsecureFlags::NO_EVIDENCE);
    };
    let error = handshake_lie(inject, |_| {}, "CHIP_INSECURE_REFUSED");
    assert!(error.to_string().contains("no-evidence, emulated-chip"), "{error}");
    handshake_lie(|_| {}, |r| r.accepted_insecure = InsecureFlags::NONE, "CHIP_INSECURE_REFUSED");
}

#[test]
fn evil_key_epoch_not_certified() {
    handshake_lie(|a| a.key_epoch = 2, |_| {}, "CHIP_EPOCH_MISMATCH");
}

#[test]
fn evil_link_in_error() {
    handshake_lie(|a| a.tdisp = TdispState::Error, |_| {}, "CHIP_LINK_STATE");
}

#[test]
fn evil_wrong_root_session_is_refused() {
    let (world, other) = (World::new(), World::new());
    let device = device(&other, |_| {});
    let mut driver = device.driver();
    let requirement = Requirement { chip: ExpectedChip::AnyBelowRoot, ..requirement(&world) };
    assert_code(Session::open(&mut driver, &requirement), "CHIP_CHAIN_UNTRUSTED");
    assert_eq!(device.state().seen, [Opcode::Open.as_u8()]);
}

#[test]
fn evil_other_chip() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let chip = ExpectedChip::Exactly(ChipId::new([9; 32]));
    let error = assert_code(
        Session::open(&mut driver, &Requirement { chip, ..requirement(&world) }),
        "CHIP_OTHER_CHIP",
    );
    assert!(error.to_string().contains(&world.id().to_string()), "{error}");
    assert_eq!(device.state().seen, [Opcode::Open.as_u8()]);
}

/// Somebody in the middle shows the chip's certificates and uses a static key of his own.
#[test]
fn evil_relayed_session() {
    let world = World::new();
    let device = device(&world, |chip| chip.lies.foreign_static = true);
    let mut driver = device.driver();
    assert_code(Session::open(&mut driver, &requirement(&world)), "CHIP_STATIC_KEY");
    assert_eq!(device.state().seen, [Opcode::Open.as_u8()]);
}

#[test]
fn evil_session_signature_forged() {
    let world = World::new();
    let device = device(&world, |chip| chip.lies.bad_signature = true);
    let mut driver = device.driver();
    assert_code(Session::open(&mut driver, &requirement(&world)), "CHIP_SESSION_SIGNATURE");
    assert!(driver.is_down());
}

/// A bit of message 2 or 4 flipped on its way.
#[test]
fn evil_handshake_message_altered() {
    for opcode in [Opcode::Open, Opcode::Finish] {
        let world = World::new();
        let device = device(&world, |_| {});
        let mut driver = device.driver();
        device.lie(move |posted| {
            if posted.opcode == opcode.as_u8() {
                posted.output[40] ^= 1;
            }
        });
        assert_code(Session::open(&mut driver, &requirement(&world)), "CHIP_HANDSHAKE");
    }
}

#[test]
fn refusals_in_the_handshake_carry_their_code() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    device.lie(|posted| posted.completion.status = Status::InsecureRefused.as_u16());
    assert_code(Session::open(&mut driver, &requirement(&world)), "CHIP_INSECURE_REFUSED");
}

#[test]
fn evil_dma_direct_without_private_link() {
    let both = GUEST.union(InsecureFlags::EMULATED_DMA);
    let world = World::new();
    let chip_says = InsecureFlags::EMULATED_CHIP;
    let device = device(&world, |chip| {
        chip.lies.accept = Some(Box::new(move |a| {
            a.insecure = chip_says;
            a.tdisp = TdispState::Run;
        }));
    });
    let mut options = FakeDevice::options();
    options.ring_memory = RingMemory::Private;
    let mut driver = Driver::open(Arc::new(device.clone()), options).unwrap();
    let requirement = Requirement {
        path: DataPath::DmaDirect,
        guest_insecure: both,
        accepted_insecure: both.union(InsecureFlags::EMULATED_CHIP),
        ..requirement(&world)
    };
    assert_code(Session::open(&mut driver, &requirement), "CHIP_LINK_STATE");
    assert_eq!(device.state().seen, [Opcode::Open.as_u8()]);
    let strict = Requirement { guest_insecure: GUEST, ..requirement };
    assert_code(Session::open(&mut driver, &strict), "CHIP_REQUIREMENT");
}

#[test]
fn dma_direct_needs_private_rings() {
    let both = GUEST.union(InsecureFlags::EMULATED_DMA);
    let world = World::new();
    let device = device(&world, |chip| {
        chip.lies.accept = Some(Box::new(move |a| a.insecure = InsecureFlags::EMULATED_DMA));
    });
    let mut driver = device.driver();
    let requirement = Requirement {
        path: DataPath::DmaDirect,
        guest_insecure: both,
        accepted_insecure: both,
        ..requirement(&world)
    };
    assert_code(Session::open(&mut driver, &requirement), "CHIP_REQUIREMENT");
    assert!(device.state().seen.is_empty());
}

/// A session in which the policy was presented, and a lie about the release that follows.
fn release(
    lie: impl FnMut(&mut crate::testing::Posted) + Send + 'static,
    then: impl FnOnce(Result<sealed_artifact::keys::ContentKey, ChipError>, bool),
) {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", no_evidence).unwrap();
    device.lie(lie);
    let released = session.release_key(&unwrap_request(b"core"));
    let ended = matches!(session.status(), Err(ChipError::Session(SessionError::Ended)));
    drop(session);
    assert!(!ended || driver.is_down());
    then(released, ended);
}

#[test]
fn evil_completion_forged() {
    let lies: [fn(&mut crate::testing::Posted); 6] = [
        |p| p.completion.tag[3] ^= 1,
        |p| p.output[0] ^= 1,
        |p| p.completion.status = Status::PolicyDenied.as_u16(),
        |p| p.completion.detail = 1,
        |p| p.completion.out_len = 31,
        |p| {
            p.completion.tag = [0; 16];
            p.completion.status = Status::Auth.as_u16();
        },
    ];
    for lie in lies {
        release(lie, |released, ended| {
            assert_code(released, "CHIP_COMPLETION_FORGED");
            assert!(ended, "the session is over");
        });
    }
}

/// The completion of an earlier command of the same session is posted again for a later one.
#[test]
fn evil_completion_replayed() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", no_evidence).unwrap();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    device.lie(move |posted| *keep.lock().unwrap() = Some(posted.clone()));
    session.release_key(&unwrap_request(b"core")).unwrap();
    let old = kept.lock().unwrap().take().unwrap();
    device.lie(move |posted| {
        let cid = posted.completion.cid;
        *posted = old.clone();
        posted.completion.cid = cid;
    });
    assert_code(session.release_key(&unwrap_request(b"core")), "CHIP_COMPLETION_FORGED");
    assert_code(session.release_key(&unwrap_request(b"core")), "CHIP_SESSION_ENDED");
}

/// Two answers change places: each is authentic, for another submission.
#[test]
fn evil_completion_of_another_command() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let mut session = Session::open(&mut driver, &requirement).unwrap();
    session.status().unwrap();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    device.lie(move |posted| *keep.lock().unwrap() = Some(posted.clone()));
    session.status().unwrap();
    let other = kept.lock().unwrap().take().unwrap();
    device.lie(move |posted| {
        posted.completion.tag = other.completion.tag;
        posted.output.clone_from(&other.output);
    });
    assert_code(session.floors().map(drop), "CHIP_COMPLETION_FORGED");
}

#[test]
fn evil_policy_digest_of_another_preimage() {
    let world = World::new();
    let device = device(&world, |chip| chip.lies.other_preimage = Some(b"weaker".to_vec()));
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let session = Session::open(&mut driver, &requirement).unwrap();
    assert_code(session.present(b"policy", no_evidence), "CHIP_POLICY_DIGEST");
    assert!(driver.is_down());
}

#[test]
fn authentic_refusals_keep_the_session() {
    let world = World::new();
    let device = device(&world, |chip| {
        chip.lies.refuse =
            Some(Box::new(|opcode| (opcode == Opcode::Unwrap).then_some((Status::PolicyDenied, 3))));
    });
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", no_evidence).unwrap();
    let error = assert_code(session.release_key(&unwrap_request(b"core")), "CHIP_POLICY_DENIED");
    assert!(error.to_string().contains("family"), "{error}");
    session.status().unwrap();
    session.close().unwrap();
    assert!(!driver.is_down());
}

#[test]
fn a_dropped_session_resets_the_controller() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let resets = device.state().resets;
    drop(Session::open(&mut driver, &requirement).unwrap());
    assert_eq!(device.state().resets, resets + 1);
    Session::open(&mut driver, &requirement).unwrap().close().unwrap();
}

#[test]
fn submissions_above_the_budget_are_not_sent() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let mut session = Session::open(&mut driver, &requirement).unwrap();
    session.inner.protection.set_sequence(crate::abi::limits::MAX_SUBMISSIONS);
    assert_code(session.status(), "CHIP_BUDGET");
    assert!(!device.state().seen.contains(&Opcode::Status.as_u8()));
}

#[test]
fn jobs_of_other_paths_are_refused() {
    let world = World::new();
    let device = device(&world, |_| {});
    let mut driver = device.driver();
    let requirement = requirement(&world);
    let session = Session::open(&mut driver, &requirement).unwrap();
    let mut session = session.present(b"policy", no_evidence).unwrap();
    assert_code(session.unwrap_grant(&unwrap_request(b"core")), "CHIP_PATH_MISUSE");
    assert!(!device.state().seen.contains(&Opcode::Unwrap.as_u8()));
    assert!(SealedReply::parse(&[], 1).is_err());
}
