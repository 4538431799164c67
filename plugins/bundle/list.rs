// The first-party plugins, one a line: folder `plugins/NAME`, package `NAME-plugin`, policy `policies/NAME.toml`.
// The build script reads this list to build them, the crate to embed them.
first_party! {
    "dhcp",
    "dhcp-builtin",
    "dhcp-isc",
    "dhcp-kea",
    "discovery",
    "dns",
    "dns-builtin",
    "dns-powerdns",
    "dns-rfc2136",
    "facts",
    "httpboot",
    "pulpcore",
    "registration",
    "templates",
    "tftp",
    "tftp-server",
}
