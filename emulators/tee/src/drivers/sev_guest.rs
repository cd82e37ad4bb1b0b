//! `/dev/sev-guest`: reports, reports with certificates, derived keys.
//!
//! The message of each ioctl is `struct snp_guest_request_ioctl`: version, addresses of request and response, and exit
//! information (lower half: the firmware's status, upper half: the hypervisor's).

mod messages;

use std::sync::Arc;

use rustix::io::Errno;

use super::{delivered, refusal};
use crate::cuse::wire::Span;
use crate::cuse::{Answer, Call, Driver};
use crate::derived::KeyRequest;
use crate::faults::Kind;
use crate::tee::Tee;
use messages::{Extended, INVALID_PARAMETERS, Message, key_response, report_request, report_response};

const GET_REPORT: u32 = 0xc020_5300;
const GET_DERIVED_KEY: u32 = 0xc020_5301;
const GET_EXT_REPORT: u32 = 0xc020_5302;
const MESSAGE: usize = 32;
const REPORT_REQUEST: usize = 96;
const REPORT_RESPONSE: usize = 4000;
const KEY_REQUEST: usize = 32;
const KEY_RESPONSE: usize = 64;
const EXTENDED_REQUEST: usize = 112;
/// Most bytes of certificates that the driver takes from the hypervisor, and their unit.
const MAXIMUM_CERTIFICATES: usize = 0x4000;
const PAGE: usize = 4096;
/// The driver's own exit information: the firmware was not asked.
const NOT_ASKED: u64 = 0xff;
/// The hypervisor's: too little room for certificates.
const INVALID_LENGTH: u64 = 1 << 32;

/// The driver.
#[derive(Debug)]
pub(crate) struct SevGuest(pub(crate) Arc<Tee>);

impl Driver for SevGuest {
    fn ioctl(&self, call: &Call<'_>) -> Answer {
        let (request, response) = match call.command {
            GET_REPORT => (REPORT_REQUEST, REPORT_RESPONSE),
            GET_DERIVED_KEY => (KEY_REQUEST, KEY_RESPONSE),
            GET_EXT_REPORT => (EXTENDED_REQUEST, REPORT_RESPONSE),
            _ => return Answer::refused(Errno::NOTTY),
        };
        let own = span(call.argument, MESSAGE);
        let Some((message, input)) = Message::split(call.input) else {
            return Answer::Again { input: vec![own], output: vec![own] };
        };
        if message.version == 0 {
            return Answer::refused(Errno::INVAL);
        }
        if message.request == 0 || message.response == 0 {
            return message.failed(Errno::INVAL, NOT_ASKED);
        }
        if input.len() != request {
            let (input, output) = (span(message.request, request), span(message.response, response));
            // A request is written back only to say how much room certificates need.
            let back = (call.command == GET_EXT_REPORT).then_some(input);
            let output = [Some(own), back, Some(output)].into_iter().flatten().collect();
            return Answer::Again { input: vec![own, input], output };
        }
        if let Some(error) = refusal(self.0.faults()) {
            return message.failed(error, NOT_ASKED);
        }
        match call.command {
            GET_REPORT => self.report(&message, input),
            GET_DERIVED_KEY => self.derived_key(&message, input),
            _ => self.extended_report(&message, input, call),
        }
    }
}

impl SevGuest {
    fn report(&self, message: &Message<'_>, request: &[u8]) -> Answer {
        match self.response(request) {
            Ok((response, _)) => delivered(self.0.faults(), 0, [message.bytes, &response].concat()),
            Err(answer) => message.ended(answer),
        }
    }

    fn extended_report(&self, message: &Message<'_>, request: &[u8], call: &Call<'_>) -> Answer {
        let Some(extended) = Extended::parse(request) else {
            return message.failed(Errno::INVAL, NOT_ASKED);
        };
        let room = extended.room();
        if room > MAXIMUM_CERTIFICATES || !room.is_multiple_of(PAGE) {
            return message.failed(Errno::INVAL, NOT_ASKED);
        }
        let without = MESSAGE + EXTENDED_REQUEST + REPORT_RESPONSE;
        if call.room == without && room != 0 {
            let spans = [(call.argument, MESSAGE), (message.request, EXTENDED_REQUEST)];
            let input: Vec<Span> = spans.into_iter().map(|(address, length)| span(address, length)).collect();
            let more = [(message.response, REPORT_RESPONSE), (extended.address, room)];
            let more = more.into_iter().map(|(address, length)| span(address, length));
            return Answer::Again { output: input.iter().copied().chain(more).collect(), input };
        }
        // Another thread of the caller changed its request meanwhile.
        if call.room != without + room {
            return message.failed(Errno::FAULT, NOT_ASKED);
        }
        let (response, mut certificates) = match self.response(extended.request) {
            Ok(parts) => parts,
            Err(answer) => return message.ended(answer),
        };
        let pages = self.0.faults().take(Kind::CertificateRoom);
        let wanted = pages.map_or(certificates.len().div_ceil(PAGE), |pages| pages.length_or(5));
        if pages.is_some() || wanted > room / PAGE {
            let output =
                [&message.with_exit(INVALID_LENGTH)[..], &extended.with_room(wanted * PAGE)].concat();
            return Answer::Done { result: -Errno::IO.raw_os_error(), output };
        }
        certificates.resize(room, 0);
        let output = [message.bytes, request, &response, &certificates].concat();
        delivered(self.0.faults(), 0, output)
    }

    fn derived_key(&self, message: &Message<'_>, request: &[u8]) -> Answer {
        if let Some(refused) = self.firmware() {
            return message.ended(refused);
        }
        let Some(keys) = self.0.derived_keys() else { return message.failed(Errno::IO, NOT_ASKED) };
        let key = keys.key(KeyRequest::of_device(request), self.0.faults());
        let output = [message.bytes, &key_response(&key)].concat();
        delivered(self.0.faults(), 0, output)
    }

    /// The firmware's message about a report, and the hypervisor's certificates.
    fn response(&self, request: &[u8]) -> Result<(Vec<u8>, Vec<u8>), (Errno, u64)> {
        if let Some(refused) = self.firmware() {
            return Err(refused);
        }
        let status = self.0.faults().take(Kind::ReportStatus);
        let status = status.map(|fault| fault.value.unwrap_or(INVALID_PARAMETERS));
        let request = report_request(request).filter(|(_, level)| *level <= 3);
        let (Some((data, level)), None) = (request, status) else {
            return Ok((report_response(status.unwrap_or(INVALID_PARAMETERS), &[]), Vec::new()));
        };
        let blobs = self.0.report(data, level);
        let blobs = blobs.map_err(|error| (Errno::from_raw_os_error(error.code()), NOT_ASKED))?;
        Ok((report_response(0, &blobs.outblob), blobs.auxblob))
    }

    /// A request that fails as a whole.
    fn firmware(&self) -> Option<(Errno, u64)> {
        let fault = self.0.faults().take(Kind::FirmwareError)?;
        Some((Errno::IO, fault.value.unwrap_or(INVALID_PARAMETERS).into()))
    }
}

fn span(address: u64, length: usize) -> Span {
    Span { address, length: u64::try_from(length).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests;
