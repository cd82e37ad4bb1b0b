use super::*;
use crate::testing::{fault, launched, platform};

fn request(root: u32, vmpl: u32, fields: u64, svn: u32) -> [u8; REQUEST_BYTES] {
    let mut out = Vec::from(MAGIC);
    out.extend([root, vmpl].map(u32::to_le_bytes).concat());
    out.extend(fields.to_le_bytes());
    out.extend([svn, 0].map(u32::to_le_bytes).concat());
    out.extend([3, 2, 0, 0, 0, 0, 20, 209]);
    out.try_into().unwrap()
}

fn key(tee: &Tee, request: &[u8; REQUEST_BYTES]) -> Result<[u8; 32], u32> {
    let answer = tee.derived_keys().unwrap().answer(request, tee.faults());
    let (status, key) = answer.split_first_chunk().unwrap();
    match u32::from_le_bytes(*status) {
        0 => Ok(key.try_into().unwrap()),
        status => {
            assert_eq!(key, [0; 32]);
            Err(status)
        }
    }
}

#[test]
fn keys_follow_from_what_is_selected_alone() {
    let (_directory, state) = platform();
    let guest = |more: &str| launched(&state, &format!("tee = \"snp\"\n[snp]\nguest_svn = 4\n{more}"), "").0;
    let (one, other) = (guest(""), guest(&format!("measurement = \"{}\"\n", "22".repeat(48))));
    let (plain, measured) = (request(0, 0, TCB, 0), request(0, 0, MEASUREMENT, 0));
    assert_eq!(key(&one, &plain), key(&other, &plain));
    assert_ne!(key(&one, &measured), key(&other, &measured));
    assert_eq!(key(&one, &measured), key(&guest(""), &measured));
    let all = [
        request(0, 0, 0, 0),
        request(1, 0, 0, 0),
        request(0, 1, 0, 0),
        request(0, 0, GUEST_SVN, 4),
        request(0, 0, GUEST_SVN, 3),
        request(0, 0, POLICY | FAMILY_ID | IMAGE_ID, 0),
    ];
    let keys: std::collections::BTreeSet<_> = all.iter().map(|request| key(&one, request).unwrap()).collect();
    assert_eq!(keys.len(), all.len());
    // The initdata digest is no field of the firmware's derivation.
    let text = format!("tee = \"snp\"\ninitdata_digest = \"{}\"\n[snp]\nguest_svn = 4\n", "ee".repeat(32));
    let (initdata, _) = launched(&state, &text, "");
    assert_eq!(key(&initdata, &measured), key(&one, &measured));
    let (_other_directory, foreign) = platform();
    let (foreign, _) = launched(&foreign, "tee = \"snp\"\n[snp]\nguest_svn = 4\n", "");
    assert_ne!(key(&foreign, &plain), key(&one, &plain));
}

#[test]
fn requests_that_the_firmware_refuses() {
    let (_directory, state) = platform();
    let (tee, _) = launched(
        &state,
        "tee = \"snp\"\n[snp]\nguest_svn = 4\n",
        &format!("{}nth = 6\nvalue = 9\n", fault("derived-key-refused")),
    );
    let mut magic = request(0, 0, 0, 0);
    magic[5] = b'2';
    let mut reserved = request(0, 0, 0, 0);
    reserved[31] = 1;
    for refused in [request(2, 0, 0, 0), request(0, 4, 0, 0), request(0, 0, 1 << 6, 0), magic, reserved] {
        assert_eq!(key(&tee, &refused), Err(INVALID_PARAMETERS));
    }
    assert_eq!(key(&tee, &request(0, 0, 0, 0)), Err(9));
    assert!(key(&tee, &request(0, 0, 0, 4)).is_ok());
    assert_eq!(key(&tee, &request(0, 0, 0, 5)), Err(INVALID_PARAMETERS));
}

#[test]
fn an_earlier_tcb_can_be_asked_for_and_a_later_one_not() {
    let (_directory, state) = platform();
    let (tee, _) = launched(&state, "tee = \"snp\"\n", "");
    let with = |microcode| {
        let mut request = request(0, 0, TCB, 0);
        request[39] = microcode;
        request
    };
    let now = key(&tee, &with(209)).unwrap();
    assert_ne!(key(&tee, &with(208)).unwrap(), now);
    assert_eq!(key(&tee, &with(210)), Err(INVALID_PARAMETERS));
    // On a platform that was updated since, the earlier key is still there for whoever asks for it.
    let (updated, _) = launched(&state, "tee = \"snp\"\n[snp.tcb]\nmicrocode = 210\n", "");
    assert_eq!(key(&updated, &with(209)).unwrap(), now);
}
