//! Runs QEMU and reads its console.
