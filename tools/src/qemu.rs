//! QEMU command lines.

use std::path::Path;

use crate::setup;

/// Virtio NICs pass through the SMMU only with these.
const VIRTIO_NET: &str = "virtio-net-pci,iommu_platform=on,disable-legacy=on";

/// A command line being put together.
#[derive(Clone, Debug)]
pub struct QemuLine {
    arguments: Vec<String>,
}

impl QemuLine {
    /// The machine that Bulkhead runs on: four CPUs, 2 GiB, SMMUv3, nothing plugged in.
    pub fn machine() -> Self {
        Self::virt("virt,gic-version=3,iommu=smmuv3,virtualization=on", 4, "2G")
    }

    /// A `virt` machine with these options, CPUs and memory.
    pub fn virt(machine: &str, cpus: u32, memory: &str) -> Self {
        let mut line = Self { arguments: Vec::new() };
        line.option("-M", machine).option("-cpu", "cortex-a72").option("-smp", &cpus.to_string()).option("-m", memory);
        line.argument("-nodefaults").argument("-nographic").argument("-no-user-config");
        line
    }

    /// Appends one argument.
    pub fn argument(&mut self, argument: &str) -> &mut Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Appends an option and its value.
    pub fn option(&mut self, name: &str, value: &str) -> &mut Self {
        self.argument(name).argument(value)
    }

    /// Appends many arguments.
    pub fn arguments(&mut self, arguments: &[String]) -> &mut Self {
        self.arguments.extend_from_slice(arguments);
        self
    }

    /// What is loaded: a kernel and an initrd.
    pub fn boot(&mut self, kernel: &Path, initrd: &Path) -> &mut Self {
        self.kernel(kernel).initrd(initrd)
    }

    /// What runs first.
    pub fn kernel(&mut self, kernel: &Path) -> &mut Self {
        self.option("-kernel", &kernel.to_string_lossy())
    }

    /// What travels with it.
    pub fn initrd(&mut self, initrd: &Path) -> &mut Self {
        self.option("-initrd", &initrd.to_string_lossy())
    }

    /// The UART on standard input and output, with QEMU's monitor behind Ctrl-A C.
    pub fn interactive(&mut self) -> &mut Self {
        self.option("-serial", "mon:stdio")
    }

    /// The UART on standard input and output, nothing else.
    pub fn headless(&mut self) -> &mut Self {
        self.option("-serial", "stdio").option("-monitor", "none").argument("-no-reboot")
    }

    /// Virtual time by instructions: 2 ns each, and none while every CPU sleeps, but up to the next timer.
    pub fn exact(&mut self) -> &mut Self {
        self.option("-icount", "shift=1,sleep=off").option("-seed", "1");
        self.option("-rtc", "base=2024-01-01T00:00:00,clock=vm")
    }

    /// The NICs of the default bundle on one wire, with QEMU's user network (10.0.2.2) as the third station.
    ///
    /// The user network takes every IPv4 connection on the wire for its own, so the guests reach each other by IPv6.
    pub fn default_nics(&mut self) -> &mut Self {
        self.hub_port("alpha").hub_port("beta");
        self.option("-netdev", "user,id=outside,ipv6=off")
            .option("-netdev", "hubport,id=port-outside,hubid=0,netdev=outside");
        self.e1000e("alpha", 2).virtio_net("beta", 3)
    }

    /// Two more on the same wire.
    pub fn further_nics(&mut self) -> &mut Self {
        self.hub_port("lazy").hub_port("through");
        self.e1000e("lazy", 4).virtio_net("through", 5)
    }

    /// The machine's SMMU has stage 2 alone: QEMU's `virt` up to 9.1 has that choice.
    pub fn stage2_only(&mut self) -> &mut Self {
        self.option("-M", "virt-9.1,gic-version=3,iommu=smmuv3,virtualization=on")
            .option("-global", "arm-smmuv3.stage=2")
    }

    /// A port of the one hub.
    pub fn hub_port(&mut self, id: &str) -> &mut Self {
        self.option("-netdev", &format!("hubport,id={id},hubid=0"))
    }

    /// An e1000e in `slot`, on the network `netdev`.
    pub fn e1000e(&mut self, netdev: &str, slot: u8) -> &mut Self {
        self.option(
            "-device",
            &format!("e1000e,netdev={netdev},addr={slot:x}.0,romfile=,mac=52:54:00:00:00:{slot:02x}"),
        )
    }

    /// A virtio NIC behind the SMMU in `slot`, on the network `netdev`.
    pub fn virtio_net(&mut self, netdev: &str, slot: u8) -> &mut Self {
        self.option(
            "-device",
            &format!("{VIRTIO_NET},netdev={netdev},addr={slot:x}.0,romfile=,mac=52:54:00:00:00:{slot:02x}"),
        )
    }

    /// The arguments after the program's name.
    pub fn as_slice(&self) -> &[String] {
        &self.arguments
    }

    /// The whole line, quoted for a shell.
    pub fn to_shell(&self) -> String {
        let quoted = self.arguments.iter().map(|argument| quote(argument));
        std::iter::once(setup::qemu::PROGRAM.to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
    }
}

/// `word` as a POSIX shell reads it back.
fn quote(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./,=:@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process::Command};

    use super::{QemuLine, quote};

    /// Would miss: a path with a space or a quote that the shell takes apart.
    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for word in ["plain", "", "two words", "it's", "$HOME `id` \"x\" \\ *", "-device=e1000e,romfile="] {
            let output =
                Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))]).output().expect("sh runs");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }

    /// Would miss: two NICs on one interrupt line: swizzling gives (slot + pin - 1) mod 4.
    #[test]
    fn nics_have_lines_of_their_own() {
        let mut line = QemuLine::machine();
        line.default_nics().further_nics();
        let slots: Vec<u8> = line
            .as_slice()
            .iter()
            .filter_map(|argument| argument.split_once(",addr=")?.1.split_once('.')?.0.parse().ok())
            .collect();
        let lines: BTreeSet<u8> = slots.iter().map(|slot| slot % 4).collect();
        assert_eq!((slots.len(), lines.len()), (4, 4));
    }
}
