//! Tests of the virtual GIC: registers, list registers, and a machine that runs guests on it.

mod lr;
mod machine;
mod model;
mod recall;
mod registers;
