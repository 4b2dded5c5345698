//! The hypervisor's image. Everything is in the library; this makes it a program.
#![no_std]
#![no_main]

use bulkhead_el2 as _;
