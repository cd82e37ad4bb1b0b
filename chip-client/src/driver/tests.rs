//! A device that lies about rings, registers and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::abi::{REG_CAP, REG_FATAL_CODE, REG_MAGIC, REG_STATUS, REG_VERSION, STATUS_FATAL, Status};
use crate::testing::{FakeDevice, Posted, World, assert_code};

fn device() -> (World, FakeDevice) {
    let world = World::new();
    let device = FakeDevice::new(world.chip());
    (world, device)
}

#[test]
fn identify_and_chain() {
    let (world, device) = device();
    let mut driver = device.driver();
    assert_eq!(driver.identify().unwrap(), world.record);
    assert_eq!(driver.chain().unwrap(), world.certificates);
}

/// Many laps around the ring: phases and doorbells stay right.
#[test]
fn rings_wrap() {
    let (world, device) = device();
    let mut driver = device.driver();
    for _ in 0..200 {
        assert_eq!(driver.identify().unwrap().id, world.record.id);
    }
}

#[test]
fn lost_interrupt_is_survived() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.lie(|posted| posted.interrupt = false);
    driver.identify().unwrap();
}

#[test]
fn spurious_interrupt_is_survived() {
    let (_, device) = device();
    let mut driver = device.driver();
    rustix::io::write(device.interrupt(0), &5u64.to_ne_bytes()).unwrap();
    driver.identify().unwrap();
}

/// Asserts code, reset, and that the driver refuses to go on until it is recovered.
fn fault(lie: impl FnMut(&mut Posted) + Send + 'static, code: &str) {
    let (_, device) = device();
    let mut driver = device.driver();
    let resets = device.state().resets;
    device.lie(lie);
    assert_code(driver.identify(), code);
    assert_eq!(device.state().resets, resets + 1, "the controller was reset");
    assert!(driver.is_down());
    assert_code(driver.identify(), "CHIP_DOWN");
    device.lie(|_| {});
    driver.recover().unwrap();
    driver.identify().unwrap();
}

#[test]
fn evil_length_lie_is_refused() {
    fault(|posted| posted.completion.out_len = 4_097, "CHIP_LENGTH_LIE");
    fault(|posted| posted.completion.out_len = u32::MAX, "CHIP_LENGTH_LIE");
}

#[test]
fn evil_length_shorter_than_the_answer() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.lie(|posted| posted.completion.out_len -= 1);
    assert_code(driver.identify(), "CHIP_ANSWER_MALFORMED");
    assert!(driver.is_down());
}

#[test]
fn evil_ring_head_outside_the_ring() {
    fault(|posted| posted.completion.sq_head = 64, "CHIP_RING_HEAD");
}

#[test]
fn evil_completion_of_an_unknown_command() {
    fault(|posted| posted.completion.cid ^= 0x8000, "CHIP_COMPLETION_UNKNOWN");
}

#[test]
fn evil_completion_twice() {
    fault(|posted| posted.copies = 2, "CHIP_COMPLETION_UNKNOWN");
}

#[test]
fn evil_completion_ring_filled() {
    fault(|posted| posted.copies = 64, "CHIP_COMPLETION_UNKNOWN");
}

#[test]
fn evil_unknown_status() {
    fault(|posted| posted.completion.status = 0x7777, "CHIP_STATUS_UNKNOWN");
}

#[test]
fn evil_stale_phase_is_not_a_completion() {
    fault(|posted| posted.stale_phase = true, "CHIP_TIMEOUT");
}

#[test]
fn evil_stalled_command() {
    fault(|posted| posted.copies = 0, "CHIP_TIMEOUT");
}

/// The answer is copied out before the doorbell; what the device does to the memory afterwards changes nothing.
#[test]
fn evil_memory_rewritten_after_completion() {
    let (world, device) = device();
    let mut driver = device.driver();
    device.state().lies.rewrite_after_head = Some(0xEE);
    for _ in 0..10 {
        assert_eq!(driver.identify().unwrap(), world.record);
    }
}

/// Another thread rewrites rings and output while the driver reads: any answer is honest or a fault, never a panic.
#[test]
fn evil_memory_rewritten_under_the_driver() {
    let (world, device) = device();
    let mut driver = device.driver();
    let stop = Arc::new(AtomicBool::new(false));
    let (arena, hammer_stop) = (driver.arena.iova(0), Arc::clone(&stop));
    let hammered = device.clone();
    let hammer = std::thread::spawn(move || {
        let mut byte = 0u8;
        while !hammer_stop.load(Ordering::Relaxed) {
            byte = byte.wrapping_add(37);
            let state = hammered.state();
            // Completion ring of queue 0, and the first output buffer.
            state.memory.write(arena + 4_096 + u64::from(byte % 64) * 32, &[byte; 32]);
            state.memory.write(arena + 16_384 + (512 << 10), &[byte; 64]);
        }
    });
    let mut honest = 0;
    for _ in 0..40 {
        match driver.identify() {
            Ok(record) => honest += u32::from(record == world.record),
            Err(e) => {
                assert_eq!(e.class(), crate::Class::DeviceFault, "{e}");
                driver.recover().unwrap();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    hammer.join().unwrap();
    driver.recover().unwrap();
    assert_eq!(driver.identify().unwrap(), world.record, "{honest} honest answers before");
}

#[test]
fn evil_notification_storm_costs_bounded_looks() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.lie(|posted| posted.copies = 0);
    let stop = Arc::new(AtomicBool::new(false));
    let (event, storm_stop) = (device.interrupt(0), Arc::clone(&stop));
    let storm = std::thread::spawn(move || {
        while !storm_stop.load(Ordering::Relaxed) {
            let _ = rustix::io::write(&event, &1u64.to_ne_bytes());
        }
    });
    let before = driver.ring_looks();
    let started = Instant::now();
    assert_code(driver.identify(), "CHIP_TIMEOUT");
    let (looks, took) = (driver.ring_looks() - before, started.elapsed());
    stop.store(true, Ordering::Relaxed);
    storm.join().unwrap();
    // 300 ms at one look in 5 ms, 32 notifications, and one look after the deadline.
    assert!(looks <= 60 + 32 + 2, "{looks} looks in {took:?}");
}

#[test]
fn evil_device_gone_under_a_command() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.state().lies.gone_at_command = true;
    assert_code(driver.identify(), "CHIP_GONE");
    assert!(driver.is_down());
}

#[test]
fn evil_controller_resets_itself_under_a_command() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.state().lies.reset_at_command = true;
    assert_code(driver.identify(), "CHIP_GONE");
    assert!(driver.is_down());
}

#[test]
fn evil_device_gone_before() {
    let (_, device) = device();
    device.state().vendor = 0xFFFF;
    assert_code(Driver::open(Arc::new(device.clone()), FakeDevice::options()), "CHIP_GONE");
    device.state().vendor = 0x494B;
    device.state().gone = true;
    assert_code(Driver::open(Arc::new(device), FakeDevice::options()), "CHIP_GONE");
}

#[test]
fn fatal_code_is_reported() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.state().lies.fatal_at_command = Some(Status::PufFailed.as_u16().into());
    let error = assert_code(driver.identify(), "CHIP_FATAL");
    assert!(error.to_string().contains("PUF_FAILED"), "{error}");
}

#[test]
fn something_else_than_a_chip_is_refused() {
    for (register, value, code) in [
        (REG_MAGIC, 0x1234, "CHIP_NOT_A_CHIP"),
        (REG_VERSION, 0x0002_0000, "CHIP_NOT_A_CHIP"),
        (REG_CAP, 0x0070_0040, "CHIP_CAPABILITY"),
        (REG_CAP, 0x0072_0003, "CHIP_CAPABILITY"),
    ] {
        let (_, device) = device();
        device.set_register(register, value);
        assert_code(Driver::open(Arc::new(device), FakeDevice::options()), code);
    }
}

#[test]
fn a_controller_that_never_gets_ready_is_given_up() {
    let (_, device) = device();
    let mut driver = device.driver();
    driver.options.ready_timeout = Duration::from_millis(50);
    device.set_register(REG_FATAL_CODE, 3);
    device.set_register(REG_STATUS, STATUS_FATAL);
    assert!(matches!(driver.read_status(), Err(ChipError::Device(DeviceError::Fatal { code: 3 }))));
}

#[test]
fn refusals_carry_status_and_detail() {
    let (_, device) = device();
    let mut driver = device.driver();
    device.lie(|posted| {
        posted.completion.status = Status::NoResources.as_u16();
        posted.completion.detail = 9;
    });
    let error = assert_code(driver.identify(), "CHIP_NO_RESOURCES");
    assert!(matches!(error, ChipError::Refused { command: Opcode::Identify, detail: 9, .. }));
    assert!(!driver.is_down(), "a refusal is no fault");
}

#[test]
fn memory_is_unmapped_with_the_driver() {
    let (_, device) = device();
    let driver = device.driver();
    assert_eq!(device.state().memory.mappings(), 1);
    drop(driver);
    assert_eq!(device.state().memory.mappings(), 0);
}

#[test]
fn oversized_input_is_refused_before_it_is_sent() {
    let (_, device) = device();
    let mut driver = device.driver();
    let large = vec![0; 600 << 10];
    assert_code(driver.plain(Opcode::Provision, 0, &large, 0), "CHIP_INPUT_TOO_LARGE");
    assert!(device.state().seen.is_empty());
}
