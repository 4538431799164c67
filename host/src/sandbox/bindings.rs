//! The host's side of `wit/`, generated. Every other module uses these types, so that a record crosses from a component to
//! the network without being copied into a twin.

#[allow(
    missing_docs,
    unreachable_pub,
    unused,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package bulkhead:host;
            /// Everything a first-party component may export. The host binds each export interface on its own.
            world every-export {
                include foreman:proxy/host@0.1.0;
                import foreman:proxy/dns-provider@0.1.0;
                import foreman:proxy/dhcp-provider@0.1.0;
                export foreman:proxy/lifecycle@0.1.0;
                export foreman:proxy/feature@0.1.0;
                export foreman:proxy/reactor@0.1.0;
                export foreman:proxy/dns-provider@0.1.0;
                export foreman:proxy/dhcp-provider@0.1.0;
            }
        ",
        world: "bulkhead:host/every-export",
        imports: { default: async },
        exports: { default: async },
        additional_derives: [Clone, serde::Serialize, serde::Deserialize],
    });
}

pub use generated::exports::foreman::proxy as exports;
pub use generated::foreman::proxy as imports;
pub use generated::foreman::proxy::types;
