//! Instructions by the counter, as differences of two lengths of the same run.

use bulkhead_guest_tests::{println, timer::Timer};

/// Rounds of the short run and of the long one.
const ROUNDS: [u64; 2] = [256, 1280];

/// Says so when the counter does not count instructions.
pub fn check() {
    let start = Timer::Physical.count();
    let end = Timer::Physical.count();
    println!("count counter instructions={} each=1", end.wrapping_sub(start));
}

/// Prints what one of the `units` units of a round of `run` takes.
pub fn measure(name: &str, units: u64, mut run: impl FnMut(u64)) {
    let mut took = ROUNDS.map(|rounds| {
        let start = Timer::Physical.count();
        run(rounds);
        Timer::Physical.count().wrapping_sub(start)
    });
    took.sort_unstable();
    let (extra, rounds) = (took[1] - took[0], ROUNDS[1] - ROUNDS[0]);
    let hundredths = extra * 100 / (rounds * units);
    println!("count {name} instructions={}.{:02}", hundredths / 100, hundredths % 100);
}
