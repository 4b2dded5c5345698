use std::{collections::BTreeMap, io};

use bulkhead_core::{bundle::DmamapRecord, ids::PciFunction};

use super::{Checked, Files, check};
use crate::{
    guest::dtb::Seed,
    manifest::{Problem, schema::Manifest},
};

/// Files in memory.
#[derive(Default)]
pub struct FakeFiles(BTreeMap<String, Vec<u8>>);

impl Files for FakeFiles {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        self.0.get(path).cloned().ok_or_else(missing)
    }

    fn seed(&self, _vm: &str) -> io::Result<Seed> {
        Ok([7; 64])
    }
}

/// A kernel of `image_size` bytes in memory.
pub fn image(image_size: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

/// A kernel of 4 MiB, an initrd, an ELF file.
pub fn files() -> FakeFiles {
    let files = [("Image", image(4 << 20)), ("initrd", vec![1; 5000]), ("vmlinux", b"\x7fELF\x02".repeat(20))];
    FakeFiles(files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect())
}

fn vm(name: &str, cpus: &str, more: &str) -> String {
    let base = format!("[[vm]]\nname = \"{name}\"\ncpus = {cpus}\n");
    let has = |key: &str| more.lines().any(|line| line.starts_with(key));
    let memory = if has("memory") { "" } else { "memory = \"16 MiB\"\n" };
    let kernel = if has("kernel") { "" } else { "kernel = \"Image\"\n" };
    format!("{base}{memory}{kernel}{more}\n")
}

fn device(pci: &str) -> String {
    format!("[[vm.device]]\npci = \"{pci}\"\n")
}

fn judge(text: &str) -> Result<Checked, Vec<Problem>> {
    check(&toml::from_str(text).expect("valid TOML"), &files())
}

fn problems(text: &str) -> Vec<Problem> {
    judge(text).expect_err("the manifest is bad")
}

fn the_problem(text: &str) -> Problem {
    let mut problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

fn function(routing_id: u16) -> PciFunction {
    PciFunction::from_routing_id(0, routing_id)
}

/// Would miss: blobs over each other, or an initrd inside of the kernel's BSS.
#[test]
fn a_good_manifest_has_its_parts_in_order() {
    let text = vm("a", "[0, 1]", "initrd = \"initrd\"\ncmdline = \"quiet\"\n[[vm.device]]\npci = \"0000:00:02.0\"\n");
    let checked = judge(&text).expect("a good manifest");
    let payload = &checked.vms[0].payload;
    assert_eq!(payload.kernel.ipa.as_u64(), 0x4000_0000);
    assert_eq!(payload.initrd.as_ref().expect("an initrd").ipa.as_u64(), 0x4040_0000);
    assert_eq!(payload.dtb.ipa.as_u64(), 0x4060_0000);
    assert_eq!(checked.vms[0].devices[0].function(), function(0x10));
    assert!(checked.vms[0].autostart && !checked.poweroff_when_all_stopped);
}

#[test]
fn vms_are_counted() {
    assert_eq!(the_problem(""), Problem::NoVms);
    let nine: String = (0..9).map(|n| vm(&format!("vm{n}"), &format!("[{n}]"), "")).collect();
    assert_eq!(the_problem(&nine), Problem::TooManyVms { count: 9 });
}

#[test]
fn names_are_checked() {
    for name in ["", "Upper", "under_score", "seventeen-letters"] {
        assert_eq!(the_problem(&vm(name, "[0]", "")), Problem::Name { name: name.to_owned() });
    }
    let twice = vm("a", "[0]", "") + &vm("a", "[1]", "");
    assert_eq!(the_problem(&twice), Problem::NameTwice { name: "a".to_owned() });
}

#[test]
fn cpus_are_checked() {
    let count = |count| Problem::CpuCount { vm: "a".to_owned(), count };
    assert_eq!(the_problem(&vm("a", "[]", "")), count(0));
    assert_eq!(the_problem(&vm("a", "[0,1,2,3,4,5,6,7,8]", "")), count(9));
    let twice = |vm: &str, cpu| Problem::CpuTwice { vm: vm.to_owned(), cpu, owner: "a".to_owned() };
    assert_eq!(the_problem(&(vm("a", "[0, 1]", "") + &vm("b", "[1]", ""))), twice("b", 1));
    assert_eq!(the_problem(&vm("a", "[2, 2]", "")), twice("a", 2));
    let absent = Problem::CpuAbsent { vm: "a".to_owned(), cpu: 256, last: 255 };
    assert_eq!(the_problem(&vm("a", "[256]", "")), absent);
}

#[test]
fn memory_is_checked() {
    let vm_with = |memory: &str| vm("a", "[0]", &format!("memory = \"{memory}\""));
    let name = || "a".to_owned();
    assert_eq!(the_problem(&vm_with("512")), Problem::MemorySyntax { vm: name(), text: "512".to_owned() });
    assert_eq!(the_problem(&vm_with("0 MiB")), Problem::MemoryUnaligned { vm: name(), bytes: 0 });
    assert_eq!(the_problem(&vm_with("17 MiB")), Problem::MemoryUnaligned { vm: name(), bytes: 17 << 20 });
    let limit = 511 << 30;
    assert_eq!(the_problem(&vm_with("512 GiB")), Problem::MemoryTooLarge { vm: name(), bytes: 512 << 30, limit });
    assert!(judge(&vm_with("511 GiB")).is_ok());
    assert_eq!(the_problem(&vm_with("2 MiB")), Problem::DoesNotFit { vm: name(), needed: 5, present: 2 });
}

#[test]
fn physical_places_are_checked() {
    let at = |vm_name: &str, cpu: &str, address: &str| vm(vm_name, cpu, &format!("ram_at = {address}"));
    assert!(matches!(the_problem(&at("a", "[0]", "0x8010_0000")), Problem::RamAtUnaligned { .. }));
    let huge = vm("a", "[0]", "memory = \"511 GiB\"\nram_at = 0x7fff_ffff_ffe0_0000");
    assert!(judge(&huge).is_ok());
    let overlap = at("a", "[0]", "0x8000_0000") + &at("b", "[1]", "0x80e0_0000");
    assert!(matches!(the_problem(&overlap), Problem::RamOverlap { .. }));
    let beside = at("a", "[0]", "0x8000_0000") + &at("b", "[1]", "0x8100_0000");
    assert!(judge(&beside).is_ok());
}

#[test]
fn kernels_are_checked() {
    let with = |kernel: &str| the_problem(&vm("a", "[0]", &format!("kernel = \"{kernel}\"")));
    assert!(matches!(with("nowhere"), Problem::KernelUnreadable { path, .. } if path == "nowhere"));
    assert!(matches!(with("vmlinux"), Problem::KernelNotImage { found, .. } if found == "an ELF file"));
    assert!(matches!(with("initrd"), Problem::KernelNotImage { found, .. } if found.contains("magic")));
    let initrd = the_problem(&vm("a", "[0]", "initrd = \"nowhere\""));
    assert!(matches!(initrd, Problem::InitrdUnreadable { .. }));
}

#[test]
fn command_lines_are_checked() {
    let with = |cmdline: &str| judge(&vm("a", "[0]", &format!("cmdline = \"{cmdline}\"")));
    assert!(with(&"x".repeat(2047)).is_ok());
    assert!(with(&"x".repeat(2048)).is_err());
    assert!(with("tab\\t").is_err());
    assert!(with("größe").is_err());
}

#[test]
fn devices_are_checked() {
    for wrong in ["", "00:02.0", "0000:00:20.0", "0000:00:02.8", "0000:00:2.0", "zzzz:00:02.0", "0000:00:02.0 "] {
        let problem = Problem::PciSyntax { vm: "a".to_owned(), text: wrong.to_owned() };
        assert_eq!(the_problem(&vm("a", "[0]", &device(wrong))), problem);
    }
    let two = vm("a", "[0]", &device("0000:00:02.0")) + &vm("b", "[1]", &device("0000:00:02.0"));
    let twice = Problem::DeviceTwice { vm: "b".to_owned(), device: function(0x10), owner: "a".to_owned() };
    assert_eq!(the_problem(&two), twice);
    let mode = vm("a", "[0]", &(device("0000:00:02.0") + "dma = \"bypass\"\n"));
    assert!(matches!(the_problem(&mode), Problem::DmaMode { mode, .. } if mode == "bypass"));
    let nine: String = (0..9).map(|slot| device(&format!("0000:00:{slot:02x}.0"))).collect();
    assert_eq!(the_problem(&vm("a", "[0]", &nine)), Problem::TooManyDevices { vm: "a".to_owned(), count: 9 });
}

fn with_maps(settings: &str) -> String {
    vm("a", "[0]", &format!("[vm.dmamap]\n{settings}\n{}dma = \"dmamap\"\n", device("0000:00:02.0")))
}

/// Would miss: a setting that is read and thrown away, or a default that differs from the reference.
#[test]
fn dma_maps_have_settings_and_defaults() {
    let record = |text: &str| judge(text).expect("a good manifest").vms[0].dmamap;
    assert_eq!(record(&vm("a", "[0]", &device("0000:00:02.0"))), DmamapRecord::default());
    let defaults = DmamapRecord { strategy: 0, flush: 0, maps: 1024, tables: 64, deferred_pages: 0, deferred_ms: 0 };
    assert_eq!(record(&with_maps("")), defaults);
    let without_table = vm("a", "[0]", &(device("0000:00:02.0") + "dma = \"dmamap\"\n"));
    assert_eq!(record(&without_table), defaults);
    let all = "strategy = \"one-to-one\"\nflush = \"deferred\"\nmaps = 7\ntables = 8\ndeferred_ms = 9";
    let expected = DmamapRecord { strategy: 4, flush: 4, maps: 7, tables: 8, deferred_pages: 256, deferred_ms: 9 };
    assert_eq!(record(&with_maps(all)), expected);
}

/// Would miss: a setting that is silently replaced by another, or a VM with RAM and maps in one table.
#[test]
fn dma_maps_are_checked() {
    let text = |manifest: &str| the_problem(manifest).to_string();
    let number = |key, value, max| Problem::DmamapNumber { vm: "a".to_owned(), key, value, max };
    assert_eq!(the_problem(&with_maps("maps = 0")), number("maps", 0, 16_384));
    assert_eq!(the_problem(&with_maps("tables = 513")), number("tables", 513, 512));
    assert_eq!(the_problem(&with_maps("maps = 4294967297")), number("maps", (1 << 32) + 1, 16_384));
    let deferred = "flush = \"deferred\"\n";
    assert_eq!(the_problem(&with_maps(&format!("{deferred}deferred_ms = 101"))), number("deferred_ms", 101, 100));
    let pages = the_problem(&with_maps(&format!("{deferred}deferred_pages = 4097")));
    assert_eq!(pages, number("deferred_pages", 4097, 4096));
    assert_eq!(
        text(&with_maps("strategy = \"fast\"")),
        "vm a: dmamap.strategy \"fast\" is unknown: write one of reserve, per-load, per-segment, magazine, one-to-one, bitmap"
    );
    assert!(matches!(the_problem(&with_maps("flush = \"never\"")), Problem::DmamapName { key: "dmamap.flush", .. }));
    assert_eq!(
        text(&with_maps("deferred_ms = 1")),
        "vm a: dmamap.deferred_ms means nothing with flush \"auto\": leave it out, or write flush = \"deferred\""
    );
    let mixed = with_maps("") + &device("0000:00:03.0");
    let other = Problem::MixedDma {
        vm: "a".to_owned(),
        device: "0000:00:03.0".to_owned(),
        mode: "identity".to_owned(),
        first: "dmamap".to_owned(),
    };
    assert_eq!(the_problem(&mixed), other);
    let unused = vm("a", "[0]", &format!("[vm.dmamap]\n{}", device("0000:00:02.0")));
    assert_eq!(the_problem(&unused), Problem::DmamapUnused { vm: "a".to_owned() });
    let bare = vm("a", "[0]", &format!("[vm.nested]\n{}", device("0000:00:02.0")));
    assert_eq!(the_problem(&bare), Problem::NestedUnused { vm: "a".to_owned() });
    let nested = |settings: &str| {
        let device = device("0000:00:02.0") + "dma = \"nested\"\n";
        vm("a", "[0]", &format!("[vm.nested]\n{settings}\n{device}"))
    };
    assert!(matches!(the_problem(&nested("flush = \"never\"")), Problem::DmamapName { key: "nested.flush", .. }));
    assert_eq!(judge(&nested("flush = \"each\"")).expect("good").vms[0].nested_flush, 4);
    assert_eq!(problems(&with_maps("strategy = \"x\"\nflush = \"y\"\nmaps = 0\ntables = 0")).len(), 4);
}

/// Would miss: a check that ends at the first problem.
#[test]
fn every_problem_is_found_at_once() {
    let text = vm("A", "[]", "memory = \"1\"\nkernel = \"nowhere\"\n[[vm.device]]\npci = \"x\"\ndma = \"y\"\n");
    assert_eq!(problems(&text).len(), 6);
}

/// Would miss: a misspelt field that is ignored, so that the default holds without a word.
#[test]
fn unknown_fields_are_refused() {
    let unknown = |text: &str| toml::from_str::<Manifest>(text).expect_err("an unknown field").to_string();
    assert!(unknown(&vm("a", "[0]", "autostrat = false")).contains("autostrat"));
    assert!(unknown("[machine]\npower = 1\n").contains("power"));
    assert!(unknown(&vm("a", "[0]", "[[vm.device]]\npci = \"0000:00:02.0\"\nmode = 1\n")).contains("mode"));
    assert!(unknown(&with_maps("table = 1")).contains("table"));
}

/// Would miss: a message without the value or without the way out.
#[test]
fn messages_name_the_thing_its_value_and_the_remedy() {
    let text = the_problem(&vm("a", "[0]", "memory = \"17 MiB\"")).to_string();
    assert_eq!(text, "vm a: memory 0x1100000 bytes is not a multiple of 2 MiB above zero: round it up to 18 MiB");
}
