//! vpci
