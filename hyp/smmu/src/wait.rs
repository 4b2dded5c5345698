//! Bounded polling of a register.

use crate::{error::Error, platform::Platform};

/// Polls the register at `offset` until `done` says so, for at most `timeout_us` microseconds.
///
/// The register is read once more after the time is up: a CPU that was away does not take that for a failure.
pub(crate) fn poll<P: Platform>(
    platform: &mut P,
    register: &'static str,
    offset: u32,
    timeout_us: u64,
    done: impl Fn(u32) -> bool,
) -> Result<u32, Error> {
    let start = platform.now_us();
    loop {
        let is_late = platform.now_us().saturating_sub(start) > timeout_us;
        let last = platform.read32(offset);
        if done(last) {
            return Ok(last);
        }
        if is_late {
            return Err(Error::Timeout { register, last, timeout_us });
        }
        platform.relax();
    }
}
