use super::super::error::{AnswerFault, ConfigFault};
use super::super::refusal::Refusal;
use super::*;

fn transient() -> KbsError {
    KbsError::new(Hop::Auth, TransportFault::Unavailable { status: 503 })
}

fn forgotten() -> KbsError {
    let body =
        br#"{"type":"https://github.com/confidential-containers/kbs/errors/TokenNotFound","detail":""}"#;
    KbsError::new(Hop::Resource, Refusal::parse(401, body).unwrap())
}

#[test]
fn delays_double_and_spread() {
    let expected = [100, 200, 400, 800, 1600, 3200, 5000, 5000];
    for (attempt, full) in (0..).zip(expected) {
        assert_eq!(delay(attempt, u32::MAX), Duration::from_millis(full));
        assert_eq!(delay(attempt, 0), Duration::from_millis(full) / 2);
    }
    assert_eq!(delay(u32::MAX, u32::MAX), LONGEST_DELAY);
}

#[test]
fn attempts_end() {
    let now = Instant::now();
    let mut retry = Retry::new(now + Duration::from_secs(3_600));
    for _ in 0..TRANSIENT_MAX {
        assert!(matches!(retry.after(transient(), now, 0), Ok(Next::Wait(_))));
    }
    assert_eq!(retry.after(transient(), now, 0).unwrap_err().code(), "KBS_BROKER_UNAVAILABLE");
    assert_eq!(retry.after(forgotten(), now, 0).unwrap(), Next::Reattest);
    assert_eq!(retry.after(forgotten(), now, 0).unwrap_err().code(), "KBS_REFUSED_NO_TOKEN");
}

#[test]
fn no_attempt_is_planned_behind_the_deadline() {
    let now = Instant::now();
    let mut retry = Retry::new(now + Duration::from_millis(50));
    assert_eq!(retry.after(transient(), now, u32::MAX).unwrap_err().code(), "KBS_BROKER_UNAVAILABLE");
}

#[test]
fn final_errors_are_final() {
    let now = Instant::now();
    for error in [
        KbsError::new(Hop::Auth, AnswerFault::Hash),
        KbsError::new(Hop::Setup, ConfigFault::PlainHttp),
        KbsError::new(Hop::Attest, TransportFault::Redirect { status: 302 }),
        KbsError::new(Hop::Attest, TransportFault::BodySize { max: 1 }),
    ] {
        let code = error.code();
        assert_eq!(Retry::new(now + Duration::from_secs(60)).after(error, now, 0).unwrap_err().code(), code);
    }
}

#[test]
fn a_deadline_says_what_failed_before() {
    let now = Instant::now();
    let mut retry = Retry::new(now + Duration::from_secs(60));
    retry.after(transient(), now, 0).unwrap();
    let error = retry.after(deadline_over(Hop::Auth), now, 0).unwrap_err();
    assert_eq!(error.code(), "KBS_DEADLINE");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("status 503"), "{cause}");
}
