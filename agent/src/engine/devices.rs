//! The program that the kernel asks before a process of a container opens or makes a device.
//!
//! It is [`allows`](crate::spec::devices::allows), unrolled: from the last rule to the first, what is asked for and still open is held
//! against the rule. Every comparison goes through scratch registers, so that the kernel's verifier learns nothing about a device
//! from a branch not taken, and looks at each rule a few times only, however many there are.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::EngineError;
use crate::spec::{DeviceKind, DeviceRule};
use crate::sys::bpf::{self, Instruction};

/// Registers: 0 is the answer, 1 points to the question.
const ANSWER: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;
const OTHER: u8 = 7;

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const MOVE_CONSTANT: u8 = 0xb4;
const AND_CONSTANT: u8 = 0x54;
const OR: u8 = 0x4c;
const XOR_CONSTANT: u8 = 0xa4;
const SHIFT_RIGHT_CONSTANT: u8 = 0x74;
const JUMP_IF_CONSTANT: u8 = 0x16;
const JUMP_UNLESS_CONSTANT: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Kinds, in the lower half of the question's first word. What is asked is in the upper half.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

const fn plain(code: u8, destination: u8, source: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination | (source << 4), offset: 0, immediate }
}

fn jump(code: u8, register: u8, constant: i32, over: usize) -> Result<Instruction, EngineError> {
    let offset =
        i16::try_from(over).map_err(|_| EngineError::Order { what: "a device rule that is too long" })?;
    Ok(Instruction { code, registers: register, offset, immediate: constant })
}

/// The bits of a number, as the constant of an instruction has them.
const fn bits(number: u32) -> i32 {
    number.cast_signed()
}

/// The program for these rules.
pub(super) fn assemble(rules: &[DeviceRule]) -> Result<Vec<Instruction>, EngineError> {
    let load = |register, offset| Instruction { offset, ..plain(LOAD_WORD, register, QUESTION, 0) };
    let mut program = vec![
        load(KIND, 0),
        plain(MOVE, ASKED, KIND, 0),
        plain(AND_CONSTANT, KIND, 0, 0xffff),
        plain(SHIFT_RIGHT_CONSTANT, ASKED, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(one(rule)?);
    }
    program.extend([plain(MOVE_CONSTANT, ANSWER, 0, 0), plain(EXIT, 0, 0, 0)]);
    Ok(program)
}

/// The part for one rule. Who is not covered, or has something left to ask, falls out of its end.
fn one(rule: &DeviceRule) -> Result<Vec<Instruction>, EngineError> {
    let access = bits(rule.access.bits());
    let verdict = if rule.allow {
        vec![
            plain(AND_CONSTANT, ASKED, 0, !access),
            jump(JUMP_UNLESS_CONSTANT, ASKED, 0, 2)?,
            plain(MOVE_CONSTANT, ANSWER, 0, 1),
            plain(EXIT, 0, 0, 0),
        ]
    } else {
        vec![plain(MOVE_CONSTANT, ANSWER, 0, 0), plain(EXIT, 0, 0, 0)]
    };
    let mut about = vec![
        plain(MOVE, SCRATCH, ASKED, 0),
        plain(AND_CONSTANT, SCRATCH, 0, access),
        jump(JUMP_IF_CONSTANT, SCRATCH, 0, verdict.len())?,
    ];
    about.extend(verdict);
    let kind = match rule.kind {
        DeviceKind::All => None,
        DeviceKind::Block => Some(BLOCK),
        DeviceKind::Character => Some(CHARACTER),
    };
    let wanted = [(KIND, kind), (MAJOR, rule.major.map(bits)), (MINOR, rule.minor.map(bits))];
    let mut whole = Vec::new();
    for (register, constant) in
        wanted.into_iter().filter_map(|(register, constant)| Some((register, constant?)))
    {
        // The first difference is the sum so far, others are added to it.
        let into = if whole.is_empty() { SCRATCH } else { OTHER };
        whole.extend([plain(MOVE, into, register, 0), plain(XOR_CONSTANT, into, 0, constant)]);
        if into == OTHER {
            whole.push(plain(OR, SCRATCH, OTHER, 0));
        }
    }
    if !whole.is_empty() {
        whole.push(jump(JUMP_UNLESS_CONSTANT, SCRATCH, 0, about.len())?);
    }
    whole.extend(about);
    Ok(whole)
}

/// The rules of a control group, in force while the group is there.
#[derive(Debug)]
pub(super) struct Attached {
    group: OwnedFd,
    program: OwnedFd,
}

impl Attached {
    /// Puts rules on a control group that has none.
    pub(super) fn new(group: &Path, rules: &[DeviceRule]) -> Result<Self, EngineError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let group =
            rustix::fs::open(group, flags, Mode::empty()).map_err(failed("open the control group"))?;
        let program = load(rules)?;
        bpf::attach_device_program(group.as_fd(), program.as_fd(), None)
            .map_err(failed("attach the device program"))?;
        let attached = Self { group, program };
        attached.verify()?;
        Ok(attached)
    }

    /// Puts other rules in their place, in one step: there is no moment without rules.
    pub(super) fn replace(&mut self, rules: &[DeviceRule]) -> Result<(), EngineError> {
        let program = load(rules)?;
        bpf::attach_device_program(self.group.as_fd(), program.as_fd(), Some(self.program.as_fd()))
            .map_err(failed("replace the device program"))?;
        self.program = program;
        self.verify()
    }

    /// Asks the kernel whether the program is attached.
    pub(super) fn verify(&self) -> Result<(), EngineError> {
        let own = bpf::program_id(self.program.as_fd()).map_err(failed("ask for the device program"))?;
        let attached =
            bpf::attached_device_programs(self.group.as_fd()).map_err(failed("list device programs"))?;
        if !attached.contains(&own) {
            return Err(EngineError::NotEnforced {
                what: "device rules",
                expected: format!("program {own}"),
                found: format!("{attached:?}"),
            });
        }
        Ok(())
    }
}

fn load(rules: &[DeviceRule]) -> Result<OwnedFd, EngineError> {
    bpf::load_device_program(&assemble(rules)?).map_err(failed("load the device program"))
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> EngineError {
    EngineError::system(what)
}

#[cfg(test)]
mod tests;
