//! What a machine boots: Debian's kernel, an initial RAM disk made here, and the loaders an administrator puts into the TFTP directory.
//!
//! The kernel's package is unpacked once below the target directory; nothing of it is installed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_testkit::program::executable;
use bulkhead_testkit::skip::program;

/// Kernel modules of a virtual network card, in the order in which they need each other.
const MODULES: [&str; 8] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
];

/// The first program of the booted system. It says on the console what it did, a line a step.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
echo "@KERNEL $(cat /proc/cmdline)"
ifconfig eth0 up
udhcpc -i eth0 -n -q -t 10 -T 2 -s /lease
foreman=$(sed -n 's/.*foreman.url=\([^ ]*\).*/\1/p' /proc/cmdline)
wget -q -O /answer "$foreman/unattended/provision?token=booting" && echo "@PROVISION $(head -n1 /answer)"
wget -q -O /answer "$foreman/unattended/built?token=booting" && echo "@BUILT"
echo "@DONE"
poweroff -f
"#;

/// What the DHCP client of the booted system does with its lease.
const LEASE: &str = r#"#!/bin/busybox sh
case $1 in
bound|renew) ifconfig $interface $ip netmask $subnet; echo "@ADDRESS $ip";;
deconfig) ifconfig $interface 0.0.0.0 up;;
esac
"#;

/// Everything a boot directory needs.
#[derive(Debug)]
pub(crate) struct Media {
    kernel: PathBuf,
    initrd: Vec<u8>,
}

impl Media {
    /// Prepares it; `Err` says what this machine misses.
    pub(crate) fn prepare() -> Result<Self, String> {
        let unpacked = kernel_package()?;
        let boot = unpacked.join("boot");
        let kernel = find(&boot, "vmlinuz-")?;
        let modules = find(&unpacked.join("lib/modules"), "")?.join("kernel");
        let busybox = program("busybox").ok_or("busybox is missing (Debian: busybox-static)")?;
        let mut disk = Archive::default();
        disk.directory("bin");
        disk.directory("modules");
        disk.file("bin/busybox", 0o755, &read(&busybox)?);
        for (index, module) in MODULES.iter().enumerate() {
            let path = modules.join(format!("{module}.ko"));
            let name = module.rsplit('/').next().unwrap_or(module);
            disk.file(&format!("modules/{index}-{name}.ko"), 0o644, &read(&path)?);
        }
        disk.file("init", 0o755, INIT.as_bytes());
        disk.file("lease", 0o755, LEASE.as_bytes());
        Ok(Self {
            kernel,
            initrd: disk.finish(),
        })
    }

    /// Puts kernel, disk and loaders into a boot directory, as an administrator would.
    pub(crate) fn install(&self, root: &Path) -> Result<(), String> {
        let boot = root.join("boot");
        let grub = root.join("grub2");
        for directory in [&boot, &grub] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        copy(&self.kernel, &boot.join("vmlinuz"))?;
        fs::write(boot.join("initrd.img"), &self.initrd).map_err(|error| error.to_string())?;
        for (from, to) in [
            ("/usr/lib/PXELINUX/pxelinux.0", "pxelinux.0"),
            ("/usr/lib/syslinux/modules/bios/ldlinux.c32", "ldlinux.c32"),
        ] {
            copy(Path::new(from), &root.join(to))?;
        }
        let loader = grub.join("grubx64.efi");
        let made = Command::new("grub-mkimage")
            .args(["-O", "x86_64-efi", "-p", "/httpboot/grub2", "-o"])
            .arg(&loader)
            .args([
                "http",
                "efinet",
                "net",
                "normal",
                "linux",
                "echo",
                "configfile",
                "regexp",
                "test",
            ])
            .output()
            .map_err(|error| format!("grub-mkimage (Debian: grub-common): {error}"))?;
        if made.status.success() {
            Ok(())
        } else {
            Err(format!(
                "grub-mkimage (Debian: grub-efi-amd64-bin): {}",
                String::from_utf8_lossy(&made.stderr)
            ))
        }
    }
}

/// Debian's kernel for virtual machines, unpacked below the target directory.
fn kernel_package() -> Result<PathBuf, String> {
    let target = executable();
    let target = target.ancestors().nth(2).ok_or("no target directory")?;
    let place = target.join("boot-test");
    let unpacked = place.join("kernel");
    fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    // Tests run side by side and want it at the same time: one unpacks, the others wait for it.
    let lock = File::create(place.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if unpacked.join("boot").is_dir() {
        return Ok(unpacked);
    }
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-cloud-amd64"]))?;
    let name = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image"))
        .map(|rest| format!("linux-image{rest}"))
        .ok_or("no package linux-image-cloud-amd64 is known here")?;
    output(
        Command::new("apt-get")
            .args(["download", "-q", &name])
            .current_dir(&place),
    )?;
    let package = find(&place, &name)?;
    let fresh = place.join("kernel.new");
    let _ = fs::remove_dir_all(&fresh);
    output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&fresh))?;
    fs::rename(&fresh, &unpacked).map_err(|error| error.to_string())?;
    let _ = fs::remove_file(package);
    Ok(unpacked)
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {said}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn find(directory: &Path, prefix: &str) -> Result<PathBuf, String> {
    fs::read_dir(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| format!("nothing called {prefix}* in {}", directory.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("{}: {error}", from.display()))
}

/// A cpio archive of the form `newc`, which Linux unpacks as its first file system.
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("no file here is that large");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        // Inode, mode, owner, group, links, time, size, device (4 numbers), length of the name, checksum.
        let numbers = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes
                .extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
