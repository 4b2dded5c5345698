//! Commands (IHI 0070 chapter 4).

/// The two words of a command.
pub type Command = [u64; 2];

/// CMD_CFGI_STE of one stream.
pub fn cfgi_ste(stream: u64) -> Command {
    [0x03 | stream << 32, 1]
}

/// CMD_CFGI_ALL.
pub fn cfgi_all() -> Command {
    [0x04, 31]
}

/// CMD_CFGI_CD of one stream.
pub fn cfgi_cd(stream: u64) -> Command {
    [0x05 | stream << 32, 1]
}

/// CMD_TLBI_NH_ALL.
pub fn tlbi_all() -> Command {
    [0x10, 0]
}

/// CMD_TLBI_NH_ASID.
pub fn tlbi_asid(asid: u16) -> Command {
    [0x11 | u64::from(asid) << 48, 0]
}

/// CMD_TLBI_NH_VA of one page.
pub fn tlbi_va(asid: u16, iova: u64) -> Command {
    [0x12 | u64::from(asid) << 48, iova | 1]
}

/// CMD_TLBI_NH_VA of `pages` pages of 4 KiB, 2 to 32 (IDR3.RIL).
pub fn tlbi_range(asid: u16, iova: u64, pages: u64) -> Command {
    [0x12 | u64::from(asid) << 48 | (pages - 1) << 12, iova | 1 << 10 | 3 << 8 | 1]
}

/// CMD_TLBI_NH_VA of 2^36 pages of 64 KiB: more than a range of 4 KiB pages can be.
pub fn tlbi_most(asid: u16) -> Command {
    [0x12 | u64::from(asid) << 48 | 31 << 12 | 31 << 20, 3 << 10 | 1]
}

/// CMD_TLBI_NH_VAA of one page.
pub fn tlbi_vaa(iova: u64) -> Command {
    [0x13, iova | 1]
}

/// CMD_SYNC that says nothing.
pub fn sync() -> Command {
    [0x46, 0]
}

/// CMD_SYNC with an interrupt by wire.
pub fn sync_interrupt() -> Command {
    [0x46 | 1 << 12, 0]
}

/// CMD_SYNC that stores `data` at `at`: inner shareable, write-back.
pub fn sync_message(at: u64, data: u32) -> Command {
    [0x46 | 1 << 12 | 3 << 22 | 0xf << 24 | u64::from(data) << 32, at]
}
