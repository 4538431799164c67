//! The showcase: `examples/escape`, a feature that tries to get at everything, dropped into the real program.

use bulkhead_testkit::{Bulkhead, Configuration, run};

use crate::stage::SONG;

#[test]
fn templates_evil_gets_nothing_and_the_operator_sees_what_it_tried() {
    let configuration = Configuration::standard();
    let scratch = configuration.scratch.clone();
    scratch.file("boot/pxelinux.cfg/default", SONG);
    scratch.file("leases/dhcpd.leases", SONG);
    let admin = format!("127.0.0.1:{}", configuration.doors.admin);
    let configuration = configuration
        .plugin("templates-evil", bulkhead_fixtures::wasm("escape"), "")
        .feature(
            "templates-evil",
            &format!("enabled = true\nadmin = {admin:?}"),
        );
    let bulkhead = Bulkhead::with(configuration);
    let foreman = bulkhead.foreman();
    let attempts = foreman.get("/templates-evil/attempts");
    assert_eq!(attempts.status, 200, "{attempts}");
    assert_eq!(attempts.text().lines().count(), 11, "{attempts}");
    for line in attempts.text().lines() {
        assert!(line.contains(": denied ("), "{line}");
    }
    for slot in ["leases", "tftproot", "host-keys", "system"] {
        let sent = foreman.get(&format!("/templates-evil/sent/{slot}"));
        assert!(sent.status >= 400, "{slot}: {sent}");
        assert!(
            !sent.text().contains(SONG) && !sent.text().contains("root:"),
            "{slot}: {sent}"
        );
    }
    let state = scratch.join("state").display().to_string();
    let told = run(["policy", "explain", "templates-evil", "--state", &state]);
    assert_eq!(told.code(), Some(0), "{}", told.text());
    for slot in [
        "foreman",
        "others",
        "dns-key",
        "names",
        "leases",
        "tftproot",
        "host-keys",
        "system",
        "metadata",
        "admin",
        "omapi",
    ] {
        let row: Vec<&str> = told
            .stdout
            .lines()
            .find(|line| line.split_whitespace().nth(1) == Some(slot))
            .unwrap_or_else(|| panic!("{slot} is not explained:\n{}", told.stdout))
            .split_whitespace()
            .collect();
        // Granted nothing, used never, denied at least once.
        let numbers = row
            .iter()
            .filter(|word| word.parse::<u64>().is_ok_and(|it| it > 0));
        assert!(row.contains(&"-"), "{row:?}");
        assert!(numbers.count() >= 1, "{slot} was never denied: {row:?}");
    }
    let denials = run(["policy", "denials", "--state", &state]);
    for what in [
        "169.254.169.254:80",
        "127.0.0.1:7911",
        admin.as_str(),
        "GET /api/v2/hosts",
        "stolen.example.com",
        "allow with: ",
        "no line can allow it",
    ] {
        assert!(denials.stdout.contains(what), "{what}:\n{}", denials.stdout);
    }
}
