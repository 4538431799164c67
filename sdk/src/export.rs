//! Makes a component of a type that implements [`Plugin`].
//!
//! | The plugin holds | Write |
//! |---|---|
//! | a feature | `export_feature!(Mine);` |
//! | a provider of DNS records | `export_dns_provider!(Mine);` |
//! | a provider of an interface of your own | `export_provider!(Mine);` and your own `wit_bindgen::generate!` |
//! | a network service | `export_service!(Mine);` |
//! | several of them | `export_plugin!(Mine: feature, service);` |
//!
//! The macros do nothing but tie names together; what happens in a call stands in the functions below. Natively they only check that
//! the traits are there, so that a plugin builds and tests on the machine of its author.

use crate::answer;
use crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider as exported_dns;
use crate::bindings::imports::foreman::proxy::dns_provider as dns;
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

/// Exports a plugin that holds several parts: `feature`, `service`, `dns_provider`. See the [module](crate::export).
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
            ) -> ::std::vec::Vec<$crate::reactor::Datagram> {
                <$plugin as $crate::reactor::Service>::datagrams(batch)
            }
        }
        $crate::bindings::reactor_part::export_reactor_part!(Exported with_types_in $crate::bindings::reactor_part);
    };
    ($plugin:ty: dns_provider) => {
        impl $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::Guest for Exported {
            fn find(
                name: ::std::string::String,
                kind: $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::RecordType,
            ) -> ::std::result::Result<
                ::std::vec::Vec<$crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::DnsRecord>,
                $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::Error,
            > {
                $crate::export::dns_find::<$plugin>(name, kind)
            }
            fn create(
                wanted: $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::DnsRecord,
            ) -> ::std::result::Result<bool, $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::Error> {
                $crate::export::dns_create::<$plugin>(wanted)
            }
            fn remove(
                name: ::std::string::String,
                kind: $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::RecordType,
                value: ::std::option::Option<::std::string::String>,
            ) -> ::std::result::Result<bool, $crate::bindings::dns_provider_part::exports::foreman::proxy::dns_provider::Error> {
                $crate::export::dns_remove::<$plugin>(name, kind, value)
            }
        }
        $crate::bindings::dns_provider_part::export_dns_provider_part!(Exported with_types_in $crate::bindings::dns_provider_part);
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
            lifecycle::Event::SettingsChanged => Event::SettingsChanged,
        })
        .collect();
    P::wake(&events).map(|time| u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}

/// One call of a provider's `find`.
///
/// # Errors
/// Those of the provider.
#[doc(hidden)]
pub fn dns_find<P: crate::dns::DnsProvider>(
    name: String,
    kind: exported_dns::RecordType,
) -> Result<Vec<exported_dns::DnsRecord>, exported_dns::Error> {
    let records = P::find(name, kind.into()).map_err(exported_dns::Error::from)?;
    Ok(records
        .into_iter()
        .map(exported_dns::DnsRecord::from)
        .collect())
}

/// One call of a provider's `create`.
///
/// # Errors
/// Those of the provider.
#[doc(hidden)]
pub fn dns_create<P: crate::dns::DnsProvider>(
    wanted: exported_dns::DnsRecord,
) -> Result<bool, exported_dns::Error> {
    let exported_dns::DnsRecord {
        name,
        kind,
        value,
        ttl,
    } = wanted;
    P::create(dns::DnsRecord {
        name,
        kind: kind.into(),
        value,
        ttl,
    })
    .map_err(exported_dns::Error::from)
}

/// One call of a provider's `remove`.
///
/// # Errors
/// Those of the provider.
#[doc(hidden)]
pub fn dns_remove<P: crate::dns::DnsProvider>(
    name: String,
    kind: exported_dns::RecordType,
    value: Option<String>,
) -> Result<bool, exported_dns::Error> {
    P::remove(name, kind.into(), value).map_err(exported_dns::Error::from)
}

// The exported interface has records of its own; authors see those of the import only, whichever side they write.
impl From<exported_dns::RecordType> for dns::RecordType {
    fn from(kind: exported_dns::RecordType) -> Self {
        match kind {
            exported_dns::RecordType::A => Self::A,
            exported_dns::RecordType::Aaaa => Self::Aaaa,
            exported_dns::RecordType::Cname => Self::Cname,
            exported_dns::RecordType::Ptr => Self::Ptr,
            exported_dns::RecordType::Srv => Self::Srv,
        }
    }
}

impl From<dns::DnsRecord> for exported_dns::DnsRecord {
    fn from(record: dns::DnsRecord) -> Self {
        let kind = match record.kind {
            dns::RecordType::A => exported_dns::RecordType::A,
            dns::RecordType::Aaaa => exported_dns::RecordType::Aaaa,
            dns::RecordType::Cname => exported_dns::RecordType::Cname,
            dns::RecordType::Ptr => exported_dns::RecordType::Ptr,
            dns::RecordType::Srv => exported_dns::RecordType::Srv,
        };
        Self {
            name: record.name,
            kind,
            value: record.value,
            ttl: record.ttl,
        }
    }
}

impl From<dns::Error> for exported_dns::Error {
    fn from(error: dns::Error) -> Self {
        match error {
            dns::Error::Conflict(text) => Self::Conflict(text),
            dns::Error::Refused(text) => Self::Refused(text),
            dns::Error::NotAuthoritative(text) => Self::NotAuthoritative(text),
            dns::Error::Timeout(text) => Self::Timeout(text),
            dns::Error::Unreachable(text) => Self::Unreachable(text),
            dns::Error::Other(text) => Self::Other(text),
        }
    }
}
