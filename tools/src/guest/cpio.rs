//! A cpio archive in the "newc" form that Linux takes for an initramfs.

use std::collections::BTreeMap;

const FILE: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

/// An archive being gathered. The same entries give the same bytes: sorted by path, no times, owner root.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// A regular file at `path` (no leading slash), with permission bits such as `0o755`.
    pub fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) {
        self.add(path, FILE | permissions, (0, 0), data);
    }

    /// A folder.
    pub fn directory(&mut self, path: &str) {
        self.add(path, DIRECTORY | 0o755, (0, 0), Vec::new());
    }

    /// A symbolic link at `path` to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, SYMLINK | 0o777, (0, 0), target.as_bytes().to_vec());
    }

    /// A character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE | 0o600, (major, minor), Vec::new());
    }

    /// The archive's bytes, trailer included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, entry)) in (1..).zip(&self.entries) {
            append(&mut out, inode, path, entry);
        }
        let trailer = Entry { mode: 0, device: (0, 0), data: Vec::new() };
        append(&mut out, 0, "TRAILER!!!", &trailer);
        out
    }

    /// Adds an entry and the folders above it.
    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), data: Vec<u8>) {
        for (slash, _) in path.match_indices('/') {
            let folder = Entry { mode: DIRECTORY | 0o755, device: (0, 0), data: Vec::new() };
            self.entries.entry(path[..slash].to_owned()).or_insert(folder);
        }
        self.entries.insert(path.to_owned(), Entry { mode, device, data });
    }
}

/// Header fields in the order of Documentation/driver-api/early-userspace/buffer-format.rst, eight hex digits each.
fn append(out: &mut Vec<u8>, inode: u32, path: &str, entry: &Entry) {
    let links = if entry.mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
    let name_bytes = path.len() + 1;
    let (major, minor) = entry.device;
    out.extend_from_slice(b"070701");
    let [owner, group, time, host_major, host_minor, checksum] = [0; 6];
    let fields = [inode, entry.mode, owner, group, links, time];
    let sizes = [entry.data.len(), name_bytes];
    for field in fields {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(format!("{:08x}", sizes[0]).as_bytes());
    for field in [host_major, host_minor, major, minor] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(format!("{:08x}{checksum:08x}", sizes[1]).as_bytes());
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(&entry.data);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::Archive;

    fn field(bytes: &[u8], index: usize) -> u32 {
        let start = 6 + index * 8;
        let text = std::str::from_utf8(&bytes[start..start + 8]).expect("ASCII");
        u32::from_str_radix(text, 16).expect("hex")
    }

    /// Would miss: a field out of its place, or data that does not start on four bytes.
    #[test]
    fn one_file_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("init", 0o755, b"hello".to_vec());
        let bytes = archive.to_bytes();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(field(&bytes, 1), 0o100_755, "mode");
        assert_eq!(field(&bytes, 4), 1, "links");
        assert_eq!(field(&bytes, 6), 5, "size");
        assert_eq!(field(&bytes, 11), 5, "name size with its zero");
        assert_eq!(&bytes[110..115], b"init\0");
        assert_eq!(&bytes[116..121], b"hello");
        assert_eq!(&bytes[124..130], b"070701", "the trailer follows on four bytes");
        assert!(bytes.len().is_multiple_of(4));
    }

    /// Would miss: a device node whose numbers land in the file system's fields.
    #[test]
    fn device_numbers_are_in_the_rdev_fields() {
        let mut archive = Archive::default();
        archive.character_device("console", 5, 1);
        let bytes = archive.to_bytes();
        assert_eq!((field(&bytes, 7), field(&bytes, 8), field(&bytes, 9), field(&bytes, 10)), (0, 0, 5, 1));
    }

    /// Would miss: a file whose folder is absent (the kernel then drops the file without a word).
    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.symlink("lib/aarch64/libc.so.6", "libc.so");
        archive.file("lib/aarch64/libc.so", 0o644, vec![1]);
        let bytes = archive.to_bytes();
        let at = |path: &[u8]| bytes.windows(path.len()).position(|window| window == path).expect("the entry exists");
        assert!(at(b"lib\0") < at(b"lib/aarch64\0"));
        assert!(at(b"lib/aarch64\0") < at(b"lib/aarch64/libc.so\0"));
    }

    /// Would miss: an order that depends on who came first, so that a cache never hits.
    #[test]
    fn the_order_of_adding_does_not_matter() {
        let (mut first, mut second) = (Archive::default(), Archive::default());
        first.file("a", 0o644, vec![1]);
        first.file("b", 0o644, vec![2]);
        second.file("b", 0o644, vec![2]);
        second.file("a", 0o644, vec![1]);
        assert_eq!(first.to_bytes(), second.to_bytes());
    }
}
