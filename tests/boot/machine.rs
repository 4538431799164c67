//! A machine without an operating system: QEMU with one network card, which boots from its network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use bulkhead_testkit::eventually::until_within;
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::scratch::Scratch;

/// Without hardware virtualisation and beside other tests, firmware takes its time.
const PATIENCE: Duration = Duration::from_secs(240);

/// How the machine starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// SeaBIOS with the PXE code in the card's ROM.
    Bios,
    /// OVMF, which boots over HTTP.
    Uefi,
}

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A running machine. It is switched off with this value.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    console: PathBuf,
    _files: Scratch,
}

impl Machine {
    /// Switches one on, its card at this interface of the network.
    pub(crate) fn start(
        network: &Namespace,
        tap: &str,
        mac: &str,
        firmware: Firmware,
    ) -> Result<Self, String> {
        let files = Scratch::new();
        let console = files.join("console");
        let mut command = network.command("qemu-system-x86_64");
        command
            .args(["-accel", "tcg", "-m", "512", "-nographic", "-no-reboot"])
            .args(["-monitor", "none", "-serial"])
            .arg(format!("file:{}", console.display()))
            .arg("-netdev")
            .arg(format!("tap,id=net,ifname={tap},script=no,downscript=no"));
        let card = format!("virtio-net-pci,netdev=net,mac={mac},bootindex=1");
        match firmware {
            Firmware::Bios => {
                command.args(["-device", &card]);
            }
            Firmware::Uefi => {
                let variables = files.join("variables.fd");
                fs::copy(Path::new(VARIABLES), &variables)
                    .map_err(|error| format!("{VARIABLES} (Debian: ovmf): {error}"))?;
                command
                    .args(["-machine", "q35", "-drive"])
                    .arg(format!("if=pflash,format=raw,readonly=on,file={CODE}"))
                    .arg("-drive")
                    .arg(format!("if=pflash,format=raw,file={}", variables.display()))
                    // Set up to boot over HTTP; else it would wait for PXE servers of IPv6 first.
                    .args(["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"])
                    .args(["-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"])
                    // The firmware has a driver of its own; the card's ROM would only take its place.
                    .args(["-device", &format!("{card},romfile=")]);
            }
        }
        let complaints = File::create(files.join("complaints"));
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints.map_or_else(|_| Stdio::null(), Stdio::from))
            .spawn()
            .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
        Ok(Self {
            child,
            console,
            _files: files,
        })
    }

    /// What it wrote to its serial console so far.
    pub(crate) fn console(&self) -> String {
        let bytes = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it is done (or switched itself off) and answers the lines that the booted system wrote, without their mark.
    pub(crate) fn booted(&mut self) -> Vec<String> {
        until_within(PATIENCE, || {
            let ended = self.child.try_wait().ok().flatten().is_some();
            (ended || self.console().contains("@DONE")).then_some(())
        });
        self.console()
            .lines()
            .filter_map(|line| line.trim().strip_prefix('@').map(str::to_owned))
            .collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
