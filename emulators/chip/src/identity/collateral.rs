//! What the chip remembers of collateral, because it has no clock: the highest number of each series, and the minimums
//! of its provisioning (interface spec §6.5, §8.4). Both only rise.

use chip_client::abi::limits::MAX_COLLATERAL_FLOORS;
use evidence::validate::Floors;
use evidence::verify::series::{Series, SeriesKind};
use serde::{Deserialize, Serialize};

use super::nvm::NvmError;

/// Minimums given at provisioning; zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Minimums {
    pub(crate) tcb_evaluation: u64,
    pub(crate) pck_crl: u64,
    pub(crate) root_crl: u64,
    pub(crate) snp_crl: u64,
}

impl Minimums {
    /// The higher of each.
    pub(super) fn raise(&mut self, other: Self) {
        self.tcb_evaluation = self.tcb_evaluation.max(other.tcb_evaluation);
        self.pck_crl = self.pck_crl.max(other.pck_crl);
        self.root_crl = self.root_crl.max(other.root_crl);
        self.snp_crl = self.snp_crl.max(other.snp_crl);
    }

    const fn floors(self) -> Floors {
        Floors {
            min_pck_crl_number: self.pck_crl,
            min_root_crl_number: self.root_crl,
            min_snp_crl_number: self.snp_crl,
            min_tcb_evaluation: self.tcb_evaluation,
        }
    }
}

/// The highest number that was accepted of one series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CollateralFloor {
    pub(crate) kind: u16,
    #[serde(with = "hex")]
    pub(crate) issuer: [u8; 32],
    pub(crate) number: u64,
}

/// The minimums for evidence that belongs to these series: what was seen of them, and what was provisioned.
pub(super) fn floors(seen: &[CollateralFloor], minimums: Minimums, series: &[Series]) -> Floors {
    let mut floors = minimums.floors();
    for Series { kind, issuer, .. } in series {
        let known = seen.iter().find(|known| known.kind == kind.as_u16() && known.issuer == issuer.0);
        let Some(CollateralFloor { number, .. }) = known else { continue };
        let floor = match kind {
            SeriesKind::TcbEvaluation => &mut floors.min_tcb_evaluation,
            SeriesKind::PckCrl => &mut floors.min_pck_crl_number,
            SeriesKind::RootCrl => &mut floors.min_root_crl_number,
            SeriesKind::SnpCrl => &mut floors.min_snp_crl_number,
        };
        *floor = (*floor).max(*number);
    }
    floors
}

/// Raises the floors of these series; never lowers one. True: something rose.
pub(super) fn raise(seen: &mut Vec<CollateralFloor>, series: &[Series]) -> Result<bool, NvmError> {
    let mut rose = false;
    for series in series {
        let Some(number) = series.number else { continue };
        let (kind, issuer) = (series.kind.as_u16(), series.issuer.0);
        let full = seen.len() >= MAX_COLLATERAL_FLOORS as usize;
        match seen.iter_mut().find(|known| known.kind == kind && known.issuer == issuer) {
            Some(known) if known.number >= number => {}
            Some(known) => {
                known.number = number;
                rose = true;
            }
            None if full => return Err(NvmError::Full),
            None => {
                seen.push(CollateralFloor { kind, issuer, number });
                rose = true;
            }
        }
    }
    Ok(rose)
}

#[cfg(test)]
mod tests {
    use evidence::Octets;

    use super::*;

    fn series(kind: SeriesKind, issuer: u8, number: u64) -> Series {
        Series { kind, issuer: Octets([issuer; 32]), number: Some(number) }
    }

    #[test]
    fn floors_of_a_series_only_rise_and_touch_no_other() {
        let mut seen = Vec::new();
        let kinds = [SeriesKind::TcbEvaluation, SeriesKind::PckCrl, SeriesKind::RootCrl, SeriesKind::SnpCrl];
        for (kind, number) in kinds.into_iter().zip(10..) {
            assert!(raise(&mut seen, &[series(kind, 1, number)]).unwrap());
            assert!(!raise(&mut seen, &[series(kind, 1, number - 1)]).unwrap());
            assert!(!raise(&mut seen, &[series(kind, 1, number)]).unwrap());
        }
        let all = |issuer| kinds.map(|kind| Series { number: None, ..series(kind, issuer, 0) });
        let minimums = Minimums { pck_crl: 99, root_crl: 2, ..Minimums::default() };
        let expected = Floors {
            min_tcb_evaluation: 10,
            min_pck_crl_number: 99,
            min_root_crl_number: 12,
            min_snp_crl_number: 13,
        };
        assert_eq!(floors(&seen, minimums, &all(1)), expected);
        assert_eq!(floors(&seen, minimums, &all(2)), minimums.floors(), "another issuer counts apart");
        assert_eq!(floors(&seen, minimums, &[]), minimums.floors());
        // A list that was not presented raises nothing.
        assert!(!raise(&mut seen, &all(3)).unwrap());
    }

    #[test]
    fn room_for_series_is_limited() {
        let mut seen = Vec::new();
        for issuer in 0..64 {
            raise(&mut seen, &[series(SeriesKind::PckCrl, issuer, 1)]).unwrap();
        }
        assert!(matches!(raise(&mut seen, &[series(SeriesKind::PckCrl, 64, 1)]), Err(NvmError::Full)));
        assert!(raise(&mut seen, &[series(SeriesKind::PckCrl, 63, 2)]).unwrap(), "known ones go on");
    }
}
