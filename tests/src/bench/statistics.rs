//! Medians and spreads.

use serde_json::{Value, json};

/// Measurements of one case, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    /// The sample below which this share of all lies.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        let at = share * last as f64;
        let (low, high) = (at.floor(), at.ceil());
        let value = |index: f64| (0..=last).find(|i| *i as f64 == index).and_then(|i| sorted.get(i)).copied();
        let (below, above) = (value(low).unwrap_or(f64::NAN), value(high).unwrap_or(f64::NAN));
        below + (above - below) * (at - low)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// For JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "median": self.median(),
            "p10": self.quantile(0.1),
            "p90": self.quantile(0.9),
            "least": self.quantile(0.0),
            "most": self.quantile(1.0),
            "samples": self.0,
        })
    }
}
