//! Makes the hypervisor jump astray, through QEMU's stub for debuggers (GDB remote serial protocol).

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use object::{Object, ObjectSymbol};
use serde::Deserialize;

use super::expect::Pattern;

/// Where the hypervisor is caught: its entry from a guest's exit.
const CAUGHT_AT: &str = "guest_exit";
/// The program counter's number among the registers of AArch64.
const PC: u8 = 0x20;
/// How long QEMU may take for an answer, and the guest for its next exit.
const PATIENCE: Duration = Duration::from_secs(20);

/// A jump that no code of the hypervisor does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// The line that it comes after, as `expected.txt` says lines.
    after: String,
    /// The symbol that it leads to, or a function's path.
    to: String,
}

impl Jump {
    /// The line that it comes after.
    pub fn after(&self) -> Pattern {
        Pattern::new(&self.after)
    }

    /// Jumps at the next exit of a guest, in the hypervisor `elf` that lies at `base`; QEMU's stub listens at `socket`.
    ///
    /// # Errors
    /// When there is no such symbol, or QEMU answers something else than what a debugger needs.
    pub fn run(&self, elf: &[u8], base: u64, socket: &Path) -> Result<()> {
        let address = |name: &str| -> Result<u64> {
            let file = object::File::parse(elf).context("the hypervisor's ELF file")?;
            let is_it = |found: &str| found == name || format!("{:#}", rustc_demangle::demangle(found)) == name;
            let symbol = file.symbols().find(|symbol| symbol.name().is_ok_and(is_it));
            Ok(base + symbol.with_context(|| format!("the hypervisor has no symbol {name}"))?.address())
        };
        let (caught_at, target) = (address(CAUGHT_AT)?, address(&self.to)?);
        let stream =
            UnixStream::connect(socket).with_context(|| format!("no debugger's stub at {}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stub = Stub(stream);
        stub.ask(&format!("Z1,{caught_at:x},4"), "OK")?;
        stub.ask("c", "T05")?;
        let target: String = target.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        stub.ask(&format!("P{PC:x}={target}"), "OK")?;
        // Detached, the machine goes on without breakpoints.
        stub.ask(&format!("z1,{caught_at:x},4"), "OK")?;
        stub.ask("D", "OK")
    }
}

/// Packets are `$text#checksum`; each is acknowledged by a `+`.
struct Stub(UnixStream);

impl Stub {
    /// Sends a packet; the answer must begin with `expected`.
    fn ask(&mut self, packet: &str, expected: &str) -> Result<()> {
        let checksum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${packet}#{checksum:02x}")?;
        let mut byte = [0];
        let mut answer = String::new();
        loop {
            self.0.read_exact(&mut byte).with_context(|| format!("QEMU's answer to {packet}"))?;
            match byte[0] {
                b'$' => answer.clear(),
                b'#' => break,
                other => answer.push(char::from(other)),
            }
        }
        self.0.read_exact(&mut [0; 2])?;
        self.0.write_all(b"+")?;
        ensure!(answer.starts_with(expected), "QEMU answers {packet} by {answer}");
        Ok(())
    }
}

/// Where the hypervisor lies, if `line` of its boot log says it.
pub fn base_in(line: &str) -> Option<u64> {
    let (_, range) = line.split_once("; hypervisor at 0x")?;
    u64::from_str_radix(range.split_once("..")?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::base_in;

    /// Would miss: a boot log whose words have changed, which would leave the scenario waiting.
    #[test]
    fn the_boot_log_says_where_the_hypervisor_lies() {
        let line = "[bulkhead] memory 0x40000000..0xc0000000, 2 GiB; hypervisor at 0x40200000..0x406f0000";
        assert_eq!(base_in(line), Some(0x4020_0000));
        assert_eq!(base_in("[bulkhead] hypervisor shell"), None);
    }
}
