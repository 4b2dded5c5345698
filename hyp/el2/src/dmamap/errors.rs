//! Errors of the maps, as the guest is told of them.

use bulkhead_abi::Error;
use bulkhead_dma::map::{CreateError, LoadError};

use super::queue::NotFlushed;

impl From<NotFlushed> for Error {
    fn from(_: NotFlushed) -> Self {
        Self::Quarantined
    }
}

/// Why a map was not created.
pub fn create_error(problem: CreateError) -> Error {
    match problem {
        CreateError::BadParams { .. } => Error::Invalid,
        CreateError::TooManyMaps(_) | CreateError::TooManyPieces(_) => Error::TooManyMaps,
        CreateError::Iova(_) => Error::NoSpace,
        CreateError::Tree(_) => Error::NoTables,
    }
}

/// Why nothing was loaded.
pub fn load_error(problem: LoadError) -> Error {
    match problem {
        LoadError::NoMap => Error::NoMap,
        LoadError::Loaded => Error::Loaded,
        LoadError::Unflushed => Error::Unflushed,
        LoadError::BadCount(_) => Error::TooManySegments,
        LoadError::Empty(_) => Error::BadSegment,
        LoadError::NotRam(_) => Error::NotRam,
        LoadError::NotBlocks(_) => Error::Invalid,
        LoadError::TooLong(_) => Error::TooLong,
        LoadError::NeedsSpace | LoadError::NoSpace => Error::NoSpace,
        LoadError::NoTables => Error::NoTables,
    }
}
