//! Errors of the maps, as the guest is told of them.

use bulkhead_abi::Error;
use bulkhead_dma::map::CreateError;

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
