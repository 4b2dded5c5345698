//! The budget's edges: exactly the limit, exactly the window.

use super::{FaultBudget, Verdict};

#[test]
fn the_limit_is_exact_and_silence_is_said_once_a_window() {
    let mut budget = FaultBudget::new(3, 1000);
    let verdicts: [Verdict; 6] = core::array::from_fn(|_| budget.take(5000));
    let (report, silence, drop) = (Verdict::Report, Verdict::Silence, Verdict::Drop);
    assert_eq!(verdicts, [report, report, report, silence, drop, drop]);
    assert_eq!(budget.dropped(), 3);
}

#[test]
fn the_window_is_exact() {
    let mut budget = FaultBudget::new(1, 1000);
    assert_eq!(budget.take(5000), Verdict::Report);
    assert_eq!(budget.take(5999), Verdict::Silence);
    assert_eq!(budget.take(6000), Verdict::Report);
    assert_eq!(budget.take(6001), Verdict::Silence, "said again in a new window");
}

#[test]
fn a_clock_that_goes_back_gives_nothing_away() {
    let mut budget = FaultBudget::new(1, 1000);
    assert_eq!(budget.take(5000), Verdict::Report);
    assert_eq!(budget.take(0), Verdict::Silence);
}

#[test]
fn a_limit_of_nothing_reports_nothing() {
    let mut budget = FaultBudget::new(0, 1000);
    assert_eq!(budget.take(5000), Verdict::Silence);
    assert_eq!(budget.take(5000), Verdict::Drop);
}
