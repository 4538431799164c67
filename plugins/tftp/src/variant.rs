//! Which files a boot loader reads. Source: `contract/tftp.md`.

use std::fmt;
use std::str::FromStr;

use bulkhead_sdk::MacAddress;

/// The kinds of boot loader Foreman knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    Pxelinux,
    Pxegrub,
    Pxegrub2,
    Ipxe,
    Ztp,
    Poap,
}

impl Variant {
    /// The files of one host, below the root. All get the same content; the first is the one to read.
    ///
    /// `01` is the ARP hardware type of Ethernet, which loaders put before the address; it stays so for InfiniBand.
    pub(crate) fn host_files(self, mac: &MacAddress) -> Vec<String> {
        match self {
            Self::Pxelinux => vec![format!("pxelinux.cfg/01-{}", mac.dash_lower())],
            Self::Pxegrub => vec![
                format!("grub/menu.lst.01{}", mac.bare_upper()),
                format!("grub/01-{}", mac.dash_upper()),
            ],
            Self::Pxegrub2 => vec![
                format!("grub2/grub.cfg-01-{}", mac.dash_lower()),
                format!("grub2/grub.cfg-{}", mac.colon_lower()),
            ],
            Self::Ipxe => vec![format!("pxelinux.cfg/01-{}.ipxe", mac.dash_lower())],
            Self::Ztp => vec![
                format!("ztp.cfg/{}", mac.bare_upper()),
                format!("ztp.cfg/{}.cfg", mac.bare_upper()),
            ],
            Self::Poap => vec![format!("poap.cfg/{}", mac.bare_upper())],
        }
    }

    /// The files for hosts without their own. Those of ZTP and POAP have the name of the directory of the host files, so that
    /// one excludes the other; Foreman lives with it.
    pub(crate) fn default_files(self) -> Vec<String> {
        let files: &[&str] = match self {
            Self::Pxelinux => &["pxelinux.cfg/default"],
            Self::Pxegrub => &["grub/menu.lst", "grub/efidefault"],
            Self::Pxegrub2 => &["grub2/grub.cfg"],
            Self::Ipxe => &["pxelinux.cfg/default.ipxe"],
            Self::Ztp => &["ztp.cfg"],
            Self::Poap => &["poap.cfg"],
        };
        files.iter().map(|&file| file.to_owned()).collect()
    }
}

/// Foreman sent a kind that this plugin does not know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownVariant(String);

impl FromStr for Variant {
    type Err = UnknownVariant;

    /// Foreman writes `PXELinux`, `PXEGrub2`, ...; case does not matter.
    fn from_str(sent: &str) -> Result<Self, Self::Err> {
        match sent.to_ascii_lowercase().as_str() {
            "syslinux" | "pxelinux" => Ok(Self::Pxelinux),
            "pxegrub" => Ok(Self::Pxegrub),
            "pxegrub2" => Ok(Self::Pxegrub2),
            "ipxe" => Ok(Self::Ipxe),
            "ztp" => Ok(Self::Ztp),
            "poap" => Ok(Self::Poap),
            _ => Err(UnknownVariant(sent.to_owned())),
        }
    }
}

impl fmt::Display for UnknownVariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Unrecognized pxeboot config type: {}", self.0)
    }
}
