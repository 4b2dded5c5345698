//! A VM's memory as its devices see it: a table of its own, apart from the CPU's.

use bulkhead_core::{
    addr::{AddrRange, Iova, Ipa, PhysAddr},
    ids::{SmmuId, Vmid},
    stage2::{Attributes, Mapping, S2Config, Stage2, Stage2Error, TableMemory},
};

use crate::retire::{Flushed, Unflushed};

/// Where an IOVA lies from what is mapped, for the line about a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the VM's RAM.
    Inside,
    /// Below it, by so many bytes.
    Below(u64),
    /// Past its last byte, by so many bytes; the first address past it is 0.
    Past(u64),
}

/// What the devices of a VM reach in identity mode: its RAM, IOVA = IPA, to read and write; nothing else.
///
/// Registers of devices, the interrupt controller and the hypervisor are not in it, whatever the CPU's table holds.
#[derive(Debug)]
pub struct DmaSpace {
    tree: Stage2<Iova>,
    ram: AddrRange<Iova>,
    vmid: Vmid,
}

impl DmaSpace {
    /// Maps the RAM at `ram` in the guest's eyes, at `phys` in truth, with the largest blocks.
    ///
    /// `input_bits` and `output_bits` are what every SMMU of the VM's devices can take in and put out.
    /// On error nothing has changed.
    pub fn identity(
        memory: &mut impl TableMemory,
        ram: AddrRange<Ipa>,
        phys: PhysAddr,
        input_bits: u8,
        output_bits: u8,
        vmid: Vmid,
    ) -> Result<Self, Stage2Error> {
        let end = ram.end().as_u64();
        let too_wide = Stage2Error::InputTooWide { end, bits: input_bits };
        let ram = AddrRange::new(Iova::identity(ram.start()), ram.size_bytes()).ok_or(too_wide)?;
        let mut tree = Stage2::new(memory, input_bits)?.with_output_bits(output_bits);
        match tree.map(memory, ram, phys, Attributes::DMA_RAM) {
            Ok(()) => Ok(Self { tree, ram, vmid }),
            Err(error) => {
                // No SMMU has seen it.
                tree.destroy(memory);
                Err(error)
            }
        }
    }

    /// What a stream table entry says of it.
    pub fn config(&self) -> S2Config {
        S2Config::of(&self.tree, self.vmid)
    }

    /// What a device's access to `iova` reaches.
    pub fn resolve(&self, memory: &impl TableMemory, iova: Iova) -> Option<Mapping> {
        self.tree.query(memory, iova)
    }

    /// Where `iova` lies.
    pub fn place_of(&self, iova: Iova) -> Place {
        match (self.ram.start().checked_sub(iova), iova.checked_sub(self.ram.end())) {
            (_, Some(past)) => Place::Past(past),
            (Some(below), None) if below > 0 => Place::Below(below),
            _ => Place::Inside,
        }
    }

    /// Takes it out of use: its streams are in abort already, the flush of the SMMUs that walked it is to come.
    pub fn retire(self, walkers: impl IntoIterator<Item = SmmuId>) -> Unflushed<Self> {
        let vmid = self.vmid;
        Unflushed::new(self, vmid, walkers)
    }

    /// Gives its tables back.
    pub fn destroy(retired: Flushed<Self>, memory: &mut impl TableMemory) {
        retired.into_inner().tree.destroy(memory);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bulkhead_core::{
        addr::{AddrRange, Iova, Ipa, PhysAddr},
        ids::{SmmuId, Vmid},
        stage2::{Access, Stage2Error, TableMemory},
        vplat::{GICD_BASE, PCI_MEM_BASE, RAM_BASE},
    };

    use super::{DmaSpace, Place};

    struct Pages(BTreeMap<u64, [u64; 512]>, u64);

    impl TableMemory for Pages {
        fn read(&self, table: PhysAddr, index: usize) -> u64 {
            self.0[&table.as_u64()][index]
        }
        fn write(&mut self, table: PhysAddr, index: usize, descriptor: u64) {
            self.0.get_mut(&table.as_u64()).expect("a table")[index] = descriptor;
        }
        fn alloc(&mut self) -> Option<PhysAddr> {
            self.1 += 4096;
            self.0.insert(self.1, [0; 512]);
            Some(PhysAddr::new(self.1))
        }
        fn free(&mut self, table: PhysAddr) {
            self.0.remove(&table.as_u64());
        }
    }

    const RAM: u64 = 256 << 20;

    fn space(memory: &mut Pages, output_bits: u8) -> Result<DmaSpace, Stage2Error> {
        let ram: AddrRange<Ipa> = AddrRange::new(RAM_BASE, RAM).expect("ram");
        let vmid = Vmid::new(1).expect("not zero");
        DmaSpace::identity(memory, ram, PhysAddr::new(0x1_2340_0000), 39, output_bits, vmid)
    }

    /// A device that could reach a register page, or run past its VM's RAM, shows here.
    #[test]
    fn holds_ram_and_nothing_else() {
        let mut memory = Pages(BTreeMap::new(), 0x1000);
        let space = space(&mut memory, 44).expect("a space");
        let reach = |iova: u64| space.resolve(&memory, Iova::new(iova));
        let last = reach(RAM_BASE.as_u64() + RAM - 1).expect("ram");
        assert_eq!(last.phys, PhysAddr::new(0x1_2340_0000 + RAM - 1));
        assert_eq!(last.attributes.access, Access::READ | Access::WRITE);
        assert_eq!(last.block_bytes, 2 << 20);
        for iova in
            [0, GICD_BASE.as_u64(), PCI_MEM_BASE.as_u64(), RAM_BASE.as_u64() - 1, RAM_BASE.as_u64() + RAM, u64::MAX]
        {
            assert_eq!(reach(iova), None, "{iova:#x}");
        }
        let place = |iova: u64| space.place_of(Iova::new(iova));
        assert_eq!(place(RAM_BASE.as_u64()), Place::Inside);
        assert_eq!(place(RAM_BASE.as_u64() - 1), Place::Below(1));
        assert_eq!(place(RAM_BASE.as_u64() + RAM - 1), Place::Inside);
        assert_eq!(place(RAM_BASE.as_u64() + RAM), Place::Past(0));
    }

    #[test]
    fn gives_its_tables_back_and_takes_none_on_error() {
        let mut memory = Pages(BTreeMap::new(), 0x1000);
        assert!(matches!(space(&mut memory, 32), Err(Stage2Error::OutputTooWide { .. })));
        assert!(memory.0.is_empty());
        let space = space(&mut memory, 44).expect("a space");
        assert!(space.retire([SmmuId(0)]).settle().is_err());
        let mut memory = Pages(BTreeMap::new(), 0x1000);
        let retired = self::space(&mut memory, 44).expect("a space").retire([]).settle().expect("no walker");
        DmaSpace::destroy(retired, &mut memory);
        assert!(memory.0.is_empty());
    }
}
