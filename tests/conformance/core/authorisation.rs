//! contract/core.md 1: who may call what.

use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Authority, Bulkhead, Configuration, Finished, run};

use crate::JSON;

static ANY: Shared = Shared::new(Bulkhead::trial);
static LISTED: Shared = Shared::new(|| {
    Bulkhead::with(Configuration::standard().trusted_hosts(&[
        "Foreman.Example.COM",
        "named-by-san.example.com",
        "localhost",
    ]))
});

const NO_CERTIFICATE: &str = "No client SSL certificate supplied";
const UNREADABLE: &str = "could not read client cert from environment";

/// 1: root's `/features` and `/version` have no authorisation.
#[test]
fn features_and_version_need_no_certificate() {
    let bulkhead = ANY.get();
    for path in ["/features", "/version"] {
        let answer = bulkhead.foreman_tls_as(None).get(path);
        assert_eq!(answer.status, 200, "{path}: {answer}");
    }
}

/// 1.2: the certificate is asked for before routing, so below a protected mount it makes no difference whether path and
/// method exist.
#[test]
fn protected_mounts_refuse_clients_without_certificate_whatever_the_path() {
    let bulkhead = ANY.get();
    for (method, path) in [
        ("GET", "/v2/features"),
        ("GET", "/logs"),
        ("GET", "/logs/"),
        ("GET", "/logs/nonsense"),
        ("GET", "/tftp/serverName"),
        ("HEAD", "/tftp/serverName"),
        ("GET", "/tftp"),
        ("GET", "/tftp/"),
        ("GET", "/tftp/no/such/thing/at/all"),
        ("POST", "/tftp/PXEGrub2/not-a-mac"),
        ("PATCH", "/tftp/serverName"),
        ("OPTIONS", "/tftp/serverName"),
        ("DELETE", "/tftp/serverName"),
        ("GET", "//tftp//serverName"),
        ("GET", "/tftp%2FserverName"),
        ("GET", "/%74ftp/serverName"),
    ] {
        let target = bulkhead.foreman_tls_as(None);
        let mut request = target.request(method, path);
        if method != "GET" && method != "HEAD" {
            request = request.body(bulkhead_testkit::exchange::FORM, "");
        }
        let answer = request.send();
        assert_eq!(answer.status, 403, "{method} {path}: {answer}");
        assert_eq!(answer.content_type(), JSON, "{method} {path}");
        if method != "HEAD" {
            assert_eq!(answer.text(), NO_CERTIFICATE, "{method} {path}");
        }
    }
}

/// 3: what is below no mount is nobody's, with or without a certificate.
#[test]
fn unknown_mounts_are_404_without_certificate_too() {
    let bulkhead = ANY.get();
    for target in [bulkhead.foreman_tls_as(None), bulkhead.foreman_tls()] {
        target
            .get("/nonsense/serverName")
            .assert_is(404, JSON, "Requested url was not found");
        // A mount is a path, not a prefix of letters.
        target
            .get("/tftpd")
            .assert_is(404, JSON, "Requested url was not found");
    }
}

/// 1.2: with `"any-certificate"` every certificate of the CA passes, whatever it names.
#[test]
fn any_certificate_of_the_authority_passes_when_the_operator_says_so() {
    let bulkhead = ANY.get();
    let host = bulkhead
        .configuration
        .authority
        .client(Some("web01.example.com"), &[]);
    assert_eq!(
        bulkhead
            .foreman_tls_as(Some(&host))
            .get("/v2/features")
            .status,
        200
    );
}

/// 1.2: plain HTTP asks for no certificate.
#[test]
fn loopback_http_passes_without_certificate() {
    assert_eq!(ANY.get().foreman().get("/v2/features").status, 200);
}

/// Promise 3 of the design: on a listener that does not serve Foreman's audience its routes do not exist, not even for Foreman.
#[test]
fn foremans_routes_do_not_exist_on_the_hosts_listeners() {
    let bulkhead = ANY.get();
    for (name, target) in [
        ("http", bulkhead.hosts()),
        ("tls", bulkhead.hosts_tls_as(None)),
        (
            "tls as foreman",
            bulkhead.hosts_tls_as(Some(&bulkhead.client)),
        ),
    ] {
        for path in [
            "/v2/features",
            "/logs",
            "/logs/",
            "/tftp/serverName",
            "/tftp",
            "//tftp/serverName",
            "/tftp%2fserverName",
            "/httpboot/../tftp/serverName",
            "/httpboot/%2e%2e/tftp/serverName",
            "/httpboot/..%2ftftp/serverName",
        ] {
            let answer = target.get(path);
            assert!(
                answer.status == 404 || answer.status == 400 || answer.status == 403,
                "{name} {path}: {answer}"
            );
            assert!(
                !answer.text().contains("serverName\":"),
                "{name} {path}: {answer}"
            );
        }
        target
            .get("/v2/features")
            .assert_is(404, JSON, "Requested url was not found");
        target
            .get("/tftp/serverName")
            .assert_is(404, JSON, "Requested url was not found");
    }
}

/// 1.1: the certificate's name must be in the list. Deliberately different: names are compared without regard to case on
/// both sides.
#[test]
fn trusted_hosts_lets_listed_names_in_whatever_their_case() {
    let bulkhead = LISTED.get();
    let authority = &bulkhead.configuration.authority;
    for name in ["foreman.example.com", "FOREMAN.example.com"] {
        let client = authority.client(Some(name), &[]);
        let answer = bulkhead.foreman_tls_as(Some(&client)).get("/v2/features");
        assert_eq!(answer.status, 200, "{name}: {answer}");
    }
}

/// 1.1, deliberately different: the SAN is the name; the CN is used where there is none.
#[test]
fn the_san_of_a_certificate_is_its_name_before_the_cn() {
    let bulkhead = LISTED.get();
    let authority = &bulkhead.configuration.authority;
    let by_san = authority.client(Some("something-else"), &["named-by-san.example.com"]);
    assert_eq!(
        bulkhead
            .foreman_tls_as(Some(&by_san))
            .get("/v2/features")
            .status,
        200
    );
}

/// 1.1 step 4: the text has the path below the mount.
#[test]
fn untrusted_clients_are_told_what_they_attempted() {
    let bulkhead = LISTED.get();
    let client = bulkhead
        .configuration
        .authority
        .client(Some("Web01.example.com"), &[]);
    let target = bulkhead.foreman_tls_as(Some(&client));
    for (path, below) in [
        ("/v2/features", "/features"),
        ("/tftp/serverName", "/serverName"),
        ("/tftp/no/such", "/no/such"),
    ] {
        let expected = format!(
            "Untrusted client web01.example.com attempted to access {below}. Check :trusted_hosts: in settings.yml"
        );
        target.get(path).assert_is(403, JSON, &expected);
    }
}

/// 1.1 step 1: with a list, a client without certificate or name gets the list's message.
#[test]
fn trusted_hosts_comes_before_the_certificate_check() {
    let bulkhead = LISTED.get();
    bulkhead
        .foreman_tls_as(None)
        .get("/v2/features")
        .assert_is(403, JSON, UNREADABLE);
    bulkhead
        .foreman_tls_as(None)
        .get("/tftp/nonsense")
        .assert_is(403, JSON, UNREADABLE);
    let nameless = bulkhead.configuration.authority.client(None, &[]);
    bulkhead
        .foreman_tls_as(Some(&nameless))
        .get("/v2/features")
        .assert_is(403, JSON, "could not read CN from the client certificate");
}

/// 1.1 step 2: over HTTP the name is the reverse lookup of the address, `/etc/hosts` included.
#[test]
fn over_http_the_name_is_looked_up() {
    // Both directions of this machine's own name are in every `/etc/hosts`.
    assert_eq!(LISTED.get().foreman().get("/v2/features").status, 200);
}

/// 1.1: an empty list denies everybody.
#[test]
fn an_empty_list_denies_everybody() {
    let bulkhead = Bulkhead::with(Configuration::standard().trusted_hosts(&[]));
    for target in [bulkhead.foreman_tls(), bulkhead.foreman()] {
        let answer = target.get("/v2/features");
        assert_eq!(answer.status, 403, "{answer}");
        assert!(answer.text().starts_with("Untrusted client "), "{answer}");
    }
    assert_eq!(bulkhead.foreman_tls().get("/features").status, 200);
}

/// Deliberately different from the original, where a missing key skips the check: every enrolled host has a certificate
/// of the same CA, so the operator has to choose.
#[test]
fn without_trusted_hosts_the_program_does_not_start() {
    let configuration = Configuration::standard().without_trusted_hosts();
    let path = configuration.write();
    let serve = run(["serve", "--config", path.to_str().unwrap()]);
    let check = run(["check", "--config", path.to_str().unwrap()]);
    for finished in [serve, check] {
        assert_configuration_error(
            &finished,
            &["trusted_hosts", "any-certificate", "proxy.toml"],
        );
    }
}

fn assert_configuration_error(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), Some(3), "{}", finished.text());
    for word in words {
        assert!(
            finished.text().contains(word),
            "{word:?} is missing in:\n{}",
            finished.text()
        );
    }
}

/// 2: a certificate of another CA is no identity at all; the handshake fails.
#[test]
fn a_certificate_of_a_foreign_authority_fails_the_handshake() {
    let bulkhead = ANY.get();
    let stranger = Authority::root("Somebody else's CA")
        .client(Some("foreman.example.com"), &["foreman.example.com"]);
    let target = bulkhead.foreman_tls_as(Some(&stranger));
    for path in ["/features", "/v2/features"] {
        // With TLS 1.3 the client learns of the refusal only when it reads.
        assert!(
            target.request("GET", path).try_send().is_err(),
            "{path} was answered"
        );
    }
}

/// Headers that a front would set give no identity: nobody vouches for them here.
#[test]
fn claimed_identities_in_headers_are_ignored() {
    let target = ANY.get().foreman_tls_as(None);
    for header in [
        "SSL-Client-Cert",
        "SSL_CLIENT_CERT",
        "X-SSL-Client-Verify",
        "X-Client-Verify",
        "X-Forwarded-For",
        "Forwarded",
        "X-Forwarded-Client-Cert",
    ] {
        let answer = target
            .request("GET", "/v2/features")
            .header(header, "127.0.0.1")
            .send();
        answer.assert_is(403, JSON, NO_CERTIFICATE);
    }
}
