//! What a plugin could do with the rights of the shipped policies of `templates`, `registration` and `discovery`, were it hostile: ask Foreman for
//! what the policy lists, and nothing else.

use bulkhead_testkit::foreman::{Foreman, reply};
use bulkhead_testkit::{Bulkhead, Configuration};

/// Foreman's slot of each shipped policy, what of it may be asked, and what may not.
const POLICIES: [(&str, &str, &[&str], &[&str]); 3] = [
    (
        "templates",
        include_str!("../../policies/templates.toml"),
        &[
            "GET /unattended/provision",
            "POST /unattended/built",
            "GET /userdata/user-data",
        ],
        &[
            "GET /api/hosts",
            "GET /unattended",
            "GET /unattended/a/b",
            "DELETE /unattended/provision",
            "PUT /unattended/provision",
            "POST /userdata/user-data",
            "GET /unattended/../api/hosts",
            "GET /unattended/%2e%2e/api",
            "GET /unattended/a%2fb",
            "GET //evil.example.com/unattended/x",
            "GET https://evil.example.com/unattended/x",
            "GET /register",
        ],
    ),
    (
        "registration",
        include_str!("../../policies/registration.toml"),
        &["GET /register?a=1", "POST /register"],
        &[
            "GET /register/x",
            "DELETE /register",
            "GET /api/hosts",
            "GET /unattended/provision",
        ],
    ),
    (
        "discovery",
        include_str!("../../policies/discovery.toml"),
        &["POST /api/v2/discovered_hosts/facts"],
        &[
            "GET /api/v2/discovered_hosts/facts",
            "GET /api/v2/discovered_hosts",
            "POST /api/v2/discovered_hosts",
            "DELETE /api/v2/discovered_hosts/1",
        ],
    ),
];

/// The grant of Foreman alone, under the prober's slot.
fn foreman_grant(policy: &str) -> String {
    let from = policy.find("[foreman.").expect("it asks Foreman");
    let grant = &policy[from..];
    let end = grant.find("\n[").unwrap_or(grant.len());
    let (_, body) = grant[..end].split_once(']').expect("a section's name ends");
    format!("[foreman.foreman]{body}")
}

#[test]
fn a_hosts_plugin_asks_foreman_for_its_own_paths_only() {
    for (name, policy, allowed, refused) in POLICIES {
        let configuration = Configuration::standard();
        let foreman = Foreman::answering(&configuration.authority, |_| {
            reply("200 OK", "text/plain", "foreman")
        });
        let boot = configuration.boot().join("canary");
        configuration.scratch.file("boot/canary", "canary");
        let bulkhead = Bulkhead::with(configuration.foreman(&foreman).plugin(
            "prober",
            bulkhead_fixtures::wasm("prober"),
            &foreman_grant(policy),
        ));
        let ask = |door: &str, rule: &str| {
            let (method, target) = rule.split_once(' ').unwrap();
            let target = target
                .replace('%', "%25")
                .replace('?', "%3F")
                .replace('=', "%3D");
            let path = format!("/prober/{door}?slot=foreman&method={method}&target={target}");
            let answer = bulkhead.foreman().get(&path);
            format!("{} {}", answer.status, answer.text())
        };
        for rule in allowed {
            assert!(ask("foreman", rule).starts_with("200 ok"), "{name}: {rule}");
            assert!(
                ask("forward", rule).starts_with("200 foreman"),
                "{name}: {rule}"
            );
        }
        let seen = foreman.requests().len();
        for rule in refused {
            assert!(
                ask("foreman", rule).contains("refused denied"),
                "{name}: {rule}: {}",
                ask("foreman", rule)
            );
            assert!(!ask("forward", rule).starts_with("200"), "{name}: {rule}");
        }
        assert_eq!(
            foreman.requests().len(),
            seen,
            "{name}: Foreman saw nothing of it"
        );

        // Leases, boot files, sockets, other servers.
        let boot = boot.display().to_string();
        let port = foreman.address.port();
        for other in [
            format!("read?path={boot}"),
            "read?path=/var/lib/dhcp/dhcpd.leases".to_owned(),
            "read?path=/root/canary".to_owned(),
            format!("write?path={boot}&text=x"),
            format!("tcp?address=127.0.0.1:{port}&text=x"),
            "resolve?name=localhost".to_owned(),
            format!("http?slot=api&method=GET&target=http://127.0.0.1:{port}/"),
            "download?slot=root&url=http://127.0.0.1/x&path=x".to_owned(),
            "store?slot=keys&key=x".to_owned(),
            "reveal?slot=key".to_owned(),
        ] {
            let answer = bulkhead.foreman().get(&format!("/prober/{other}")).text();
            assert!(answer.starts_with("refused"), "{name}: {other}: {answer}");
        }
        assert_eq!(std::fs::read_to_string(&boot).unwrap(), "canary");
    }
}
