//! What a Linux guest is given: device tree, initramfs.

pub mod cpio;
pub mod dtb;
pub mod initramfs;
pub mod modules;
