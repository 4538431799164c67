//! Makes a component of a type that implements [`Plugin`].
//!
//! | The plugin holds | Write |
//! |---|---|
//! | a feature | `export_feature!(Mine);` |
//! | a provider of DNS records | `export_dns_provider!(Mine);` |
//! | a provider of DHCP reservations | `export_dhcp_provider!(Mine);` |
//! | a provider of an interface of your own | `export_provider!(Mine);` and your own `wit_bindgen::generate!` |
//! | a network service | `export_service!(Mine);` |
//! | several of them | `export_plugin!(Mine: feature, service);` |
//!
//! The macros do nothing but tie names together; what happens in a call stands in the functions below. Natively they only check that
//! the traits are there, so that a plugin builds and tests on the machine of its author.

use crate::answer;
use crate::bindings::imports::foreman::proxy::types::{self, BodyMode};
use crate::bindings::lifecycle_part::exports::foreman::proxy::lifecycle;
use crate::failure::Failure;
use crate::http::UpstreamError;
use crate::manifest::Manifest;
use crate::plugin::{Event, Plugin};
use crate::request::Request;

/// Exports a feature. See the [module](crate::export).
#[macro_export]
macro_rules! export_feature {
    ($plugin:ty) => {
        $crate::export_plugin!($plugin: feature);
    };
}

/// Exports a provider of DNS records. See the [module](crate::export).
#[macro_export]
macro_rules! export_dns_provider {
    ($plugin:ty) => {
        $crate::export_plugin!($plugin: dns_provider);
    };
}

/// Exports a provider of DHCP reservations. See the [module](crate::export).
#[macro_export]
macro_rules! export_dhcp_provider {
    ($plugin:ty) => {
        $crate::export_plugin!($plugin: dhcp_provider);
    };
}

/// Exports a network service. See the [module](crate::export).
#[macro_export]
macro_rules! export_service {
    ($plugin:ty) => {
        $crate::export_plugin!($plugin: service);
    };
}

/// Exports what every plugin has, for a provider whose own interface its author exports beside it. See the [module](crate::export).
#[macro_export]
macro_rules! export_provider {
    ($plugin:ty) => {
        $crate::export_plugin!($plugin:);
    };
}

/// Exports a plugin that holds several parts: `feature`, `service`, `dns_provider`, `dhcp_provider`. See the [module](crate::export).
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty: $($part:ident),* $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            /// The manifest of this instance, made once: `handle` must not build it for every call.
            static MANIFEST: ::std::sync::OnceLock<$crate::Manifest> = ::std::sync::OnceLock::new();

            struct Exported;

            impl Exported {
                fn manifest() -> &'static $crate::Manifest {
                    MANIFEST.get_or_init(<$plugin as $crate::Plugin>::describe)
                }
            }

            $crate::__export_part!($plugin: lifecycle);
            $($crate::__export_part!($plugin: $part);)*
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            fn is_plugin<T: $crate::Plugin>() {}
            const _: fn() = is_plugin::<$plugin>;
            $($crate::__check_part!($plugin: $part);)*
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __check_part {
    ($plugin:ty: feature) => {};
    ($plugin:ty: service) => {
        fn is_service<T: $crate::reactor::Service>() {}
        const _: fn() = is_service::<$plugin>;
    };
    ($plugin:ty: dns_provider) => {
        fn is_dns_provider<T: $crate::dns::DnsProvider>() {}
        const _: fn() = is_dns_provider::<$plugin>;
    };
    ($plugin:ty: dhcp_provider) => {
        fn is_dhcp_provider<T: $crate::dhcp::DhcpProvider>() {}
        const _: fn() = is_dhcp_provider::<$plugin>;
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_part {
    ($plugin:ty: lifecycle) => {
        impl $crate::bindings::lifecycle_part::exports::foreman::proxy::lifecycle::Guest for Exported {
            fn describe() -> $crate::bindings::imports::foreman::proxy::types::Manifest {
                Self::manifest().record().clone()
            }
            fn status() -> $crate::bindings::imports::foreman::proxy::types::PluginStatus {
                <$plugin as $crate::Plugin>::status().into_record()
            }
            fn start() -> ::std::result::Result<(), ::std::string::String> {
                <$plugin as $crate::Plugin>::start()
            }
            fn wake(
                events: ::std::vec::Vec<$crate::bindings::lifecycle_part::exports::foreman::proxy::lifecycle::Event>,
            ) -> ::std::option::Option<u32> {
                $crate::export::wake::<$plugin>(events)
            }
        }
        $crate::bindings::lifecycle_part::export_lifecycle_part!(Exported with_types_in $crate::bindings::lifecycle_part);
    };
    ($plugin:ty: feature) => {
        impl $crate::bindings::feature_part::exports::foreman::proxy::feature::Guest for Exported {
            fn handle(
                request: $crate::bindings::imports::foreman::proxy::types::Request,
            ) -> $crate::bindings::imports::foreman::proxy::types::Answer {
                $crate::export::handle(Self::manifest(), request)
            }
            fn on_upstream(
                keep: ::std::vec::Vec<u8>,
                got: ::std::result::Result<
                    $crate::bindings::imports::foreman::proxy::types::Head,
                    $crate::bindings::imports::foreman::proxy::types::UpstreamError,
                >,
            ) -> $crate::bindings::imports::foreman::proxy::types::Verdict {
                $crate::export::on_upstream::<$plugin>(keep, got)
            }
        }
        $crate::bindings::feature_part::export_feature_part!(Exported with_types_in $crate::bindings::feature_part);
    };
    ($plugin:ty: service) => {
        impl $crate::bindings::reactor_part::exports::foreman::proxy::reactor::Guest for Exported {
            fn datagrams(
                batch: ::std::vec::Vec<$crate::reactor::Datagram>,
            ) -> ::std::vec::Vec<$crate::reactor::Reaction> {
                <$plugin as $crate::reactor::Service>::datagrams(batch)
            }
        }
        $crate::bindings::reactor_part::export_reactor_part!(Exported with_types_in $crate::bindings::reactor_part);
    };
    ($plugin:ty: dns_provider) => {
        impl $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::Guest for Exported {
            fn find(
                name: ::std::string::String,
                kind: $crate::dns::RecordType,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::dns::DnsRecord>, $crate::dns::Error> {
                <$plugin as $crate::dns::DnsProvider>::find(name, kind)
            }
            fn create(wanted: $crate::dns::DnsRecord) -> ::std::result::Result<bool, $crate::dns::Error> {
                <$plugin as $crate::dns::DnsProvider>::create(wanted)
            }
            fn remove(
                name: ::std::string::String,
                kind: $crate::dns::RecordType,
                value: ::std::option::Option<::std::string::String>,
            ) -> ::std::result::Result<bool, $crate::dns::Error> {
                <$plugin as $crate::dns::DnsProvider>::remove(name, kind, value)
            }
        }
        $crate::bindings::dns_provider_part::export_dns_provider_part!(Exported with_types_in $crate::bindings::dns_provider_part);
    };
    ($plugin:ty: dhcp_provider) => {
        impl $crate::bindings::dhcp_provider_part::exports::foreman::proxy::dhcp_provider::Guest for Exported {
            fn subnets() -> ::std::result::Result<::std::vec::Vec<$crate::dhcp::Subnet>, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::subnets()
            }
            fn entries(
                subnet: ::std::string::String,
                cursor: ::std::option::Option<::std::string::String>,
                limit: u32,
            ) -> ::std::result::Result<$crate::dhcp::Page, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::entries(subnet, cursor, limit)
            }
            fn by_address(
                subnet: ::std::string::String,
                address: ::std::string::String,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::dhcp::Entry>, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::by_address(subnet, address)
            }
            fn by_identifier(
                subnet: ::std::string::String,
                who: $crate::dhcp::Identifier,
            ) -> ::std::result::Result<::std::vec::Vec<$crate::dhcp::Entry>, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::by_identifier(subnet, who)
            }
            fn in_use(
                subnet: ::std::string::String,
                addresses: ::std::vec::Vec<::std::string::String>,
            ) -> ::std::result::Result<::std::vec::Vec<bool>, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::in_use(subnet, addresses)
            }
            fn add(wanted: $crate::dhcp::Reservation) -> ::std::result::Result<bool, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::add(wanted)
            }
            fn remove(
                subnet: ::std::string::String,
                address: ::std::option::Option<::std::string::String>,
                who: ::std::option::Option<$crate::dhcp::Identifier>,
            ) -> ::std::result::Result<bool, $crate::dhcp::Error> {
                <$plugin as $crate::dhcp::DhcpProvider>::remove(subnet, address, who)
            }
        }
        $crate::bindings::dhcp_provider_part::export_dhcp_provider_part!(Exported with_types_in $crate::bindings::dhcp_provider_part);
    };
}

/// One call of `handle`: reads the parameters and runs the function of the route that the host matched.
#[must_use]
pub fn handle(manifest: &Manifest, request: types::Request) -> types::Answer {
    let accept = crate::request::header(&request.headers, "accept").map(str::to_owned);
    let refuse = |failure: &Failure| answer::failed(failure, accept.as_deref()).into_record();
    let index = request.route;
    let route = usize::try_from(index)
        .ok()
        .and_then(|index| manifest.record().routes.get(index));
    let read = match route {
        Some(route) if route.body == BodyMode::Passed => Ok(Request::unread(request)),
        _ => Request::read(request),
    };
    match read {
        Ok(request) => match manifest.answer(index, &request) {
            Some(answer) => answer.into_record(),
            None => refuse(&Failure::internal(format!(
                "the host named route {index}, which this plugin does not have"
            ))),
        },
        Err(failure) => refuse(&failure),
    }
}

/// One call of `on-upstream`.
#[must_use]
pub fn on_upstream<P: Plugin>(
    keep: Vec<u8>,
    got: Result<types::Head, types::UpstreamError>,
) -> types::Verdict {
    P::on_upstream(keep, got.map_err(UpstreamError::new))
}

/// One call of `wake`.
#[must_use]
pub fn wake<P: Plugin>(events: Vec<lifecycle::Event>) -> Option<u32> {
    let events: Vec<Event> = events
        .into_iter()
        .map(|event| match event {
            lifecycle::Event::Timer => Event::Timer,
            lifecycle::Event::FileChanged(slot) => Event::FileChanged(slot),
            lifecycle::Event::StoreChanged(slot) => Event::StoreChanged(slot),
        })
        .collect();
    P::wake(&events).map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}
