//! The physical SMMU: features, tables, queues, events, and a strict model.
//!
//! Hardware-independent: registers and memory are reached through [`Platform`], which EL2 implements with MMIO and
//! cache maintenance, and the tests with [`model`](crate::model). Chapters cited as "IHI 0070" are those of the
//! SMMUv3 architecture specification, issue G.b and later.
//!
//! Only what an SMMUv3 needs is here; a v2 driver would stand beside [`Smmu`].
#![cfg_attr(not(any(test, feature = "model")), no_std)]
#![forbid(unsafe_code)]

pub mod budget;
pub mod cmdq;
pub mod command;
pub mod error;
pub mod event;
mod evtq;
pub mod features;
pub mod gerror;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod platform;
pub mod pmcg;
mod registers;
pub mod smmu;
pub mod ste;
mod stream_table;
pub mod ticket;
mod wait;

pub use budget::{FaultBudget, Verdict};
pub use error::Error;
pub use event::{EVENT_WORDS, Event, Reason};
pub use features::{FeatureError, Features};
pub use gerror::GerrorReport;
pub use platform::Platform;
pub use pmcg::{Pmcg, PmcgError, PmcgRegisters, Translations};
pub use smmu::{Config, Counters, Flushed, Polled, Smmu, StreamInfo, StreamState, panic_abort};
pub use ticket::{Failed, Invalidation, Mark, Progress, Synced, Ticket};
