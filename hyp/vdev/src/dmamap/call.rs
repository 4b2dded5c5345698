//! Decoding of the calls: registers in, arguments in range out.

use bulkhead_abi::{
    CHANNELS, Constraints, Counter, Direction, Error, Features, Function, Handle, OWNER_MASK, OWNER_VENDOR_HYP,
    SEGMENTS_MAX, SyncOp,
    ring::{LOG2_ENTRIES_MAX, ring_bytes},
};
use bulkhead_core::addr::{Ipa, PAGE_SIZE};

/// Whether a call with this x0 is a fast call of the vendor-specific hypervisor service (DEN 0028: owner 6). W0 alone
/// has the function id.
pub const fn owns(x0: u64) -> bool {
    function_id(x0) & OWNER_MASK == OWNER_VENDOR_HYP
}

const fn function_id(x0: u64) -> u32 {
    (x0 & 0xffff_ffff) as u32
}

/// A call whose arguments mean something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// VERSION.
    Version,
    /// CALL_UID.
    Uid,
    /// REVISION.
    Revision,
    /// FEATURES.
    Features(Features),
    /// CREATE on a channel.
    Create(u8, Constraints),
    /// LOAD: map, where the array is, how many segments (any number but 0), who reads and writes.
    Load(Handle, Ipa, usize, Direction),
    /// UNLOAD.
    Unload(Handle),
    /// DESTROY.
    Destroy(Handle),
    /// SYNC: map, what, offset and length in bytes.
    Sync(Handle, SyncOp, u64, u64),
    /// QUERY.
    Query(Handle),
    /// STATS, from this counter's number on.
    Stats(u64),
    /// RING_SETUP: channel, where the ring is, logarithm of its entries.
    RingSetup(u8, Ipa, u64),
    /// RING_SETUP with nothing: the channel's ring goes.
    RingRemove(u8),
    /// RING_RUN.
    RingRun(u8),
}

impl Call {
    /// Decodes x0 to x6.
    ///
    /// # Errors
    /// What x0 is to say of arguments that mean nothing.
    pub fn decode(x: &[u64; 7]) -> Result<Self, Error> {
        let function = Function::from_id(function_id(x[0])).ok_or(Error::NotSupported)?;
        let handle = Handle::from_register(x[1]);
        match function {
            Function::Version => Ok(Self::Version),
            Function::CallUid => Ok(Self::Uid),
            Function::Revision => Ok(Self::Revision),
            Function::Features => Features::from_page(x[1]).map(Self::Features).ok_or(Error::Invalid),
            Function::Create => Ok(Self::Create(channel(x[1])?, constraints(x)?)),
            Function::Load => {
                let direction = Direction::from_number(x[4]).ok_or(Error::Invalid)?;
                if x[3] == 0 {
                    return Err(Error::Invalid);
                }
                let count = usize::try_from(x[3]).map_err(|_| Error::TooManySegments)?;
                let array = Ipa::new(x[2]);
                if !array.is_aligned(8) {
                    return Err(Error::BadAddress);
                }
                Ok(Self::Load(handle, array, count, direction))
            }
            Function::Unload => Ok(Self::Unload(handle)),
            Function::Destroy => Ok(Self::Destroy(handle)),
            Function::Sync => {
                let op = SyncOp::from_bits(x[2]).filter(|op| !op.is_empty()).ok_or(Error::Invalid)?;
                x[3].checked_add(x[4]).ok_or(Error::TooLong)?;
                Ok(Self::Sync(handle, op, x[3], x[4]))
            }
            Function::Query => Ok(Self::Query(handle)),
            Function::Stats => Counter::from_number(x[1]).map(|_| Self::Stats(x[1])).ok_or(Error::Invalid),
            Function::RingSetup => {
                let channel = channel(x[1])?;
                let at = Ipa::new(x[2]);
                match (x[2], x[3]) {
                    (0, 0) => Ok(Self::RingRemove(channel)),
                    (_, log2) if log2 > LOG2_ENTRIES_MAX => Err(Error::Invalid),
                    (_, log2) if at.is_aligned(PAGE_SIZE) && is_bounded(at, log2) => {
                        Ok(Self::RingSetup(channel, at, log2))
                    }
                    _ => Err(Error::BadAddress),
                }
            }
            Function::RingRun => Ok(Self::RingRun(channel(x[1])?)),
        }
    }
}

fn channel(number: u64) -> Result<u8, Error> {
    if number >= CHANNELS {
        return Err(Error::NoChannel);
    }
    u8::try_from(number).map_err(|_| Error::NoChannel)
}

/// Whether the ring's end is below 2^64.
fn is_bounded(at: Ipa, log2_entries: u64) -> bool {
    ring_bytes(log2_entries).and_then(|bytes| at.checked_add(bytes)).is_some()
}

fn constraints(x: &[u64; 7]) -> Result<Constraints, Error> {
    let [_, _, max_size, max_segments, boundary, align, limit] = *x;
    if max_size == 0 || max_segments == 0 {
        return Err(Error::Invalid);
    }
    if max_segments > SEGMENTS_MAX {
        return Err(Error::TooManySegments);
    }
    let boundary_is_one = boundary == 0 || boundary.is_power_of_two() && boundary >= PAGE_SIZE;
    let align = align.max(1);
    if !boundary_is_one || !align.is_power_of_two() {
        return Err(Error::Invalid);
    }
    Ok(Constraints { max_size, max_segments, boundary, align, limit })
}
