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
        LoadError::NotRam(_) if segments.iter().any(Segment::is_malformed) => Error::BadSegment,
        LoadError::NotRam(_) => Error::NotRam,
        LoadError::NotBlocks(_) => Error::Invalid,
        LoadError::TooLong(_) => Error::TooLong,
        LoadError::NeedsSpace | LoadError::NoSpace => Error::NoSpace,
        LoadError::NoTables => Error::NoTables,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_abi::Error;
    use bulkhead_core::addr::Ipa;
    use bulkhead_dma::map::{LoadError, Segment};

    use super::load_error;

    /// Would miss: a segment that is empty or wraps, said to be outside of the VM's RAM: another mistake, to be looked for elsewhere.
    #[test]
    fn a_malformed_segment_is_named_so() {
        let outside = Segment::new(Ipa::new(0x1000), 0x1000);
        let wraps = Segment::new(Ipa::new(u64::MAX), 2);
        assert_eq!(load_error(LoadError::NotRam(0), &[outside]), Error::NotRam);
        let empty = Segment::new(Ipa::new(0x1000), 0);
        assert_eq!(load_error(LoadError::NotRam(0), &[outside, wraps]), Error::BadSegment);
        assert_eq!(load_error(LoadError::NotRam(0), &[empty]), Error::BadSegment);
        assert_eq!(load_error(LoadError::NoMap, &[wraps]), Error::NoMap);
    }
}
