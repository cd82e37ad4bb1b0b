use super::*;

fn register(value: &[u8]) -> Register {
    Register::new("HOST_DATA", value).unwrap()
}

#[test]
fn digests_are_fitted_as_registers_take_them() {
    let text = b"some text";
    for kind in RegisterKind::ALL {
        for algorithm in Algorithm::ALL {
            let digest = algorithm.digest(text);
            let fitted = digest.fitted(kind.bytes());
            let common = kind.bytes().min(digest.as_bytes().len());
            assert_eq!(fitted[..common], digest.as_bytes()[..common]);
            assert!(fitted[common..].iter().all(|byte| *byte == 0));
            assert_eq!(register(&fitted).matching(text).unwrap().algorithm(), algorithm);
        }
        assert_eq!(
            kind.algorithm().digest(text).as_bytes().len(),
            kind.bytes(),
            "nothing cut, nothing padded"
        );
    }
}

#[test]
fn every_byte_of_a_register_counts() {
    let text = b"some text";
    for kind in RegisterKind::ALL {
        for algorithm in Algorithm::ALL {
            let fitted = algorithm.digest(text).fitted(kind.bytes());
            for index in 0..fitted.len() {
                let mut other = fitted.clone();
                other[index] ^= 0x80;
                let error = register(&other).matching(text).unwrap_err();
                assert_eq!(error.code(), "INITDATA_MISMATCH", "{algorithm} byte {index}");
            }
        }
    }
}

#[test]
fn a_short_register_is_not_believed() {
    for length in [0, 1, 20, 31, 65] {
        let error = Register::new("X", &vec![7; length]).unwrap_err();
        assert_eq!((error.code(), error.class()), ("INITDATA_REGISTER", crate::Class::Bug));
    }
    assert!(register(&[0; 32]).is_zero());
    assert!(!register(&[[0; 31].as_slice(), &[1]].concat()).is_zero());
    assert!(register(&[0; 32]).matching(b"").is_err(), "zeros are nobody's digest");
}

#[test]
fn names_of_algorithms_are_exact() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::parse(algorithm.name()).unwrap(), algorithm);
        assert_eq!(
            Algorithm::parse(&algorithm.name().to_uppercase()).unwrap_err().code(),
            "INITDATA_ALGORITHM"
        );
    }
}
