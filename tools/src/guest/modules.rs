//! Kernel modules out of a Debian package: what each depends on, in loading order.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Every module of one kernel, by name (`-` written as `_`).
#[derive(Debug)]
pub struct ModuleTree {
    paths: BTreeMap<String, PathBuf>,
}

/// A module ready for the initramfs.
#[derive(Debug)]
pub struct Module {
    /// Its name, `-` written as `_`.
    pub name: String,
    /// The ELF file, decompressed.
    pub data: Vec<u8>,
}

impl ModuleTree {
    /// Looks through `folder` (`/lib/modules/VERSION`) for `*.ko` and `*.ko.xz`.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn scan(folder: &Path) -> Result<Self> {
        let mut paths = BTreeMap::new();
        collect(folder, &mut paths).with_context(|| format!("looking for modules in {}", folder.display()))?;
        Ok(Self { paths })
    }

    /// `wanted` and all that they depend on, each once and after what it depends on.
    ///
    /// # Errors
    /// When a module is neither here nor built in, or cannot be decompressed.
    pub fn resolve(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut loaded = Vec::new();
        for name in wanted {
            self.visit(name, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn visit(&self, name: &str, loaded: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if loaded.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let path =
            self.paths.get(&name).with_context(|| format!("kernel module {name} is not in the kernel's package"))?;
        let data = read_module(path).with_context(|| format!("reading {}", path.display()))?;
        for dependency in dependencies(&data) {
            self.visit(&dependency, loaded)?;
        }
        loaded.push(Module { name, data });
        Ok(())
    }
}

fn collect(folder: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, paths)?;
        } else if let Some(name) = module_name(&path) {
            paths.insert(name, path);
        }
    }
    Ok(())
}

fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let name = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"))?;
    Some(name.replace('-', "_"))
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let mut data = Vec::new();
    let mut input = BufReader::new(File::open(path)?);
    lzma_rs::xz_decompress(&mut input, &mut data).map_err(|error| anyhow::anyhow!("xz: {error:?}"))?;
    Ok(data)
}

/// The names in the `depends=` string of `.modinfo`: a list of zero-terminated `key=value` strings.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{dependencies, module_name};

    /// Would miss: a list that is read past its end, or an empty one taken for a module without a name.
    #[test]
    fn dependencies_are_the_names_of_the_modinfo_string() {
        assert_eq!(dependencies(b"ELF\0depends=net_failover,dca\0name=x\0"), ["net_failover", "dca"]);
        assert!(dependencies(b"ELF\0depends=\0name=x\0").is_empty());
        assert!(dependencies(b"ELF").is_empty());
    }

    /// Would miss: `i2c-algo-bit` being asked for as `i2c_algo_bit`, as modules name it.
    #[test]
    fn names_are_written_with_underscores() {
        assert_eq!(module_name(Path::new("/x/i2c-algo-bit.ko.xz")).as_deref(), Some("i2c_algo_bit"));
        assert_eq!(module_name(Path::new("/x/modules.dep")), None);
    }
}
