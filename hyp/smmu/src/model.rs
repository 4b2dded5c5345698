//! A strict model of an SMMUv3, for tests.
