//! Builds every first-party plugin.

use bulkhead_builder::Plugin;

macro_rules! first_party {
    ($($name:literal),* $(,)?) => {
        const PLUGINS: &[Plugin] = &[$(Plugin {
            name: $name,
            package: concat!($name, "-plugin"),
            folder: concat!("plugins/", $name),
        }),*];
    };
}

include!("list.rs");

fn main() {
    println!("cargo::rerun-if-changed=list.rs");
    println!("cargo::rerun-if-changed=build.rs");
    bulkhead_builder::main(PLUGINS);
}
