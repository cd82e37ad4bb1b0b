//! `innerkeep unseal`.

use crate::args::UnsealArgs;
use crate::error::Failure;
use crate::output::Output;

pub(crate) fn run(_arguments: &UnsealArgs, _output: Output) -> Result<u8, Failure> {
    Err(Failure::NoPin)
}
