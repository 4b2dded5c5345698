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
pub fn measure(name: &str, units: u64, run: impl FnMut(u64)) {
    print(name, hundredths(units, run));
}

/// The same, less what the same loop around other calls takes: those that do nothing, and have a frame.
pub fn measure_net<C: Copy>(name: &str, units: u64, real: C, idle: C, mut run: impl FnMut(C, u64)) {
    let all = hundredths(units, |rounds| run(real, rounds));
    print(name, all.saturating_sub(hundredths(units, |rounds| run(idle, rounds))));
}

/// The same, less what the same loop around calls that do nothing takes, without a frame: told from calls with one test and with two.
pub fn measure_inside<C: Copy>(name: &str, units: u64, real: C, idle: [C; 2], mut run: impl FnMut(C, u64)) {
    let [all, one, two] = [real, idle[0], idle[1]].map(|calls| hundredths(units, |rounds| run(calls, rounds)));
    print(name, (all + two).saturating_sub(2 * one));
}

/// Does nothing, by one test or two of what is no handle and no address: the frame that every function of these programs
/// has is then around what never happens, as it is in the functions that are measured. What two take beyond one is a
/// test's share of the first.
#[inline(always)]
pub fn test<const TESTS: usize>(bits: u64) {
    if bits == 0 || (TESTS > 1 && bits >> 63 != 0) {
        fail();
    }
}

#[cold]
#[inline(never)]
fn fail() {
    println!("FAIL: an idle call that is given nothing");
}

/// Prints a ratio as a figure.
pub fn figure(name: &str, numerator: u64, denominator: u64) {
    if let Some(ratio) = (numerator * 10_000).checked_div(denominator) {
        println!("figure {name} value={}.{:04}", ratio / 10_000, ratio % 10_000);
    }
}

fn print(name: &str, hundredths: u64) {
    println!("count {name} instructions={}.{:02}", hundredths / 100, hundredths % 100);
}

fn hundredths(units: u64, mut run: impl FnMut(u64)) -> u64 {
    let mut took = ROUNDS.map(|rounds| {
        let start = Timer::Physical.count();
        run(rounds);
        Timer::Physical.count().wrapping_sub(start)
    });
    took.sort_unstable();
    (took[1] - took[0]) * 100 / ((ROUNDS[1] - ROUNDS[0]) * units)
}
