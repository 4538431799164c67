use super::*;
use futures::FutureExt;
use futures::future::BoxFuture;

/// 192.0.2.1 is foreman in both directions, 192.0.2.2 claims to be, 192.0.2.3 is somebody else.
struct Zone;

impl ReverseNames for Zone {
    fn names(&self, address: IpAddr) -> BoxFuture<'_, Result<Vec<String>, String>> {
        let names = match address.to_string().as_str() {
            "192.0.2.1" => Ok(vec![
                "alias.example.com.".to_owned(),
                "Foreman.example.com.".to_owned(),
            ]),
            "192.0.2.2" => Ok(vec!["foreman.example.com.".to_owned()]),
            "192.0.2.3" => Ok(vec!["other.example.com.".to_owned()]),
            "192.0.2.4" => return std::future::pending().boxed(),
            _ => Err("no such name".to_owned()),
        };
        async { names }.boxed()
    }

    fn addresses<'a>(
        &'a self,
        name: &'a str,
        _: IpAddr,
    ) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        async move {
            if name == "foreman.example.com" {
                Ok(vec!["192.0.2.1".parse().unwrap()])
            } else {
                Err("gone".to_owned())
            }
        }
        .boxed()
    }
}

fn plain(address: &str) -> Identity {
    Identity {
        address: address.parse().unwrap(),
        fronted: false,
        secure: false,
        certificate: None,
    }
}

fn tls(names: Option<&[&str]>) -> Identity {
    let certificate = names.map(|names| Arc::new(Certificate::with_names(names.iter().copied())));
    Identity {
        address: "192.0.2.9".parse().unwrap(),
        fronted: false,
        secure: true,
        certificate,
    }
}

fn listed() -> Trust {
    Trust {
        hosts: TrustedHosts::names(["Foreman.Example.com"]),
        forward_verify: true,
        lookup_time: LOOKUP_TIME,
    }
}

fn any() -> Trust {
    Trust {
        hosts: TrustedHosts::AnyCertificate,
        ..listed()
    }
}

async fn check(
    identity: Identity,
    audience: Audience,
    trust: Trust,
    plain: PlainForeman,
) -> Result<Option<String>, String> {
    let outcome = verify(&identity, audience, &trust, plain, &Zone, "/features").await;
    outcome
        .map(|name| name.map(|name| name.to_string()))
        .map_err(|error| error.to_string())
}

async fn foreman(identity: Identity, trust: Trust) -> Result<Option<String>, String> {
    check(
        identity,
        Audience::Foreman,
        trust,
        PlainForeman::TrustedNames,
    )
    .await
}

fn name(name: &str) -> Result<Option<String>, String> {
    Ok(Some(name.to_owned()))
}

fn error(text: &str) -> Result<Option<String>, String> {
    Err(text.to_owned())
}

#[tokio::test]
async fn a_trusted_name_may_be_any_of_the_certificates_in_any_case() {
    assert_eq!(
        foreman(
            tls(Some(&["proxy.example.com", "FOREMAN.example.com"])),
            listed()
        )
        .await,
        name("foreman.example.com")
    );
    assert_eq!(
        foreman(tls(Some(&["web.example.com"])), listed()).await,
        error(
            "Untrusted client web.example.com attempted to access /features. Check :trusted_hosts: in settings.yml"
        )
    );
    assert_eq!(
        foreman(tls(Some(&[])), listed()).await,
        error("could not read CN from the client certificate")
    );
    assert_eq!(
        foreman(tls(None), listed()).await,
        error("could not read client cert from environment")
    );
}

#[tokio::test]
async fn any_certificate_still_needs_one() {
    assert_eq!(
        foreman(tls(Some(&["web.example.com"])), any()).await,
        name("web.example.com")
    );
    assert_eq!(
        foreman(tls(None), any()).await,
        error("No client SSL certificate supplied")
    );
}

#[tokio::test]
async fn an_empty_list_trusts_nobody() {
    let nobody = Trust {
        hosts: TrustedHosts::names([]),
        ..listed()
    };
    assert!(
        foreman(tls(Some(&["foreman.example.com"])), nobody.clone())
            .await
            .is_err()
    );
    assert!(foreman(plain("192.0.2.1"), nobody).await.is_err());
}

#[tokio::test]
async fn a_host_is_whoever_has_a_certificate_and_the_public_is_everybody() {
    assert_eq!(
        check(
            tls(Some(&["web.example.com"])),
            Audience::Host,
            listed(),
            PlainForeman::Refused
        )
        .await,
        name("web.example.com")
    );
    for identity in [tls(None), plain("127.0.0.1")] {
        let refused = check(
            identity.clone(),
            Audience::Host,
            listed(),
            PlainForeman::TrustedNames,
        )
        .await;
        assert_eq!(refused, error("No client SSL certificate supplied"));
        assert_eq!(
            check(identity, Audience::Public, listed(), PlainForeman::Refused).await,
            Ok(None)
        );
    }
}

#[tokio::test]
async fn on_plain_http_the_name_has_to_be_trusted_and_lead_back() {
    assert_eq!(
        foreman(plain("192.0.2.1"), listed()).await,
        name("foreman.example.com")
    );
    assert_eq!(
        foreman(plain("192.0.2.2"), listed()).await,
        error(
            "untrusted client has no matching forward DNS lookup - foreman.example.com (192.0.2.2)"
        )
    );
    let unverified = Trust {
        forward_verify: false,
        ..listed()
    };
    assert_eq!(
        foreman(plain("192.0.2.2"), unverified).await,
        name("foreman.example.com")
    );
    assert!(
        foreman(plain("192.0.2.3"), listed())
            .await
            .unwrap_err()
            .starts_with("Untrusted client other.example.com ")
    );
    assert_eq!(
        foreman(plain("192.0.2.7"), listed()).await,
        error("unable to resolve hostname for ip address 192.0.2.7\n\nno such name")
    );
    let alias = Trust {
        hosts: TrustedHosts::names(["alias.example.com"]),
        ..listed()
    };
    assert_eq!(
        foreman(plain("192.0.2.1"), alias).await,
        error(
            "could not forward verify the remote hostname - alias.example.com (192.0.2.1)\n\ngone"
        )
    );
}

#[tokio::test]
async fn a_stuck_resolver_is_not_waited_for() {
    let hasty = Trust {
        lookup_time: Duration::from_millis(50),
        ..listed()
    };
    assert!(
        foreman(plain("192.0.2.4"), hasty)
            .await
            .unwrap_err()
            .ends_with("no answer within 50ms")
    );
}

#[tokio::test]
async fn plain_http_is_foremans_only_where_the_listener_says_so() {
    let refused = error("No client SSL certificate supplied");
    assert_eq!(
        check(
            plain("127.0.0.1"),
            Audience::Foreman,
            any(),
            PlainForeman::Refused
        )
        .await,
        refused
    );
    assert_eq!(
        check(
            plain("127.0.0.1"),
            Audience::Foreman,
            any(),
            PlainForeman::Loopback
        )
        .await,
        Ok(None)
    );
    assert_eq!(
        check(
            plain("192.0.2.1"),
            Audience::Foreman,
            any(),
            PlainForeman::Loopback
        )
        .await,
        refused
    );
    assert_eq!(
        check(
            plain("192.0.2.1"),
            Audience::Foreman,
            listed(),
            PlainForeman::Loopback
        )
        .await,
        refused
    );
    assert_eq!(
        check(
            plain("192.0.2.1"),
            Audience::Foreman,
            any(),
            PlainForeman::TrustedNames
        )
        .await,
        refused
    );
    let fronted = Identity {
        fronted: true,
        ..plain("127.0.0.1")
    };
    assert_eq!(
        check(fronted, Audience::Foreman, any(), PlainForeman::Loopback).await,
        refused
    );
}

fn made(names: &[&str], common: &str) -> Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, common);
    Certificate::read(parameters.self_signed(&key).unwrap().der())
}

#[test]
fn names_are_read_alternative_ones_first() {
    let read = |names: &[&str], common: &str| {
        made(names, common)
            .names()
            .iter()
            .map(|name| name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        read(&["B.example.com", "a.example.com"], "Common.example.com"),
        ["b.example.com", "a.example.com", "common.example.com"]
    );
    assert_eq!(read(&[], "Common.example.com"), ["common.example.com"]);
    assert_eq!(read(&["a.example.com"], "A.example.com"), ["a.example.com"]);
    assert_eq!(read(&[], "two words"), Vec::<String>::new());
    assert_eq!(Certificate::read(b"junk"), Certificate::default());
}
