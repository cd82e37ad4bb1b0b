use super::*;
use crate::puf::noise::Xoshiro;

fn random_message(random: &mut Xoshiro) -> u64 {
    random.draw() >> 1
}

fn distinct_positions(random: &mut Xoshiro, count: usize) -> Vec<usize> {
    let mut positions = Vec::new();
    while positions.len() < count {
        let position = (random.draw() % LENGTH as u64) as usize;
        if !positions.contains(&position) {
            positions.push(position);
        }
    }
    positions
}

#[test]
fn the_generator_has_degree_192_and_the_sixty_roots() {
    // Lin & Costello, appendix C: the (255, 63) code has t = 30, so deg g = 192.
    let generator = Bch::new().generator;
    assert!(generator.bit(0));
    assert!(generator.bit(PARITY));
    assert!((PARITY + 1..256).all(|i| !generator.bit(i)));
    let field = Field::new();
    for i in 1..=2 * ERRORS {
        let mut value = 0;
        for k in (0..=PARITY).filter(|k| generator.bit(*k)) {
            value ^= field.power(i * k);
        }
        assert_eq!(value, 0, "alpha^{i} is a root");
    }
}

#[test]
fn codewords_have_zero_syndromes_and_carry_their_message() {
    let code = Bch::new();
    let mut random = Xoshiro::new(1);
    for _ in 0..200 {
        let message = random_message(&mut random);
        let word = code.encode(message);
        assert!(code.syndromes(&word).iter().all(|s| *s == 0));
        let carried = (0..MESSAGE).fold(0, |m, i| m | u64::from(word.bit(PARITY + i)) << i);
        assert_eq!(carried, message);
        assert_eq!(code.decode(&word), Ok(word));
    }
}

#[test]
fn up_to_thirty_errors_are_corrected() {
    let code = Bch::new();
    let mut random = Xoshiro::new(2);
    for errors in 0..=ERRORS {
        for _ in 0..100 {
            let word = code.encode(random_message(&mut random));
            let mut received = word;
            for position in distinct_positions(&mut random, errors) {
                received.flip(position);
            }
            assert_eq!(code.decode(&received), Ok(word), "{errors} errors");
        }
    }
}

#[test]
fn more_errors_never_give_the_original_word() {
    let code = Bch::new();
    let mut random = Xoshiro::new(3);
    let mut detected = 0;
    for errors in ERRORS + 1..ERRORS + 60 {
        for _ in 0..50 {
            let word = code.encode(random_message(&mut random));
            let mut received = word;
            for position in distinct_positions(&mut random, errors) {
                received.flip(position);
            }
            match code.decode(&received) {
                Err(Uncorrectable) => detected += 1,
                Ok(other) => assert_ne!(other, word, "{errors} errors"),
            }
        }
    }
    assert!(
        detected > 2_500,
        "a (255, 63) code has few words within distance 30 of a random one: {detected}"
    );
}
