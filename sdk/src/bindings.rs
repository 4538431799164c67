//! The guest's side of `wit/`, generated.
//!
//! Everything a plugin may *import* stands in one world ([`imports`]); a component names in the end only what it really
//! calls, the linker drops the rest. What a plugin *exports* is one small world per interface, so that a component can
//! combine them freely: every plugin exports [`lifecycle_part`], a feature also [`feature_part`], and so on. Their
//! records are those of [`imports`], so that an author meets each type once.

/// All that can be imported, and all the records.
pub mod imports {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world imports {
                include foreman:proxy/host@0.1.0;
                import foreman:proxy/dns-provider@0.1.0;
                import foreman:proxy/dhcp-provider@0.1.0;
            }
        ",
        world: "bulkhead:sdk/imports",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        additional_derives: [PartialEq, Clone],
        generate_all,
        generate_unused_types: true,
    });
}

/// `lifecycle`, which every plugin exports.
pub mod lifecycle_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world lifecycle-part { export foreman:proxy/lifecycle@0.1.0; }
        ",
        world: "bulkhead:sdk/lifecycle-part",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        default_bindings_module: "bulkhead_sdk::bindings::lifecycle_part",
        pub_export_macro: true,
        export_macro_name: "export_lifecycle_part",
        with: { "foreman:proxy/types@0.1.0": crate::bindings::imports::foreman::proxy::types },
    });
}

/// `feature`: routes.
pub mod feature_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world feature-part { export foreman:proxy/feature@0.1.0; }
        ",
        world: "bulkhead:sdk/feature-part",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        default_bindings_module: "bulkhead_sdk::bindings::feature_part",
        pub_export_macro: true,
        export_macro_name: "export_feature_part",
        with: { "foreman:proxy/types@0.1.0": crate::bindings::imports::foreman::proxy::types },
    });
}

/// `reactor`: a network server.
pub mod reactor_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world reactor-part { export foreman:proxy/reactor@0.1.0; }
        ",
        world: "bulkhead:sdk/reactor-part",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        default_bindings_module: "bulkhead_sdk::bindings::reactor_part",
        pub_export_macro: true,
        export_macro_name: "export_reactor_part",
    });
}

/// `dns-provider`.
pub mod dns_provider_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world dns-provider-part { export foreman:proxy/dns-provider@0.1.0; }
        ",
        world: "bulkhead:sdk/dns-provider-part",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        default_bindings_module: "bulkhead_sdk::bindings::dns_provider_part",
        pub_export_macro: true,
        export_macro_name: "export_dns_provider_part",
        with: { "foreman:proxy/dns-types@0.1.0": crate::bindings::imports::foreman::proxy::dns_types },
    });
}

/// `dhcp-provider`.
pub mod dhcp_provider_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package bulkhead:sdk;
            world dhcp-provider-part { export foreman:proxy/dhcp-provider@0.1.0; }
        ",
        world: "bulkhead:sdk/dhcp-provider-part",
        runtime_path: "::bulkhead_sdk::__wit_bindgen::rt",
        default_bindings_module: "bulkhead_sdk::bindings::dhcp_provider_part",
        pub_export_macro: true,
        export_macro_name: "export_dhcp_provider_part",
        with: { "foreman:proxy/dhcp-types@0.1.0": crate::bindings::imports::foreman::proxy::dhcp_types },
    });
}
