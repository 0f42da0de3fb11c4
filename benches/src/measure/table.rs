//! The rows, as Markdown.

use super::rounds::{Figure, Series};
use super::say;

/// Prints one table: ratios to the first series, and the absolute figures beside them.
pub fn print(title: &str, figure: Figure, series: &[Series]) {
    let [reference, ..] = series else { return };
    let what = match figure {
        Figure::Cpu => "server CPU",
        Figure::P50 => "p50",
    };
    say(format_args!("\n### {title}\n"));
    say(format_args!(
        "| server | {what}, relative | spread | CPU us each | each second | p50 us | p99 us |"
    ));
    say("|---|---|---|---|---|---|---|");
    for row in series {
        if row.is_empty() {
            say(format_args!("| {} | failed | | | | | |", row.name));
            continue;
        }
        let ratio = row.ratio(reference, figure);
        let failed = match row.failed() {
            0 => String::new(),
            failed => format!(" ({failed} FAILED)"),
        };
        say(format_args!(
            "| {}{failed} | {:.2} | {:.2}..{:.2} | {:.2} | {:.0} | {:.0} | {:.0} |",
            row.name,
            ratio.median,
            ratio.min,
            ratio.max,
            row.spread(|sample| sample.cpu_us).median,
            row.spread(|sample| sample.rate).median,
            row.spread(|sample| sample.p50_us).median,
            row.spread(|sample| sample.p99_us).median,
        ));
    }
}
