//! The virtual bridge: what a guest reads, and that no write maps anything it should not.

mod model;
mod space;
