use bulkhead_core::{
    bundle::{Bundle, DmamapFlush, DmamapStrategy},
    ids::CpuId,
    stage2::Leaves,
};

use super::compile;
use crate::manifest::{check, check::tests::files, schema::Manifest};

fn manifest(text: &str) -> Vec<u8> {
    let manifest: Manifest = toml::from_str(text).expect("valid TOML");
    compile(&check(&manifest, &files()).expect("a good manifest")).expect("a good bundle")
}

const TWO: &str = r#"
    [machine]
    poweroff_when_all_stopped = true
    stage2 = "pages"
    [[vm]]
    name = "alpha"
    cpus = [2, 0]
    memory = "16 MiB"
    kernel = "Image"
    initrd = "initrd"
    [[vm.device]]
    pci = "0000:00:02.0"
    [[vm]]
    name = "beta"
    cpus = [1]
    memory = "32 MiB"
    ram_at = 0x8000_0000
    kernel = "Image"
    autostart = false
"#;

/// Would miss: a field of the manifest that never reaches the hypervisor.
#[test]
fn the_hypervisor_reads_what_the_manifest_says() {
    let bytes = manifest(TWO);
    let bundle = Bundle::parse(&bytes).expect("a good bundle");
    assert!(bundle.is_poweroff_when_all_stopped());
    assert_eq!(bundle.leaves(), Leaves::Pages);
    let [alpha, beta] = bundle.vms() else { panic!("two VMs") };
    assert_eq!((alpha.name(), beta.name()), ("alpha", "beta"));
    assert_eq!(alpha.cpus().collect::<Vec<_>>(), [CpuId(2), CpuId(0)]);
    assert_eq!((alpha.ram().size_bytes(), beta.ram().size_bytes()), (16 << 20, 32 << 20));
    assert_eq!((alpha.ram_phys(), beta.ram_phys().map(|address| address.as_u64())), (None, Some(0x8000_0000)));
    assert_eq!((alpha.is_autostart(), beta.is_autostart()), (true, false));
    assert_eq!((alpha.loads().len(), beta.loads().len()), (3, 2));
    assert_eq!(bundle.blob(&alpha.loads()[1]), [1; 5000]);
    assert_eq!(alpha.devices()[0].function().routing_id(), 0x10);
    assert_eq!(alpha.dtb().map(|address| address.as_u64()), Some(alpha.loads()[2].ipa));
}

/// Would miss: settings of DMA maps that stay behind in the manifest, or that go to the VM beside.
#[test]
fn the_hypervisor_reads_the_settings_of_dma_maps() {
    let maps =
        "[vm.dmamap]\nstrategy = \"magazine\"\nmaps = 99\n[[vm.device]]\npci = \"0000:00:03.0\"\ndma = \"dmamap\"\n";
    let bytes = manifest(&format!("{TWO}{maps}"));
    let bundle = Bundle::parse(&bytes).expect("a good bundle");
    let [alpha, beta] = bundle.vms() else { panic!("two VMs") };
    let dmamap = beta.dmamap().expect("it has maps");
    assert_eq!((dmamap.strategy, dmamap.flush), (DmamapStrategy::Magazine, DmamapFlush::Auto));
    assert_eq!((dmamap.maps, dmamap.tables, alpha.dmamap()), (99, 64, None));
}

/// Would miss: one kernel stored once for each VM, 44 MB a time.
#[test]
fn equal_blobs_are_stored_once() {
    let bytes = manifest(TWO);
    let bundle = Bundle::parse(&bytes).expect("a good bundle");
    assert_eq!(bundle.vms()[0].loads()[0].offset, bundle.vms()[1].loads()[0].offset);
}

/// Would miss: output that differs from run to run, so that no two builds can be compared.
#[test]
fn packing_is_deterministic() {
    assert_eq!(manifest(TWO), manifest(TWO));
}
