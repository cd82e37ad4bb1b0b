//! A bar for each row, by hand in SVG: rate, with the spread of the rounds.

use std::fmt::Write as _;
use std::path::Path;

use super::plan::shown_size;
use super::report::rate;
use super::rounds::Results;

const LEFT: f64 = 430.0;
const WIDTH: f64 = 560.0;
const STEP: f64 = 24.0;

/// Writes `landing.svg`.
pub(crate) fn write(out: &Path, results: &Results) -> anyhow::Result<()> {
    let most = results
        .rows
        .iter()
        .map(|row| row.case.size as f64 / 1e9 / row.seconds.quantile(0.1))
        .fold(1e-9, f64::max);
    let height = STEP * results.rows.len() as f64 + 70.0;
    let mut svg = String::new();
    writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="1080" height="{height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="20" y="28" font-size="16">Landing: stored artifact to visible file, GB/s (median; line: p10 to p90)</text>"##
    )?;
    for (index, row) in (0_u32..).zip(&results.rows) {
        let y = 50.0 + STEP * f64::from(index);
        let x = |rate: f64| LEFT + WIDTH * rate / most;
        let of = |share: f64| row.case.size as f64 / 1e9 / row.seconds.quantile(share);
        let name = row.case.name();
        let colour = match name.as_str() {
            "memcpy" | "memcpy, 4 KiB pages" | "raw AES-256-GCM" => "#9aa5b1",
            name if name.starts_with("key-release") => "#1f6f54",
            name if name.contains("chip") || name.starts_with("innerkeep") => "#4a90a4",
            _ => "#c97b3d",
        };
        let label = format!("{name}, {}, {} thread(s)", shown_size(row.case.size), row.case.threads);
        writeln!(
            svg,
            r##"<text x="{tx}" y="{ty}" text-anchor="end">{label}</text>
<rect x="{LEFT}" y="{by}" width="{width:.1}" height="16" fill="{colour}"/>
<line x1="{low:.1}" x2="{high:.1}" y1="{ly}" y2="{ly}" stroke="#222222"/>
<text x="{rx:.1}" y="{ty}">{rate:.2}</text>"##,
            tx = LEFT - 8.0,
            ty = y + 13.0,
            by = y,
            width = x(rate(row)) - LEFT,
            low = x(of(0.9)),
            high = x(of(0.1)),
            ly = y + 8.0,
            rx = x(of(0.1)) + 6.0,
            rate = rate(row)
        )?;
    }
    svg.push_str("</svg>\n");
    std::fs::write(out.join("landing.svg"), svg)?;
    Ok(())
}
