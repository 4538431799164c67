//! The first-party plugins, embedded: what the one binary carries so that it needs no other file to start.
//!
//! It holds bytes and shipped policies only; reading, checking and running them is the host's work.
//!
//! The list stands in `list.rs` beside this crate's manifest; a new plugin is one line there.

/// One embedded plugin.
#[derive(Debug, Clone, Copy)]
pub struct Bundled {
    /// The plugin's name, the same as in its manifest.
    pub name: &'static str,
    /// The component.
    pub wasm: &'static [u8],
    /// The SHA-256 of the component, as `sha256:<hex>`, worked out when it was built.
    pub digest: &'static str,
    /// The shipped policy, `policies/NAME.toml`: the least the plugin needs.
    pub policy: &'static str,
}

macro_rules! first_party {
    ($($name:literal),* $(,)?) => {
        /// Every first-party plugin.
        pub static PLUGINS: &[Bundled] = &[$(Bundled {
            name: $name,
            wasm: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
            digest: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".digest")),
            policy: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/", $name, ".toml")),
        }),*];
    };
}

include!("../list.rs");

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::PLUGINS;

    #[test]
    fn every_plugin_is_a_component() {
        for plugin in PLUGINS {
            assert_eq!(
                plugin.wasm.get(..8),
                Some(&b"\0asm\x0d\0\x01\0"[..]),
                "{} is no component",
                plugin.name
            );
        }
    }

    #[test]
    fn every_digest_is_that_of_its_component() {
        for plugin in PLUGINS {
            let hex: String = Sha256::digest(plugin.wasm)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(plugin.digest, format!("sha256:{hex}"), "{}", plugin.name);
        }
    }

    #[test]
    fn every_policy_is_for_its_plugin() {
        for plugin in PLUGINS {
            let line = format!("plugin = \"{}\"", plugin.name);
            assert!(
                plugin.policy.lines().any(|found| found == line),
                "policies/{}.toml lacks {line}",
                plugin.name
            );
        }
    }
}
