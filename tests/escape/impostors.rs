//! First-party plugins whose author turned: each is replaced by the attacker, which has its name, its needs and its settings, and runs under the very
//! policy that Bulkhead ships for it.
//!
//! A row says who tries what, and what comes of it. Rows that work show that the stage is set; everything else has to be denied and told, or to meet no
//! door at all. In the end no canary may have been reached, and no file may have changed, but by what works.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead_testkit::bind::private;
use bulkhead_testkit::exchange::form_encoded;
use bulkhead_testkit::foreman::{Foreman, Recorded, reply};
use bulkhead_testkit::namespace::Namespace;
use bulkhead_testkit::{Bulkhead, Configuration, run, scratch, skip};

use crate::stage::{SONG, quoted};

/// What comes of an attempt.
#[derive(Debug, Clone, Copy)]
enum Comes {
    /// It works, and its answer holds this.
    Works(&'static str),
    /// It is denied, and the operator is told in these words.
    Denied(&'static str),
    /// There is no such door: nothing to find, nothing to tell.
    Shut,
}

use Comes::{Denied, Shut, Works};

/// Who, by which route of the attacker, with which query, and what comes of it. Names in braces are the stage's.
type Row = (&'static str, &'static str, &'static str, Comes);

/// The plugins that Foreman and hosts talk to, and the providers behind them.
#[rustfmt::skip]
const FEATURES: &[Row] = &[
    // `dns` calls its provider and can do nothing else.
    ("dns", "call", "name=www.example.com", Works("records")),
    ("dns", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("dns", "tcp", "address=127.0.0.1:53", Denied("connect by TCP to 127.0.0.1:53")),
    ("dns", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("dns", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("dns", "listen", "address=127.0.0.1:0", Shut),
    ("dns", "read", "path={tftproot}/menu", Shut),
    ("dns", "read", "path=/etc/passwd", Shut),
    ("dns", "leases", "", Denied("dhcp-provider")),
    ("dns", "sign", "slot=key", Denied("`key`")),
    ("dns", "reveal", "slot=key", Denied("`key`")),
    ("dns", "store", "slot=zones&key=a", Denied("store slot `zones`")),
    ("dns", "foreman", "slot=provisioning&method=GET&target=/unattended/provision", Denied("/unattended/provision")),
    ("dns", "http", "slot=api&method=GET&target=/", Denied("http slot `api`")),
    // `dns-rfc2136` reaches its server, by both protocols, and signs with its key.
    ("dns-rfc2136", "tcp", "address=127.0.0.1:53", Works(SONG)),
    ("dns-rfc2136", "udp", "address=127.0.0.1:53&text=x", Works(SONG)),
    ("dns-rfc2136", "sign", "slot=key", Works("")),
    ("dns-rfc2136", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("dns-rfc2136", "udp", "address=127.0.0.1:{canary}&text=x", Denied("udp 127.0.0.1:{canary}")),
    ("dns-rfc2136", "tcp", "address=127.0.0.2:53", Denied("connect by TCP to 127.0.0.2:53")),
    ("dns-rfc2136", "tcp", "address=127.0.0.1:{admin}", Denied("127.0.0.1:{admin}")),
    ("dns-rfc2136", "tcp", "address=169.254.169.254:53", Denied("169.254.169.254:53")),
    ("dns-rfc2136", "resolve", "name=ns.example.com", Denied("ns.example.com")),
    ("dns-rfc2136", "listen", "address=127.0.0.1:0", Shut),
    ("dns-rfc2136", "read", "path={key}", Shut),
    ("dns-rfc2136", "read", "path=/etc/passwd", Shut),
    ("dns-rfc2136", "watch", "slot=key&path={key}", Denied("watch slot `key`")),
    ("dns-rfc2136", "reveal", "slot=key", Denied("`key`")),
    ("dns-rfc2136", "store", "slot=zones&key=a", Denied("store slot `zones`")),
    ("dns-rfc2136", "leases", "", Denied("dhcp-provider")),
    // `dhcp` asks its provider, holds addresses, probes: no socket, no file.
    ("dhcp", "leases", "", Works("1 subnets")),
    ("dhcp", "store", "slot=held&key=a", Works("revision")),
    ("dhcp", "probe", "slot=addresses&address=10.77.0.1&count=1", Works("Answered")),
    ("dhcp", "probe", "slot=addresses&address=192.0.2.1&count=1", Denied("192.0.2.1")),
    ("dhcp", "probe", "slot=addresses&address=127.0.0.1&count=1", Denied("127.0.0.1")),
    ("dhcp", "tcp", "address=127.0.0.1:{omapi}", Denied("connect by TCP to 127.0.0.1:{omapi}")),
    ("dhcp", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("dhcp", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("dhcp", "listen", "address=127.0.0.1:0", Shut),
    ("dhcp", "read", "path={leases}", Shut),
    ("dhcp", "write", "path={leases}&text=x", Shut),
    ("dhcp", "watch", "slot=leases&path={leases}", Denied("watch slot `leases`")),
    ("dhcp", "call", "name=www.example.com", Denied("dns-provider")),
    ("dhcp", "keys", "what=scan&slot=leases", Denied("store slot `leases`")),
    // `dhcp-isc` reads its two files and reaches its one port; it writes neither.
    ("dhcp-isc", "watch", "slot=config&path={config}", Works("subnet 192.0.2.0")),
    ("dhcp-isc", "watch", "slot=leases&path={leases}", Works(SONG)),
    ("dhcp-isc", "tcp", "address=127.0.0.1:{omapi}", Works(SONG)),
    ("dhcp-isc", "sign", "slot=key", Works("")),
    ("dhcp-isc", "watch", "slot=config&path={beside}", Denied("{beside}")),
    ("dhcp-isc", "watch", "slot=config&path={leases}", Denied("{leases}")),
    ("dhcp-isc", "watch", "slot=config&path=/etc/passwd", Denied("/etc/passwd")),
    ("dhcp-isc", "watch", "slot=leases&path={leases}/../dhcpd.conf", Denied("dhcpd.conf")),
    ("dhcp-isc", "read", "path={leases}", Shut),
    ("dhcp-isc", "write", "path={leases}&text=x", Shut),
    ("dhcp-isc", "write", "path={config}&text=x", Shut),
    ("dhcp-isc", "use", "what=truncate&path={leases}", Shut),
    ("dhcp-isc", "remove", "path={config}", Shut),
    ("dhcp-isc", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("dhcp-isc", "tcp", "address=127.0.0.2:{omapi}", Denied("connect by TCP to 127.0.0.2:{omapi}")),
    ("dhcp-isc", "udp", "address=127.0.0.1:{omapi}&text=x", Denied("UDP socket")),
    ("dhcp-isc", "reveal", "slot=key", Denied("`key`")),
    ("dhcp-isc", "store", "slot=held&key=a", Denied("store slot `held`")),
    ("dhcp-isc", "call", "name=www.example.com", Denied("dns-provider")),
    // `templates` asks Foreman for what machines need, and sees nothing of this machine.
    ("templates", "foreman", "slot=provisioning&method=GET&target=/unattended/provision", Works(SONG)),
    ("templates", "forward", "slot=provisioning&method=POST&target=/unattended/built", Works(SONG)),
    ("templates", "foreman", "slot=provisioning&method=GET&target=/api/v2/hosts", Denied("/api/v2/hosts")),
    ("templates", "forward", "slot=provisioning&method=GET&target=/api/v2/hosts", Denied("/api/v2/hosts")),
    ("templates", "foreman", "slot=provisioning&method=GET&target=/unattended/%252e%252e/api", Denied("/unattended/")),
    ("templates", "foreman", "slot=provisioning&method=GET&target=/unattended/;/../../api", Denied("/unattended/")),
    ("templates", "foreman", "slot=provisioning&method=GET&target=//unattended/provision", Denied("//unattended/provision")),
    ("templates", "foreman", "slot=provisioning&method=DELETE&target=/unattended/provision", Denied("DELETE /unattended/provision")),
    ("templates", "foreman", "slot=provisioning&method=PUT&target=/unattended/built", Denied("PUT /unattended/built")),
    ("templates", "foreman", "slot=provisioning&method=GET&target=http://127.0.0.1:{canary}/unattended/x", Denied("127.0.0.1:{canary}")),
    ("templates", "http", "slot=provisioning&method=GET&target=http://127.0.0.1:{canary}/", Denied("127.0.0.1:{canary}")),
    ("templates", "leases", "", Denied("dhcp-provider")),
    ("templates", "call", "name=www.example.com", Denied("dns-provider")),
    ("templates", "watch", "slot=leases&path={leases}", Denied("watch slot `leases`")),
    ("templates", "read", "path={leases}", Shut),
    ("templates", "read", "path={tftproot}/menu", Shut),
    ("templates", "read", "path=/root/menu", Shut),
    ("templates", "file", "slot=root&path=menu", Denied("files slot `root`")),
    ("templates", "write", "path={tftproot}/menu&text=x", Shut),
    ("templates", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("templates", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("templates", "listen", "address=127.0.0.1:0", Shut),
    ("templates", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("templates", "store", "slot=held&key=a", Denied("store slot `held`")),
    ("templates", "download", "slot=boot-files&url=http://127.0.0.1:{canary}/x&path=x", Denied("boot-files")),
];

/// The other plugins that hosts and installers talk to, and those that ask one server on Foreman's behalf.
#[rustfmt::skip]
const HOSTS: &[Row] = &[
    // `registration` asks Foreman for one path.
    ("registration", "foreman", "slot=register&method=GET&target=/register?a=1", Works(SONG)),
    ("registration", "forward", "slot=register&method=POST&target=/register", Works(SONG)),
    ("registration", "foreman", "slot=register&method=GET&target=/register/x", Denied("/register/x")),
    ("registration", "forward", "slot=register&method=GET&target=/api/v2/hosts", Denied("/api/v2/hosts")),
    ("registration", "foreman", "slot=register&method=GET&target=/register/../api/v2/hosts", Denied("/register/../api/v2/hosts")),
    ("registration", "foreman", "slot=register&method=GET&target=/unattended/provision", Denied("/unattended/provision")),
    ("registration", "foreman", "slot=register&method=DELETE&target=/register", Denied("DELETE /register")),
    ("registration", "forward", "slot=register&method=PUT&target=/register", Denied("PUT /register")),
    ("registration", "foreman", "slot=provisioning&method=GET&target=/unattended/provision", Denied("/unattended/provision")),
    ("registration", "foreman", "slot=register&method=GET&target=http://127.0.0.1:{canary}/register", Denied("127.0.0.1:{canary}")),
    ("registration", "http", "slot=register&method=GET&target=http://127.0.0.1:{canary}/register", Denied("127.0.0.1:{canary}")),
    // `discovery` hands facts to one path of Foreman, and reaches machines of its networks at the paths of their image.
    ("discovery", "foreman", "slot=discovered-hosts&method=POST&target=/api/v2/discovered_hosts/facts", Works(SONG)),
    ("discovery", "http", "slot=nodes&method=GET&target=https://127.0.0.1:{node}/inventory/facter", Works(SONG)),
    ("discovery", "foreman", "slot=discovered-hosts&method=GET&target=/api/v2/discovered_hosts/facts", Denied("GET /api/v2/discovered_hosts/facts")),
    ("discovery", "forward", "slot=discovered-hosts&method=POST&target=/api/v2/hosts", Denied("POST /api/v2/hosts")),
    ("discovery", "foreman", "slot=discovered-hosts&method=DELETE&target=/api/v2/discovered_hosts/1", Denied("DELETE /api/v2/discovered_hosts/1")),
    ("discovery", "http", "slot=nodes&method=GET&target=https://127.0.0.1:{node}/", Denied("https://127.0.0.1:{node}/")),
    ("discovery", "http", "slot=nodes&method=DELETE&target=https://127.0.0.1:{node}/inventory/facter", Denied("DELETE")),
    ("discovery", "http", "slot=nodes&method=GET&target=https://127.0.0.2:{node}/inventory/facter", Denied("127.0.0.2")),
    ("discovery", "http", "slot=nodes&method=GET&target=https://127.0.0.1:{canary}/inventory/facter", Denied("127.0.0.1:{canary}")),
    ("discovery", "http", "slot=nodes&method=GET&target=http://127.0.0.1:{node}/inventory/facter", Denied("http://127.0.0.1:{node}")),
    ("discovery", "http", "slot=nodes&method=GET&target=https://localhost:{node}/inventory/facter", Denied("localhost")),
    ("discovery", "http", "slot=nodes&method=GET&target=https://169.254.169.254:{node}/inventory/facter", Denied("169.254.169.254")),
    ("discovery", "http", "slot=old-nodes&method=GET&target=http://127.0.0.1:8443/bmc/127.0.0.1/chassis/power/cycle", Denied("GET")),
    // `pulpcore` asks one path of one server.
    ("pulpcore", "http", "slot=pulp&method=GET&target=/pulp/api/v3/status/", Works(SONG)),
    ("pulpcore", "http", "slot=pulp&method=GET&target=/pulp/api/v3/users/", Denied("/pulp/api/v3/users/")),
    ("pulpcore", "forward", "slot=pulp&method=GET&target=/pulp/api/v3/status/../users/", Denied("/pulp/api/v3/status/../users/")),
    ("pulpcore", "http", "slot=pulp&method=POST&target=/pulp/api/v3/status/", Denied("POST")),
    ("pulpcore", "http", "slot=pulp&method=GET&target=http://127.0.0.1:{canary}/pulp/api/v3/status/", Denied("127.0.0.1:{canary}")),
    ("pulpcore", "foreman", "slot=register&method=GET&target=/register", Denied("GET /register")),
    // `facts` reads its files and no others, and tells them nobody but who asks.
    ("facts", "read", "path=/kernel-name/ostype", Works("Linux")),
    ("facts", "read", "path=/hosts/passwd", Denied("files slot `hosts`")),
    ("facts", "read", "path=/hosts/../passwd", Denied("`../passwd`")),
    ("facts", "file", "slot=hosts&path=shadow", Denied("files slot `hosts`")),
    ("facts", "read", "path=/kernel-name/../../../proc/1/environ", Denied("environ")),
    ("facts", "read", "path=/devices/../kernel/uevent_seqnum", Denied("`../kernel/uevent_seqnum`")),
    ("facts", "list", "path=/devices/virtual/net/lo/subsystem", Denied("virtual/net/lo/subsystem")),
    ("facts", "write", "path=/hosts/hosts&text=x", Denied("write `hosts`")),
    ("facts", "write", "path=/devices/virtual/net/lo/mtu&text=1", Denied("write `virtual/net/lo/mtu`")),
    ("facts", "foreman", "slot=register&method=GET&target=/register", Denied("GET /register")),
    ("facts", "http", "slot=pulp&method=GET&target=http://127.0.0.1:{canary}/", Denied("127.0.0.1:{canary}")),
];

/// Doors that none of these has: this machine's files, leases, sockets, names, keys, other plugins.
#[rustfmt::skip]
const NOBODYS: &[(&str, &str, Comes)] = &[
    ("read", "path={leases}", Shut),
    ("read", "path={tftproot}/menu", Shut),
    ("read", "path=/root/menu", Shut),
    ("read", "path=/etc/passwd", Shut),
    ("write", "path={tftproot}/menu&text=x", Shut),
    ("file", "slot=root&path=menu", Denied("files slot `root`")),
    ("watch", "slot=leases&path={leases}", Denied("watch slot `leases`")),
    ("leases", "", Denied("dhcp-provider")),
    ("call", "name=www.example.com", Denied("dns-provider")),
    ("tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("tcp", "address=127.0.0.1:{admin}", Denied("connect by TCP to 127.0.0.1:{admin}")),
    ("udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("listen", "address=127.0.0.1:0", Shut),
    ("resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("store", "slot=held&key=a", Denied("store slot `held`")),
    ("reveal", "slot=key", Denied("`key`")),
    ("download", "slot=boot-files&url=http://127.0.0.1:{canary}/x&path=x", Denied("boot-files")),
    ("probe", "slot=addresses&address=127.0.0.1&count=1", Denied("probe slot `addresses`")),
];

/// The servers that are built in.
#[rustfmt::skip]
const SERVERS: &[Row] = &[
    // `tftp-server` reads below its root, and writes nowhere.
    ("tftp-server", "read", "path=/root/menu", Works(SONG)),
    ("tftp-server", "file", "slot=root&path=menu", Works(SONG)),
    ("tftp-server", "read", "path=/root/../state/approvals.json", Denied("../state/approvals.json")),
    ("tftp-server", "read", "path=/root/../tls/server-key.pem", Denied("../tls/server-key.pem")),
    ("tftp-server", "read", "path=/root/out/dhcpd.leases", Denied("out/dhcpd.leases")),
    ("tftp-server", "file", "slot=root&path=out/dhcpd.leases", Denied("out/dhcpd.leases")),
    ("tftp-server", "read", "path=/etc/passwd", Shut),
    ("tftp-server", "write", "path=/root/new&text=x", Denied("write `new`")),
    ("tftp-server", "write", "path=/root/menu&text=x", Denied("write `menu`")),
    ("tftp-server", "use", "what=append&path=/root/menu", Denied("write `menu`")),
    ("tftp-server", "use", "what=truncate&path=/root/menu", Denied("write `menu`")),
    ("tftp-server", "use", "what=mkdir&path=/root/made", Denied("write `made`")),
    ("tftp-server", "remove", "path=/root/menu", Denied("write `menu`")),
    ("tftp-server", "rename", "path=/root/menu&to=/root/other", Denied("below files slot `root`")),
    ("tftp-server", "download", "slot=boot-files&url=http://127.0.0.1:{canary}/x&path=x", Denied("boot-files")),
    ("tftp-server", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("tftp-server", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("tftp-server", "listen", "address=127.0.0.1:0", Shut),
    ("tftp-server", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("tftp-server", "http", "slot=api&method=GET&target=/", Denied("http slot `api`")),
    ("tftp-server", "store", "slot=leases&key=a", Denied("store slot `leases`")),
    ("tftp-server", "leases", "", Denied("dhcp-provider")),
    // `dhcp-builtin` keeps leases, which nobody else sees, and sees no zone.
    ("dhcp-builtin", "store", "slot=leases&key=lease", Works("revision")),
    ("dhcp-builtin", "keys", "what=scan&slot=leases", Works("1 keys")),
    ("dhcp-builtin", "probe", "slot=addresses&address=10.77.0.1&count=1", Works("Answered")),
    ("dhcp-builtin", "probe", "slot=addresses&address=192.0.2.1&count=1", Denied("192.0.2.1")),
    ("dhcp-builtin", "store", "slot=zones&key=a", Denied("store slot `zones`")),
    ("dhcp-builtin", "keys", "what=read&slot=zones&key=zone", Denied("store slot `zones`")),
    ("dhcp-builtin", "call", "name=www.example.com", Denied("dns-provider")),
    ("dhcp-builtin", "read", "path=/root/menu", Shut),
    ("dhcp-builtin", "read", "path={tftproot}/menu", Shut),
    ("dhcp-builtin", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("dhcp-builtin", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("dhcp-builtin", "listen", "address=127.0.0.1:0", Shut),
    ("dhcp-builtin", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("dhcp-builtin", "http", "slot=api&method=GET&target=/", Denied("http slot `api`")),
    // `dns-builtin` keeps zones, and sees no lease: what the one above kept is there meanwhile.
    ("dns-builtin", "store", "slot=zones&key=zone", Works("revision")),
    ("dns-builtin", "keys", "what=scan&slot=zones", Works("1 keys")),
    ("dns-builtin", "watch", "slot=zone-files&path=example.com.zone", Works("SOA")),
    ("dns-builtin", "watch", "slot=zone-files&path=../boot/menu", Denied("../boot/menu")),
    ("dns-builtin", "read", "path=/zone-files/example.com.zone", Shut),
    ("dns-builtin", "write", "path=/zone-files/example.com.zone&text=x", Shut),
    ("dns-builtin", "keys", "what=read&slot=leases&key=lease", Denied("store slot `leases`")),
    ("dns-builtin", "keys", "what=scan&slot=leases", Denied("store slot `leases`")),
    ("dns-builtin", "leases", "", Denied("dhcp-provider")),
    ("dns-builtin", "watch", "slot=leases&path={leases}", Denied("watch slot `leases`")),
    ("dns-builtin", "tcp", "address=127.0.0.1:{canary}", Denied("connect by TCP to 127.0.0.1:{canary}")),
    ("dns-builtin", "udp", "address=127.0.0.1:{canary}&text=x", Denied("UDP socket")),
    ("dns-builtin", "listen", "address=127.0.0.1:0", Shut),
    ("dns-builtin", "resolve", "name=stolen.example.com", Denied("stolen.example.com")),
    ("dns-builtin", "http", "slot=api&method=GET&target=/", Denied("http slot `api`")),
];

/// The attacker with the manifest of a first-party plugin.
fn impostor(configuration: &Configuration, name: &str) -> Vec<u8> {
    const MARK: &[u8] = b"@@FACE-OF-PROBER";
    let real = configuration
        .scratch
        .file(&format!("real/{name}.wasm"), component(name));
    let seen = run([
        "plugin",
        "inspect",
        real.to_str().unwrap(),
        "--format",
        "json",
    ]);
    assert_eq!(seen.code(), Some(0), "{}", seen.text());
    let seen: serde_json::Value = serde_json::from_str(&seen.stdout).unwrap();
    let list = |key: &str| seen["manifest"][key].as_array().unwrap().clone();
    let word = |item: &serde_json::Value, key: &str| match &item[key] {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut face = format!("name\t{name}\nmount\t/as-{name}\n");
    for need in list("needs") {
        let fields = ["capability", "slot", "access", "required"].map(|key| word(&need, key));
        face.push_str(&format!("need\t{}\n", fields.join("\t")));
    }
    for setting in list("settings") {
        let fields = ["name", "kind", "default", "required"].map(|key| word(&setting, key));
        face.push_str(&format!("setting\t{}\n", fields.join("\t")));
    }
    let mut wasm = bulkhead_fixtures::wasm("prober").to_vec();
    let at = wasm
        .windows(MARK.len())
        .position(|window| window == MARK)
        .expect("the guest has its mark");
    let place = &mut wasm[at + MARK.len()..at + 8192];
    assert!(face.len() < place.len(), "{} bytes of face", face.len());
    place[..face.len()].copy_from_slice(face.as_bytes());
    wasm
}

fn component(name: &str) -> &'static [u8] {
    shipped(name).wasm
}

fn shipped(name: &str) -> &'static bulkhead_bundle::Bundled {
    bulkhead_bundle::PLUGINS
        .iter()
        .find(|plugin| plugin.name == name)
        .expect("a first-party plugin")
}

/// The shipped policy without the line that says whose it is: the test kit writes that one, with the digest it approves.
fn shipped_grants(name: &str) -> String {
    let line = format!("plugin = {name:?}\n");
    assert!(shipped(name).policy.contains(&line));
    shipped(name).policy.replacen(&line, "", 1)
}

/// A server of both protocols that counts who comes.
fn canary(address: &str, reached: &Arc<AtomicUsize>) -> u16 {
    let tcp = TcpListener::bind(address).unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let count = reached.clone();
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(SONG.as_bytes());
        }
    });
    let count = reached.clone();
    std::thread::spawn(move || {
        while let Ok((_, peer)) = udp.recv_from(&mut [0; 2048]) {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = udp.send_to(SONG.as_bytes(), peer);
        }
    });
    address.port()
}

struct Play {
    bulkhead: Bulkhead,
    foreman: Foreman,
    /// A discovered machine, and a Pulp.
    node: Foreman,
    pulp: Foreman,
    /// Canaries nobody may reach, and the servers that somebody may.
    beside: Arc<AtomicUsize>,
    servers: Arc<AtomicUsize>,
    names: Vec<(&'static str, String)>,
}

impl Play {
    /// Sets the stage, with impostors in these roles and the real plugins in those.
    fn cast(impostors: &[&str], real: &[&str]) -> Self {
        let (beside, servers) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let canary_port = canary("127.0.0.1:0", &beside);
        canary("127.0.0.2:53", &beside);
        canary("127.0.0.1:53", &servers);
        let omapi = canary("127.0.0.1:0", &servers);
        let mut configuration = Configuration::empty().unbundled();
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", SONG)
        });
        let sings = |_: &Recorded| reply("200 OK", "text/plain", SONG);
        let node = Foreman::without_clients(&configuration.server, sings);
        let pulp = Foreman::without_clients(&configuration.server, sings);
        let node_port = node.address.port();
        configuration = configuration.foreman(&foreman);
        let scratch = configuration.scratch.clone();
        let boot = configuration.boot();
        scratch.file("boot/menu", SONG);
        let leases = scratch.file("dhcp/dhcpd.leases", SONG);
        let config = scratch.file(
            "dhcp/dhcpd.conf",
            "subnet 192.0.2.0 netmask 255.255.255.0 { }\n",
        );
        let other = scratch.file("dhcp/beside.conf", SONG);
        std::os::unix::fs::symlink("../dhcp", boot.join("out")).unwrap();
        scratch.file("zones/example.com.zone", "@ 300 IN SOA ns h 1 1 1 1 1\n");
        let key = scratch.file(
            "dns.key",
            "key \"k\" { algorithm hmac-sha256; secret \"YSBzZWNyZXQgZm9yIHRlc3RzLCAzMiBieXRlcyBsb25n\"; };\n",
        );
        private(&key);
        let settings = |name: &str| match name {
            "dns" => "use_provider = \"dns-builtin\"".to_owned(),
            "dns-rfc2136" => format!("dns_server = [\"127.0.0.1\"]\ndns_key = {}", quoted(&key)),
            "dhcp" => "use_provider = \"dhcp-builtin\"".to_owned(),
            "dhcp-isc" => format!(
                "config = {}\nleases = {}\nomapi_key = {}\nomapi_port = {omapi}",
                quoted(&config),
                quoted(&leases),
                quoted(&key)
            ),
            "templates" => "template_url = \"http://proxy.example.com:8000\"".to_owned(),
            "tftp-server" => format!(
                "tftproot = {}\nlisten = [\"udp 127.0.0.1:6969\"]",
                quoted(&boot)
            ),
            "dns-builtin" => format!(
                "listen = [\"udp 127.0.0.1:5300\"]\nzones = [\"example.com\"]\nzone_directory = {}",
                quoted(&scratch.join("zones"))
            ),
            "registration" | "facts" => String::new(),
            "discovery" => {
                format!("node_url = \"https://node:{node_port}\"\nnode_networks = [\"127.0.0.1\"]")
            }
            "pulpcore" => format!(
                "pulp_url = {:?}\ncontent_app_url = \"https://content.example.com\"\nssl_ca = {}",
                pulp.url(),
                quoted(&scratch.join("tls/ca.pem"))
            ),
            "dhcp-builtin" => "subnets = [\"10.77.0.0/24\"]".to_owned(),
            other => panic!("no settings for {other}"),
        };
        for (names, faces) in [(impostors, true), (real, false)] {
            for name in names {
                let wasm = if faces {
                    impostor(&configuration, name)
                } else {
                    component(name).to_vec()
                };
                configuration = configuration
                    .plugin(name, &wasm, &shipped_grants(name))
                    .feature(name, &format!("enabled = true\n{}", settings(name)));
            }
        }
        let path = |path: &std::path::Path| path.display().to_string();
        let names = vec![
            ("{canary}", canary_port.to_string()),
            ("{omapi}", omapi.to_string()),
            ("{node}", node_port.to_string()),
            ("{admin}", configuration.doors.admin.to_string()),
            ("{tftproot}", path(&boot)),
            ("{leases}", path(&leases)),
            ("{config}", path(&config)),
            ("{beside}", path(&other)),
            ("{key}", path(&key)),
        ];
        let bulkhead = Bulkhead::with(configuration);
        Self {
            bulkhead,
            foreman,
            node,
            pulp,
            beside,
            servers,
            names,
        }
    }

    fn fill(&self, text: &str) -> String {
        let names = self.names.iter();
        names.fold(text.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
    }

    /// What no attempt may change.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let scratch = &self.bulkhead.configuration.scratch;
        let places =
            ["boot", "dhcp", "zones"].map(|place| scratch::files_below(&scratch.join(place)));
        places.concat()
    }

    /// Plays a row; an error says what is wrong.
    fn play(&self, (who, what, query, comes): Row) -> Result<(), String> {
        let query: Vec<String> = query
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| format!("{name}={}", form_encoded(&self.fill(value))))
            .collect();
        let path = format!("/as-{who}/{what}?{}", query.join("&"));
        let before = self.told(who);
        let answer = self.bulkhead.foreman().get(&path);
        let text = answer.text();
        let through = answer.status == 200 && !text.starts_with("refused");
        match comes {
            Works(shown) if through && text.contains(shown) => Ok(()),
            Works(_) => Err(format!(
                "does not work, so the rest proves nothing: {answer}"
            )),
            _ if through || text.contains(SONG) => Err(format!("went through: {answer}")),
            Shut => Ok(()),
            Denied(words) => {
                let words = self.fill(words);
                let told = self.told(who).into_iter().any(|(text, count)| {
                    text.contains(&words)
                        && before
                            .iter()
                            .all(|(known, then)| *known != text || *then < count)
                });
                told.then_some(()).ok_or_else(|| {
                    format!(
                        "no denial in the words {words:?} ({answer}): {:#?}",
                        self.told(who)
                    )
                })
            }
        }
    }

    /// What was denied to a plugin, and how often.
    fn told(&self, who: &str) -> Vec<(String, u64)> {
        let state = self.bulkhead.configuration.scratch.join("state");
        let denials = run([
            "policy",
            "denials",
            "--plugin",
            who,
            "--format",
            "json",
            "--state",
            state.to_str().unwrap(),
        ]);
        let denials: Vec<serde_json::Value> = serde_json::from_str(&denials.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", denials.text()));
        denials
            .iter()
            .map(|denial| {
                let word = |key: &str| denial[key].as_str().unwrap_or_default().to_owned();
                let text = format!("{} {} {}", word("action"), word("reason"), word("fix"));
                (text, denial["count"].as_u64().unwrap_or_default())
            })
            .collect()
    }

    /// All rows, then the world.
    #[track_caller]
    fn play_all(&self, rows: &[Row], own: usize) {
        let files = self.files();
        let wrong: Vec<String> = rows
            .iter()
            .filter_map(|row| self.play(*row).err().map(|why| format!("{row:?}: {why}")))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {}:\n{}",
            wrong.len(),
            rows.len(),
            wrong.join("\n")
        );
        assert_eq!(self.files(), files, "a file was changed");
        assert_eq!(
            self.beside.load(Ordering::Relaxed),
            0,
            "a canary was reached"
        );
        assert_eq!(
            self.servers.load(Ordering::Relaxed),
            own,
            "servers were reached otherwise than granted"
        );
        assert!(
            !self.bulkhead.log().contains("YSBzZWNyZXQ"),
            "a key is in the log"
        );
    }
}

/// A network of its own, in which port 53 is free and an address of a private network answers.
fn network() -> Option<Namespace> {
    let site = Namespace::new("impostors")?;
    site.ip(&["address", "add", "10.77.0.1/32", "dev", "lo"]);
    site.enter();
    Some(site)
}

#[test]
fn features_and_providers_do_under_their_shipped_policies_what_these_say_and_nothing_else() {
    let Some(_site) = network() else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    let play = Play::cast(
        &["dns", "dns-rfc2136", "dhcp", "dhcp-isc", "templates"],
        &["dns-builtin", "dhcp-builtin"],
    );
    // Two exchanges with the DNS server, one with OMAPI.
    play.play_all(FEATURES, 3);
    assert_eq!(
        asked(&play.foreman),
        ["GET /unattended/provision", "POST /unattended/built"]
    );
}

/// What a server was asked, without its version of HTTP.
fn asked(server: &Foreman) -> Vec<String> {
    let requests = server.requests();
    let lines = requests.iter().map(|it| it.line().replace(" HTTP/1.1", ""));
    lines.collect()
}

#[test]
fn plugins_of_hosts_do_under_their_shipped_policies_what_these_say_and_nothing_else() {
    let Some(_site) = network() else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    const CAST: [&str; 4] = ["registration", "discovery", "pulpcore", "facts"];
    let play = Play::cast(&CAST, &[]);
    let common = |who| {
        let row = move |&(what, query, comes): &(_, _, _)| (who, what, query, comes);
        NOBODYS.iter().map(row)
    };
    let rows: Vec<Row> = HOSTS
        .iter()
        .copied()
        .chain(CAST.into_iter().flat_map(common))
        .collect();
    play.play_all(&rows, 0);
    assert_eq!(
        asked(&play.foreman),
        [
            "GET /register?a=1",
            "POST /register",
            "POST /api/v2/discovered_hosts/facts"
        ]
    );
    assert_eq!(asked(&play.node), ["GET /inventory/facter"]);
    assert_eq!(asked(&play.pulp), ["GET /pulp/api/v3/status/"]);
}

#[test]
fn built_in_servers_open_no_connection_and_see_nothing_of_each_other() {
    let Some(_site) = network() else {
        skip!("no network namespaces here: they need root and `ip`");
    };
    let play = Play::cast(&["tftp-server", "dhcp-builtin", "dns-builtin"], &[]);
    play.play_all(SERVERS, 0);
    assert_eq!(play.foreman.connections(), 0);
}
