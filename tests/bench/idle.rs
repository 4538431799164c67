//! What the program takes before anybody asks it for anything: time to be ready and memory, with every bundled plugin switched on.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use bulkhead_testkit::process::Usage;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, ports};

use crate::median;
use crate::table::{Promise, Table};

/// How long after readiness memory is looked at: nothing of the start goes on any more.
const REST: Duration = Duration::from_secs(5);

/// Warm starts; the median counts.
const STARTS: usize = 5;

/// Adds the figures.
pub(crate) fn measure(table: &mut Table) {
    let configuration = everything();
    // An empty cache is there already, so that the testkit lends none: this start compiles.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(configuration.scratch.join("state/compiled"))
        .expect("a directory");
    let mut bulkhead = Bulkhead::with(configuration);
    add_ready(
        table,
        "ready, cold",
        bulkhead.ready_after.as_secs_f64(),
        15.0,
    );
    add_resident(
        table,
        "resident at idle, all bundled, after a cold start",
        &rested(&bulkhead),
    );
    let mut warm: Vec<f64> = (0..STARTS)
        .map(|_| {
            bulkhead.restart_after(Signal::Terminate);
            bulkhead.ready_after.as_secs_f64()
        })
        .collect();
    add_ready(table, "ready, warm cache", median(&mut warm), 0.5);
    add_resident(
        table,
        "resident at idle, all bundled, after a warm start",
        &rested(&bulkhead),
    );
}

fn rested(bulkhead: &Bulkhead) -> Usage {
    std::thread::sleep(REST);
    bulkhead.usage()
}

fn add_ready(table: &mut Table, name: &str, seconds: f64, most: f64) {
    table.add(name, seconds, Promise::AtMost(most), "s");
}

fn add_resident(table: &mut Table, name: &str, usage: &Usage) {
    let mib = usage.resident as f64 / f64::from(1 << 20);
    table.add(name, mib, Promise::AtMost(48.0), "MiB");
}

/// Every bundled plugin running, with as little around it as it accepts.
fn everything() -> Configuration {
    let configuration = Configuration::standard().foreman_at("https://127.0.0.1:1");
    let file = |name: &str, text: &str| {
        let path = configuration.scratch.file(name, text);
        format!("{:?}", path.display().to_string())
    };
    let (dns, tftp) = (ports::free(), ports::free());
    let boot = format!("{:?}", configuration.boot().display().to_string());
    let sections = [
        ("dhcp", "use_provider = \"dhcp-builtin\"".to_owned()),
        ("dhcp-builtin", String::new()),
        (
            "dhcp-isc",
            format!(
                "config = {}\nleases = {}",
                file("dhcpd.conf", "subnet 192.0.2.0 netmask 255.255.255.0 { }\n"),
                file("dhcpd.leases", "")
            ),
        ),
        (
            "dhcp-kea",
            "dhcp_kea_url = \"http://127.0.0.1:1/\"".to_owned(),
        ),
        ("discovery", String::new()),
        ("dns", "use_provider = \"dns-builtin\"".to_owned()),
        (
            "dns-builtin",
            format!("listen = [\"udp 127.0.0.1:{dns}\"]\nzones = [\"idle.example\"]"),
        ),
        (
            "dns-powerdns",
            format!(
                "powerdns_rest_url = \"http://127.0.0.1:1/api/v1/servers/localhost\"\npowerdns_rest_api_key = {}",
                file("powerdns-key", "key")
            ),
        ),
        ("dns-rfc2136", String::new()),
        (
            "pulpcore",
            "pulp_url = \"http://127.0.0.1:1\"\ncontent_app_url = \"http://127.0.0.1:1\""
                .to_owned(),
        ),
        ("registration", String::new()),
        (
            "templates",
            "template_url = \"http://127.0.0.1:1\"".to_owned(),
        ),
        (
            "tftp-server",
            format!("listen = [\"udp 127.0.0.1:{tftp}\"]\ntftproot = {boot}"),
        ),
    ];
    sections
        .into_iter()
        .fold(configuration, |configuration, (name, lines)| {
            configuration.feature(name, &format!("enabled = true\n{lines}"))
        })
}
