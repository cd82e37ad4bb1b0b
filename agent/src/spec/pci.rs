//! Addresses of PCI devices in the environment: the host writes its own, the container has the guest's.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::SpecError;

/// What names of such variables begin with.
const PREFIX: &str = "PCIDEVICE_";

/// Rewrites variables `PCIDEVICE_…=ADDRESS[,ADDRESS…]` of a process from addresses of the host to those of the guest. A value that is no list
/// of addresses stays.
///
/// # Errors
/// `SPEC_VALUE`: an address that no device of the container has; nothing is changed then.
pub fn rewrite_environment<S: BuildHasher>(
    environment: &mut [String],
    guest_of_host: &HashMap<String, String, S>,
) -> Result<(), SpecError> {
    let mut rewritten = Vec::new();
    for (index, entry) in environment.iter().enumerate() {
        let Some((name, value)) = entry.split_once('=') else { continue };
        let addresses: Vec<&str> = value.split(',').collect();
        if !name.starts_with(PREFIX) || !addresses.iter().all(|address| is_address(address)) {
            continue;
        }
        let unknown = || SpecError::Value {
            at: format!("process.env[{index}]"),
            expected: "addresses of devices that the container has",
        };
        let guest: Option<Vec<&str>> =
            addresses.iter().map(|address| guest_of_host.get(*address).map(String::as_str)).collect();
        rewritten.push((index, format!("{name}={}", guest.ok_or_else(unknown)?.join(","))));
    }
    for (index, entry) in rewritten {
        if let Some(old) = environment.get_mut(index) {
            *old = entry;
        }
    }
    Ok(())
}

/// `DDDD:BB:DD.F`
fn is_address(text: &str) -> bool {
    let form = b"xxxx:xx:xx.x";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(byte, form)| match form {
            b'x' => byte.is_ascii_hexdigit(),
            other => byte == *other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(entries: &[&str]) -> Result<Vec<String>, &'static str> {
        let map = [("0000:1a:00.0", "0000:00:05.0"), ("0000:1b:00.1", "0000:01:00.0")]
            .map(|(host, guest)| (host.to_owned(), guest.to_owned()));
        let mut environment: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let before = environment.clone();
        let result = rewrite_environment(&mut environment, &HashMap::from(map)).map_err(|error| error.code());
        assert!(result.is_ok() || environment == before, "half of it was changed");
        result.map(|()| environment)
    }

    #[test]
    fn addresses_become_those_of_the_guest() {
        assert_eq!(
            rewrite(&[
                "PCIDEVICE_A=0000:1a:00.0,0000:1b:00.1",
                "PCIDEVICE_A_INFO={\"0000:1a:00.0\":{}}",
                "OTHER=0000:1a:00.0",
                "PCIDEVICE_B",
            ])
            .unwrap(),
            [
                "PCIDEVICE_A=0000:00:05.0,0000:01:00.0",
                "PCIDEVICE_A_INFO={\"0000:1a:00.0\":{}}",
                "OTHER=0000:1a:00.0",
                "PCIDEVICE_B",
            ]
        );
    }

    #[test]
    fn evil_host_address_of_no_device() {
        assert_eq!(rewrite(&["PCIDEVICE_A=0000:1a:00.0", "PCIDEVICE_B=0000:1a:00.1"]), Err("SPEC_VALUE"));
    }
}
