//! The manifest: which VMs there are, what each one is given, and what is wrong with it.

pub mod board;
pub mod check;
pub mod problem;
pub mod schema;
mod size;

pub use check::{Checked, CheckedVm, check};
pub use problem::Problem;
