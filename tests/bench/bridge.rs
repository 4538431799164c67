//! What a wall between two plugins costs: one asks the other for a record of 200 bytes, or does the same work itself.
//!
//! Measured by the asking plugin's own clock, so that neither HTTP nor this program is in the figure. Both sides in turn, the median of
//! several rounds.

use bulkhead_testkit::{Bulkhead, Configuration};

use crate::table::{Promise, Table};

/// Questions in one round: some 50 ms of them.
const COUNT: usize = 10_000;
const ROUNDS: usize = 7;

/// Adds the figures.
pub(crate) fn measure(table: &mut Table) {
    let configuration = Configuration::empty()
        .plugin("dns-double", bulkhead_fixtures::wasm("dns-double"), "")
        .plugin(
            "prober",
            bulkhead_fixtures::wasm("prober"),
            "[call.provider]\nplugin = \"dns-double\"",
        )
        .section("[log]\nlevel = \"warn\"");
    let bulkhead = Bulkhead::with(configuration);
    let ask = |place: &str| -> f64 {
        let path = format!("/prober/calls?where={place}&count={COUNT}");
        let answer = bulkhead.foreman().get(&path).text();
        answer
            .strip_prefix("ok ")
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{place}: {answer}"))
    };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        here.push(ask("here"));
        there.push(ask("there"));
    }
    let (here, there) = (median(here), median(there));
    table.add(
        "one plugin, a record of 200 bytes",
        here / 1000.0,
        Promise::Printed,
        "us",
    );
    table.add(
        "two plugins, the same",
        there / 1000.0,
        Promise::Printed,
        "us",
    );
    table.add(
        "two plugins to one",
        there / here,
        Promise::Printed,
        "times",
    );
    table.add(
        "a call between two plugins, beyond the work",
        (there - here) / 1000.0,
        Promise::AtMost(8.0),
        "us",
    );
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
