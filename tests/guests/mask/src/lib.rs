//! Is whoever its bytes say it is, for tests of who is believed. The component holds a text that a test overwrites with one of the same length
//! ([`MASK`]): so one guest stands for any number of files, each with a digest of its own.
//!
//! The text is `key=value` pairs, each ended by `;`, filled up with spaces:
//!
//! | Key | |
//! |---|---|
//! | `name` | the plugin's name |
//! | `mount` | the path prefix it claims; below it `GET /song` answers `song` |
//! | `song` | what it sings |
//! | `audience` | `foreman`, `host` or `public` |
//! | `need` | a files slot it cannot run without |
//! | `call` | a slot by which it calls another plugin |
//! | `describe` | `lies` differently each time, `dies`, or `spins` for ever |
//! | `start` | `fails` |

use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;

use bulkhead_sdk::dns;
use bulkhead_sdk::prelude::*;

/// Begins with a mark that a test can find. Its length is part of what tests know: 16 bytes of mark, 496 of text.
static MASK: [u8; 512] =
    mask(b"@@MASK-OF-GUEST@name=mask;mount=/mask;song=it is me;audience=foreman;");

const fn mask(text: &[u8]) -> [u8; 512] {
    let mut mask = [b' '; 512];
    let (start, _) = mask.split_at_mut(text.len());
    start.copy_from_slice(text);
    mask
}

struct Mask;

impl Plugin for Mask {
    fn describe() -> Manifest {
        let version = match value("describe").as_str() {
            "lies" => format!("0.0.{}", RandomState::new().hash_one(0)),
            "dies" => std::process::abort(),
            "spins" => loop {
                black_box(());
            },
            _ => env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mount = value("mount");
        let route = get(&format!("{mount}/song"));
        let route = match value("audience").as_str() {
            "public" => route.public(),
            "host" => route.for_hosts(),
            _ => route,
        };
        let mut manifest = Manifest::new(&value("name"), &version, "Is whoever its bytes say")
            .mount(&mount)
            .route(route, |_: &Request| value("song"));
        let (need, call) = (value("need"), value("call"));
        if !need.is_empty() {
            manifest = manifest.need(Need::files(&need, Access::Read, "would like to have it"));
        }
        if !call.is_empty() {
            manifest = manifest.need(Need::call(&call, dns::INTERFACE, "calls around").optional());
        }
        manifest
    }

    fn start() -> Result<(), String> {
        match value("start").as_str() {
            "fails" => Err("it does not want to".to_owned()),
            _ => Ok(()),
        }
    }
}

bulkhead_sdk::export_feature!(Mask);

/// Read at run time: what the compiler knows is not what stands there.
fn value(key: &str) -> String {
    let mask = black_box(&MASK);
    let text = String::from_utf8_lossy(mask.get(16..).unwrap_or_default()).into_owned();
    text.split(';')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::testing::Host;

    #[test]
    fn it_is_what_its_bytes_say() {
        let host = Host::new().install();
        assert_eq!(host.get::<Mask>("/mask/song").text(), "it is me");
        assert_eq!(value("absent"), "");
    }
}
