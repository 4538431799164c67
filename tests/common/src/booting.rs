//! A machine that boots, with ISC's `dhclient`: what a DHCP server tells it.
//!
//! The one idea: whatever `dhclient` was told, its script writes down as it got it, by `dhclient`'s names: `ip_address`, `next_server`, `filename`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::eventually::until_within;
use crate::namespace::Namespace;
use crate::scratch::Scratch;

/// What a machine asks for, and what its options of no standard type are.
const ASKS: &str = "option option-150 code 150 = ip-address;\noption option-143 code 143 = text;\n\
    request subnet-mask, routers, host-name, domain-name-servers, vendor-class-identifier, tftp-server-name, bootfile-name, vendor-encapsulated-options, option-143, option-150;\n";

/// How long it may take to get an address.
const PATIENCE: Duration = Duration::from_secs(60);

/// The answer to a machine with that MAC address and vendor class (`PXEClient:Arch:00007`), by `dhclient`'s names: `ip_address`, `next_server`,
/// `filename`, `bootfile_name`.
#[track_caller]
pub fn told(
    client: &Namespace,
    interface: &str,
    mac: &str,
    class: &str,
) -> BTreeMap<String, String> {
    let class = format!("send vendor-class-identifier \"{class}\";");
    Dhclient::new(client, interface, mac, &class)
        .start()
        .bound()
}

/// One machine. It forgets nothing when it is started again, and ends with its value.
#[derive(Debug)]
pub struct Dhclient<'a> {
    client: &'a Namespace,
    interface: &'a str,
    place: Scratch,
    running: Option<Child>,
}

impl<'a> Dhclient<'a> {
    /// A machine with that MAC address, switched off. `lines`: more of its `dhclient.conf`.
    #[track_caller]
    pub fn new(client: &'a Namespace, interface: &'a str, mac: &str, lines: &str) -> Self {
        client.ip(&["link", "set", interface, "down"]);
        client.ip(&["link", "set", interface, "address", mac]);
        client.ip(&["link", "set", interface, "up"]);
        let place = Scratch::new();
        place.file("dhclient.conf", format!("{ASKS}{lines}\n"));
        let (heard, refuses) = (place.join("heard"), place.join("refuses"));
        let script = place.file(
            "script",
            format!(
                "#!/bin/sh\ncase \"$reason\" in BOUND|REBOOT|RENEW|REBIND)\n\
                 if rm {refuses} 2> /dev/null; then exit 1; fi\n\
                 env > {heard}.new && mv {heard}.new {heard};; esac\n",
                refuses = refuses.display(),
                heard = heard.display()
            ),
        );
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .expect("a script can be made");
        Self {
            client,
            interface,
            place,
            running: None,
        }
    }

    /// Switches it on. What it remembers of its last lease it asks for again.
    #[track_caller]
    pub fn start(&mut self) -> &mut Self {
        self.stop();
        let _ = fs::remove_file(self.place.join("heard"));
        let log = fs::File::create(self.place.join("log")).expect("a log can be made");
        let running = self.command(&["-d"]).stderr(log).spawn();
        self.running = Some(running.expect("dhclient can be started"));
        self
    }

    /// Switches it off without a word.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// Gives its address back.
    #[track_caller]
    pub fn release(&mut self) {
        self.stop();
        let output = self.command(&["-r", "-d"]).output();
        let output = output.expect("dhclient can be started");
        assert!(output.status.success(), "{output:?}");
    }

    /// The next address it gets it finds in use.
    pub fn refuse_the_next(&self) {
        self.place.file("refuses", "");
    }

    /// What it was told, once it has an address.
    #[track_caller]
    pub fn bound(&self) -> BTreeMap<String, String> {
        let [heard, leases] = ["heard", "leases"].map(|name| self.place.join(name));
        let text = until_within(PATIENCE, || {
            let text = fs::read_to_string(&heard).ok()?;
            // Its script runs before it writes down what it has to remember.
            let kept = fs::read_to_string(&leases).ok()?;
            let (_, rest) = text.split_once("new_ip_address=")?;
            let address = rest.lines().next()?;
            let is_kept = kept.contains(&format!("fixed-address {address};"));
            (is_kept && kept.trim_end().ends_with('}')).then_some(text)
        });
        let text = text.unwrap_or_else(|| panic!("dhclient got no lease:\n{}", self.log()));
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs
            .filter_map(|(name, value)| {
                let name = match name {
                    "reason" => name,
                    name => name.strip_prefix("new_")?,
                };
                Some((name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// What it says it did.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.join("log")).unwrap_or_default()
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.client.command("dhclient");
        command.args(["-4", "-sf"]).arg(self.place.join("script"));
        for (option, file) in [("-cf", "dhclient.conf"), ("-lf", "leases"), ("-pf", "pid")] {
            command.arg(option).arg(self.place.join(file));
        }
        command
            .args(arguments)
            .arg(self.interface)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Dhclient<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
