//! Why a load was refused, as the guest is told of it.

use bulkhead_abi::Error;
use bulkhead_dma::map::{LoadError, Segment};

/// The error of a load of `segments`.
pub fn load_error(problem: LoadError, segments: &[Segment]) -> Error {
    match problem {
        LoadError::NoMap => Error::NoMap,
        LoadError::Loaded => Error::Loaded,
        LoadError::Unflushed => Error::Unflushed,
        LoadError::BadCount(_) => Error::TooManySegments,
        LoadError::Empty(_) => Error::BadSegment,
        LoadError::NotRam(_) if segments.iter().any(wraps) => Error::BadSegment,
        LoadError::NotRam(_) => Error::NotRam,
        LoadError::NotBlocks(_) => Error::Invalid,
        LoadError::TooLong(_) => Error::TooLong,
        LoadError::NeedsSpace | LoadError::NoSpace => Error::NoSpace,
        LoadError::NoTables => Error::NoTables,
    }
}

fn wraps(segment: &Segment) -> bool {
    segment.ipa.checked_add(segment.bytes).is_none()
}

#[cfg(test)]
mod tests {
    use bulkhead_abi::Error;
    use bulkhead_core::addr::Ipa;
    use bulkhead_dma::map::{LoadError, Segment};

    use super::load_error;

    /// Would miss: a segment that wraps, said to be outside of the VM's RAM: another mistake, to be looked for elsewhere.
    #[test]
    fn a_segment_that_wraps_is_named_so() {
        let outside = Segment::new(Ipa::new(0x1000), 0x1000);
        let wraps = Segment::new(Ipa::new(u64::MAX), 2);
        assert_eq!(load_error(LoadError::NotRam(0), &[outside]), Error::NotRam);
        assert_eq!(load_error(LoadError::NotRam(0), &[outside, wraps]), Error::BadSegment);
        assert_eq!(load_error(LoadError::NoMap, &[wraps]), Error::NoMap);
    }
}
