//! Interrupt specifiers of the GIC's device tree binding.

use super::tree::{Cells, Path, Tree};
use crate::ids::IntId;

/// What raises an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// A rising or falling edge.
    Edge,
    /// A level, held until the device is served.
    Level,
}

/// An interrupt of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Its number at the GIC.
    pub id: IntId,
    /// What raises it.
    pub trigger: Trigger,
}

/// How specifiers of the GIC are read.
#[derive(Clone, Copy)]
pub struct Controller {
    /// The GIC's phandle.
    pub phandle: u32,
    /// `#interrupt-cells`: 3, or 4 where PPIs have affinities.
    pub cells: usize,
}

impl Controller {
    /// Takes one specifier: kind (0 SPI, 1 PPI, 2 extended SPI, 3 extended PPI), number, flags (1, 2 edge; 4, 8 level), …
    pub fn decode(self, cells: &mut Cells<'_>) -> Option<Interrupt> {
        let (kind, number, flags) = (cells.next()?, cells.next()?, cells.next()?);
        cells.skip_cells(self.cells.checked_sub(3)?)?;
        let (base, count) = match kind {
            0 => (32, 988),
            1 => (16, 16),
            2 => (4096, 1024),
            3 => (1056, 64),
            _ => return None,
        };
        let trigger = match flags & 0xf {
            1 | 2 => Trigger::Edge,
            _ => Trigger::Level,
        };
        (number < count).then_some(Interrupt { id: IntId(base + number), trigger })
    }

    /// The interrupt called `name` in `interrupt-names`; without that property, the one at `place`.
    pub fn interrupt(self, tree: &Tree<'_>, path: &Path<'_>, name: &str, place: usize) -> Option<Interrupt> {
        let place = match path.node().property("interrupt-names") {
            Some(names) => names.strings().position(|candidate| candidate == name)?,
            None => place,
        };
        self.nth(tree, path, place)
    }

    /// The interrupt at `place`; `None` also when it does not go to the GIC.
    pub fn nth(self, tree: &Tree<'_>, path: &Path<'_>, place: usize) -> Option<Interrupt> {
        let node = path.node();
        if let Some(extended) = node.property("interrupts-extended") {
            let mut cells = extended.cells();
            for _ in 0..place {
                let phandle = cells.next()?;
                cells.skip_cells(self.cells_of(tree, phandle)?)?;
            }
            return (cells.next()? == self.phandle).then(|| self.decode(&mut cells))?;
        }
        let parent = path.inherited(|node| node.cell("interrupt-parent"))?;
        if parent != self.phandle {
            return None;
        }
        let mut cells = node.property("interrupts")?.cells();
        cells.skip_cells(place.checked_mul(self.cells)?)?;
        self.decode(&mut cells)
    }

    fn cells_of(self, tree: &Tree<'_>, phandle: u32) -> Option<usize> {
        if phandle == self.phandle {
            return Some(self.cells);
        }
        usize::try_from(tree.by_phandle(phandle)?.node().cell("#interrupt-cells")?).ok()
    }
}
