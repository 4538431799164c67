//! contract/core.md 2: TLS.

use std::fs;
use std::time::Duration;

use bulkhead_testkit::identity::KeyForm;
use bulkhead_testkit::program::Shared;
use bulkhead_testkit::{Bulkhead, Configuration, Signal, Target, assert_eventually, run};

static BULKHEAD: Shared = Shared::new(Bulkhead::trial);

fn door(bulkhead: &Bulkhead, versions: &[&'static rustls::SupportedProtocolVersion]) -> Target {
    let config = bulkhead
        .configuration
        .authority
        .client_config_for(Some(&bulkhead.client), versions);
    Target {
        tls: Some(config),
        ..bulkhead.foreman_tls()
    }
}

/// Protocols: 1.2 and 1.3 are on.
#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let bulkhead = BULKHEAD.get();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert_eq!(
            door(&bulkhead, &[version]).get("/v2/features").status,
            200,
            "{version:?}"
        );
    }
}

/// Protocols: 1.0 and 1.1 are off.
#[test]
fn older_versions_are_refused() {
    let bulkhead = BULKHEAD.get();
    for (minor, name) in [(1_u8, "1.0"), (2, "1.1")] {
        let mut connection = bulkhead
            .foreman_tls()
            .without_tls()
            .send(client_hello(minor))
            .unwrap();
        let answer = connection.rest();
        // An alert record (21) of level fatal (2) with reason protocol_version (70); never a handshake record (22).
        assert_eq!(answer.first(), Some(&21), "TLS {name}: {answer:?}");
        assert_eq!(
            answer.get(5..7),
            Some(&[2, 70][..]),
            "TLS {name}: {answer:?}"
        );
    }
}

/// The least a client of TLS 1.0 (3,1) or 1.1 (3,2) can say.
fn client_hello(minor: u8) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([0x2a; 32]); // random
    body.push(0); // no session id
    body.extend([0, 4, 0xc0, 0x13, 0xc0, 0x14]); // ECDHE-RSA-AES128-SHA, ECDHE-RSA-AES256-SHA
    body.extend([1, 0]); // no compression
    // supported_groups (10): P-256; signature_algorithms (13): ECDSA and RSA with SHA-256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1];
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut handshake = vec![1, 0, 0, body.len() as u8];
    handshake.extend(body);
    let mut record = vec![22, 3, 1, 0, handshake.len() as u8];
    record.extend(handshake);
    record
}

/// Client certificates are asked for without naming CAs, so that a client with several certificates chooses by itself.
#[test]
fn no_ca_names_are_sent() {
    use std::sync::{Arc, Mutex};

    /// Remembers what it was asked, and has no certificate.
    #[derive(Debug, Default)]
    struct Asked(Mutex<Vec<usize>>);

    impl rustls::client::ResolvesClientCert for Asked {
        fn resolve(
            &self,
            names: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<Arc<rustls::sign::CertifiedKey>> {
            self.0.lock().unwrap().push(names.len());
            None
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    let bulkhead = BULKHEAD.get();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let asked = Arc::new(Asked::default());
        let authority = &bulkhead.configuration.authority;
        let mut config = (*authority.client_config_for(None, &[version])).clone();
        config.client_auth_cert_resolver = asked.clone();
        let target = Target {
            tls: Some(Arc::new(config)),
            ..bulkhead.foreman_tls()
        };
        assert_eq!(target.get("/features").status, 200, "{version:?}");
        assert_eq!(*asked.0.lock().unwrap(), [0], "{version:?}");
    }
}

/// PEM in PKCS#1, PKCS#8 and SEC1.
#[test]
fn keys_are_read_in_every_form_administrators_have() {
    for form in [KeyForm::Pkcs1, KeyForm::Pkcs8, KeyForm::Sec1] {
        let configuration = Configuration::empty();
        let server = configuration.authority.server_with(&["localhost"], form);
        let bulkhead = Bulkhead::with(configuration.server(server));
        assert_eq!(
            bulkhead.foreman_tls().get("/v2/features").status,
            200,
            "{form:?}"
        );
    }
}

/// Deliberately different from the original, which sends only the first certificate of the file.
#[test]
fn the_whole_chain_is_sent() {
    let configuration = Configuration::empty();
    let server = configuration
        .authority
        .intermediate("Issuing CA")
        .server(&["localhost"]);
    let bulkhead = Bulkhead::with(configuration.server(server));
    // The client knows the root alone.
    assert_eq!(bulkhead.foreman_tls().get("/v2/features").status, 200);
}

/// Unreadable key or certificate: an error that names the file, and exit.
#[test]
fn an_unreadable_key_is_named_and_ends_the_start() {
    for (file, content) in [
        ("tls/server-key.pem", "this is no key"),
        ("tls/server.pem", "this is no certificate"),
        ("tls/ca.pem", "this is no certificate"),
    ] {
        let configuration = Configuration::empty();
        let path = configuration.write();
        configuration.scratch.file(file, content);
        let finished = run(["serve", "--config", path.to_str().unwrap()]);
        assert!(
            finished.code().is_some_and(|code| code != 0),
            "{file}: {finished:?}"
        );
        assert!(
            finished.text().contains(file),
            "{file} is not named in:\n{}",
            finished.text()
        );
        assert!(!finished.text().contains("panicked"), "{}", finished.text());
    }
}

/// A key that belongs to another certificate is found at the start, not by the first client.
#[test]
fn a_key_of_another_certificate_ends_the_start() {
    let configuration = Configuration::empty();
    let path = configuration.write();
    let other = configuration.authority.server(&["localhost"]);
    configuration
        .scratch
        .file("tls/server-key.pem", other.key_pem);
    let finished = run(["serve", "--config", path.to_str().unwrap()]);
    assert!(
        finished.code().is_some_and(|code| code != 0),
        "{finished:?}"
    );
    assert!(
        finished.text().contains("server-key.pem"),
        "{}",
        finished.text()
    );
}

/// Certificates are reloaded when the files change; a connection that is open goes on.
#[test]
fn new_certificates_are_used_without_losing_a_connection() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    let scratch = &bulkhead.configuration.scratch;
    let mut open = bulkhead.foreman_tls().open().unwrap();
    let request = bulkhead
        .foreman_tls()
        .request("GET", "/v2/features")
        .bytes();
    open.send(&request).unwrap();
    assert_eq!(open.response("GET").unwrap().status, 200);

    // The new certificate is for another name: whoever sees it knows it is new.
    let server = bulkhead
        .configuration
        .authority
        .server(&["renewed.example.com"]);
    scratch.file("tls/server-key.pem", &server.key_pem);
    scratch.file("tls/server.pem", &server.chain_pem);
    // Files that change one after the other must do no harm; a reload makes sure both are looked at.
    bulkhead.signal(Signal::Reload);
    let renewed = Target {
        name: "renewed.example.com".to_owned(),
        ..bulkhead.foreman_tls()
    };
    assert_eventually!(
        renewed.open().is_ok(),
        "the new certificate never appeared:\n{}",
        bulkhead.log()
    );

    open.send(&request).unwrap();
    assert_eq!(
        open.response("GET").unwrap().status,
        200,
        "the open connection goes on"
    );
}

/// The files alone are enough: nobody has to send a signal after a renewal.
#[test]
fn changed_certificate_files_are_noticed_without_a_signal() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    let server = bulkhead
        .configuration
        .authority
        .server(&["renewed.example.com"]);
    let scratch = &bulkhead.configuration.scratch;
    // As renewal tools do it: written beside, then renamed.
    for (name, content) in [
        ("server-key.pem", &server.key_pem),
        ("server.pem", &server.chain_pem),
    ] {
        let new = scratch.file(&format!("tls/{name}.new"), content);
        fs::rename(new, scratch.join(format!("tls/{name}"))).unwrap();
    }
    let renewed = Target {
        name: "renewed.example.com".to_owned(),
        ..bulkhead.foreman_tls()
    };
    let found = bulkhead_testkit::eventually::until_within(Duration::from_secs(90), || {
        std::thread::sleep(Duration::from_millis(100));
        renewed.open().is_ok().then_some(())
    });
    assert!(
        found.is_some(),
        "the new certificate never appeared:\n{}",
        bulkhead.log()
    );
}

/// A broken new certificate leaves the old one in place.
#[test]
fn a_broken_new_certificate_leaves_the_old_one_in_place() {
    let bulkhead = Bulkhead::with(Configuration::empty());
    bulkhead
        .configuration
        .scratch
        .file("tls/server.pem", "half a certifi");
    bulkhead.signal(Signal::Reload);
    assert_eventually!(
        !bulkhead.log_lines("server.pem").is_empty(),
        "the broken certificate is not reported:\n{}",
        bulkhead.log()
    );
    assert_eq!(bulkhead.foreman_tls().get("/v2/features").status, 200);
}
