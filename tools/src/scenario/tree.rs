//! QEMU's own device tree, with nodes that its machine does not have.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, ensure};
use dtoolkit::{
    fdt::Fdt,
    model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty},
};
use serde::Deserialize;

use crate::{qemu::QemuLine, setup::qemu::PROGRAM};

/// A node below the root.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraNode {
    /// Name and unit address.
    name: String,
    /// Its one `compatible` string.
    compatible: String,
    /// Its `reg`, in cells.
    reg: Vec<u32>,
}

/// Writes the tree of the machine of `line`, with `nodes`, to `path`.
///
/// # Errors
/// When QEMU does not give its tree, or a node has a name that none can have.
pub fn write(line: &QemuLine, nodes: &[ExtraNode], path: &Path) -> Result<()> {
    let mut arguments = line.as_slice().to_vec();
    let machine = arguments.iter().rposition(|argument| argument == "-M").context("no machine")? + 1;
    let machine = arguments.get_mut(machine).context("no machine")?;
    machine.push_str(&format!(",dumpdtb={}", path.display()));
    let status = Command::new(PROGRAM).args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    ensure!(status.context("QEMU cannot be started")?.success(), "QEMU does not give its device tree");
    let tree = extend(&fs::read(path)?, nodes)?;
    fs::write(path, tree).with_context(|| format!("writing {}", path.display()))
}

fn extend(tree: &[u8], nodes: &[ExtraNode]) -> Result<Vec<u8>> {
    let fdt = Fdt::new(tree).map_err(|error| anyhow!("QEMU's device tree: {error}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    for extra in nodes {
        let bad = |error| anyhow!("node {}: {error}", extra.name);
        let mut node = DeviceTreeNode::new(extra.name.as_str()).map_err(bad)?;
        node.add_property(DeviceTreeProperty::new("compatible", extra.compatible.as_str()).map_err(bad)?);
        node.add_property(DeviceTreeProperty::new("reg", extra.reg.as_slice()).map_err(bad)?);
        tree.root.add_child(node);
    }
    Ok(tree.to_dtb())
}

#[cfg(test)]
mod tests {
    use dtoolkit::{Node, Property, fdt::Fdt, model::DeviceTree};

    use super::{ExtraNode, extend};

    /// Would miss: a node that is lost, or that takes another's place.
    #[test]
    fn nodes_are_added_to_what_there_is() {
        let extra = |name: &str| ExtraNode { name: name.into(), compatible: "a,b".into(), reg: vec![0, 1, 0, 2] };
        let first = extend(&DeviceTree::new().to_dtb(), &[extra("pmu@1")]).expect("a tree");
        let both = extend(&first, &[extra("pmu@2")]).expect("a tree");
        let fdt = Fdt::new(&both).expect("a tree");
        for name in ["pmu@1", "pmu@2"] {
            let node = fdt.root().child(name).expect(name);
            assert_eq!(node.property("compatible").expect("compatible").value(), b"a,b\0");
        }
    }
}
