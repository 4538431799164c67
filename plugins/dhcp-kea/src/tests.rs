//! Against answers as Kea 2.2 and 3.0 write them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::cell::RefCell;
use std::rc::Rc;

use bulkhead_sdk::bindings::imports::foreman::proxy::types::{Incoming, Outgoing, UpstreamError};
use bulkhead_sdk::dhcp::{DhcpOption, OptionValue};
use bulkhead_sdk::testing::{Host as Double, Installed};
use serde_json::{Value, json};

use super::*;

mod batches;
mod shown;

const NET: &str = "192.0.2.0/24";

/// What `list-commands` names in every DHCP server.
const BASE: [&str; 6] = [
    "config-get",
    "config-set",
    "config-test",
    "config-write",
    "dhcp-disable",
    "lease4-get-page",
];

/// `config-get` of Kea 3.0, shortened.
const CONFIG: &str = r#"{ "Dhcp4": { "hosts-databases": [ { "type": "postgresql", "name": "kea" } ], "lease-database": { "name": "/var/lib/kea/kea-leases4.csv", "persist": true, "type": "memfile" },
 "option-data": [ { "always-send": false, "code": 15, "csv-format": true, "data": "example.com", "name": "domain-name", "never-send": false, "space": "dhcp4" } ],
 "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24", "pools": [ { "option-data": [  ], "pool": "192.0.2.100-192.0.2.200" } ], "reservations": [  ], "t1-percent": 0.5 } ], "valid-lifetime": 7200 }, "hash": "F35D" }"#;

type ToError = fn(String) -> Error;
type Asked = Rc<RefCell<Vec<(String, Value)>>>;
type Answering = Box<dyn Fn(&str, &Value) -> Value>;

fn said(bytes: &[u8]) -> Result<Incoming, UpstreamError> {
    Ok(Incoming {
        status: 200,
        headers: Vec::new(),
        body: bytes.to_vec(),
    })
}

/// A Kea with these commands beside the usual ones. `answering` gets each command but `list-commands`, with its arguments.
fn kea(wrapped: bool, more: &[&str], answering: Answering) -> Double {
    let commands: Vec<String> = BASE
        .iter()
        .chain(more)
        .map(|one| (*one).to_owned())
        .collect();
    Double::new()
        .store("locks")
        .http(move |request: &Outgoing| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let command = body["command"].as_str().unwrap();
            if !wrapped && body.get("service").is_some() {
                // As a server might that takes the word for a mistake.
                return said(br#"{"result": 1, "text": "unsupported parameter 'service'"}"#);
            }
            let answer = match command {
                "list-commands" => json!({ "result": 0, "arguments": commands }),
                other => answering(other, &body["arguments"]),
            };
            let answer = if wrapped { json!([answer]) } else { answer };
            said(answer.to_string().as_bytes())
        })
}

fn config() -> Value {
    json!({ "result": 0, "arguments": serde_json::from_str::<Value>(CONFIG).unwrap() })
}

fn reservation() -> Reservation {
    Reservation {
        subnet: NET.to_owned(),
        address: "192.0.2.20".to_owned(),
        identifier: Identifier::Hardware("AA:b:CC:dd:ee:01".to_owned()),
        name: "a.example.com".to_owned(),
        deletable: true,
        options: Vec::new(),
    }
}

fn text(name: &str, value: &str) -> DhcpOption {
    DhcpOption {
        name: name.to_owned(),
        value: OptionValue::Text(value.to_owned()),
    }
}

#[test]
fn both_forms_of_answers_are_read_and_the_service_is_optional() {
    for wrapped in [true, false] {
        let _host = kea(
            wrapped,
            &["reservation-add", "reservation-get-page"],
            Box::new(|_, _| config()),
        )
        .install();
        server_forgotten();
        let subnets = DhcpKea::subnets().unwrap();
        assert_eq!(subnets[0].prefix, NET);
        assert_eq!(subnets[0].options, [text("domain_name", "example.com")]);
    }
}

/// A thread is an instance; a test that has several servers forgets between them.
fn server_forgotten() {
    let _ = Kea::call(|_| -> Result<(), Failure> { Err(Failure::Junk(String::new())) });
}

#[test]
fn result_codes_become_typed_errors_with_keas_words() {
    let cases: [(i64, ToError); 5] = [
        (1, Error::Refused),
        (2, Error::Unsupported),
        (4, Error::Conflict),
        (5, |text| {
            Error::Other(format!("{text} (done only in part)"))
        }),
        (77, Error::Other),
    ];
    for (result, error) in cases {
        let _host = kea(
            true,
            &[],
            Box::new(move |_, _| json!({ "result": result, "text": "Kea's own words" })),
        )
        .install();
        assert_eq!(
            DhcpKea::subnets(),
            Err(error(format!(
                "Kea answered `config-get` with result {result}: Kea's own words"
            )))
        );
        server_forgotten();
    }
    let _host = kea(true, &[], Box::new(|_, _| json!({ "result": 1, "text": "unable to forward command to the dhcp4 service: No such file or directory. The server is likely to be offline" }))).install();
    assert!(matches!(DhcpKea::subnets(), Err(Error::Unreachable(_))));
}

#[test]
fn what_is_no_answer_becomes_a_typed_error() {
    let answers: [(u16, &[u8]); 7] = [
        (200, b""),
        (200, b"[]"),
        (200, b"<html>It works!</html>"),
        (200, br#"{"result": "zero"}"#),
        (200, br#"[{"result": 0, "arguments": {"Dhcp6": {}}}]"#),
        (400, br#"{ "result": 400, "text": "Bad Request" }"#),
        (500, b"\xff\xfe"),
    ];
    for (status, body) in answers {
        let _host = Double::new()
            .http(move |_: &Outgoing| {
                Ok(Incoming {
                    status,
                    headers: Vec::new(),
                    body: body.to_vec(),
                })
            })
            .install();
        let error = DhcpKea::subnets().unwrap_err();
        assert!(matches!(error, Error::Other(_)), "{body:?}: {error:?}");
    }
    let _host = Double::new()
        .http(|_: &Outgoing| {
            Ok(Incoming {
                status: 401,
                headers: Vec::new(),
                body: br#"{ "result": 401, "text": "Unauthorized" }"#.to_vec(),
            })
        })
        .install();
    assert_eq!(
        DhcpKea::subnets(),
        Err(Error::Refused(
            "Kea answered HTTP 401: Unauthorized".to_owned()
        ))
    );
    drop(_host);
    for (lost, error) in [
        (UpstreamError::Timeout(5), "Timeout"),
        (UpstreamError::Unreachable("x".to_owned()), "Unreachable"),
        (UpstreamError::Tls("x".to_owned()), "Unreachable"),
        (UpstreamError::Denied("x".to_owned()), "Refused"),
    ] {
        let _host = Double::new()
            .http(move |_: &Outgoing| Err(lost.clone()))
            .install();
        let got = format!("{:?}", DhcpKea::subnets().unwrap_err());
        assert!(got.contains(error), "{got}");
    }
}

#[test]
fn the_control_agent_itself_is_no_dhcp_server() {
    let _host = Double::new()
        .http(|_: &Outgoing| said(br#"[ { "arguments": [ "build-report", "config-get", "config-set", "shutdown" ], "result": 0 } ]"#))
        .install();
    assert!(matches!(DhcpKea::subnets(), Err(Error::Unsupported(_))));
}

/// A host database behind `host_cmds`: pages of two sources, writing without `operation-target`.
fn with_database() -> (Installed, Asked) {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&asked);
    let host = kea(
        false,
        &[
            "reservation-add",
            "reservation-del",
            "reservation-get",
            "reservation-get-page",
        ],
        Box::new(move |command, arguments| {
            log.borrow_mut()
                .push((command.to_owned(), arguments.clone()));
            let one = |number: u8| json!({ "hw-address": format!("aa:0b:cc:dd:ee:{number:02x}"), "ip-address": format!("192.0.2.{number}"), "hostname": "h", "next-server": "0.0.0.0", "boot-file-name": "", "option-data": [], "subnet-id": 1 });
            match command {
                "config-get" => config(),
                "reservation-get-page" => match (arguments["source-index"].as_u64().unwrap(), arguments["from"].as_u64().unwrap()) {
                    (0, 0) => json!({ "result": 0, "arguments": { "count": 2, "hosts": [one(1), one(2)], "next": { "from": 2, "source-index": 1 } } }),
                    (1, 2) => json!({ "result": 0, "arguments": { "count": 1, "hosts": [one(3)], "next": { "from": 3, "source-index": 1 } } }),
                    _ => json!({ "result": 3, "text": "0 IPv4 host(s) found.", "arguments": { "count": 0, "hosts": [] } }),
                },
                "reservation-add" => json!({ "result": 1, "text": "Database duplicate entry error" }),
                "reservation-get" if arguments["ip-address"] == "192.0.2.20" => {
                    json!({ "result": 0, "arguments": one(20) })
                }
                "reservation-del" => json!({ "result": if arguments["operation-target"] == "database" { 0 } else { 3 } }),
                "lease4-get" | "lease4-get-page" | "reservation-get" => json!({ "result": 3, "text": "not found" }),
                other => panic!("{other} was asked"),
            }
        }),
    )
    .install();
    (host, asked)
}

#[test]
fn pages_of_a_database_are_followed_to_the_end() {
    let (_host, _) = with_database();
    let mut cursor = None;
    let mut found = Vec::new();
    loop {
        let page = DhcpKea::entries(NET.to_owned(), cursor, 2).unwrap();
        found.extend(page.entries);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 3);
    assert!(matches!(
        DhcpKea::entries(NET.to_owned(), Some("made up".to_owned()), 2),
        Err(Error::Refused(_))
    ));
}

#[test]
fn a_duplicate_of_the_database_is_a_conflict_with_its_words() {
    let (_host, asked) = with_database();
    assert_eq!(
        DhcpKea::add(reservation()),
        Err(Error::Conflict("Database duplicate entry error".to_owned()))
    );
    let asked = asked.borrow();
    let added = asked
        .iter()
        .find(|(command, _)| command == "reservation-add")
        .unwrap();
    assert_eq!(
        added.1,
        json!({ "reservation": { "hw-address": "aa:0b:cc:dd:ee:01", "ip-address": "192.0.2.20", "hostname": "a.example.com", "subnet-id": 1 } })
    );
}

#[test]
fn removing_from_a_database_does_not_write_the_configuration() {
    let (_host, asked) = with_database();
    assert_eq!(
        DhcpKea::remove(NET.to_owned(), Some("192.0.2.20".to_owned()), None),
        Ok(true)
    );
    assert!(
        asked
            .borrow()
            .iter()
            .all(|(command, _)| command != "config-write")
    );
    assert_eq!(
        DhcpKea::remove(NET.to_owned(), Some("192.0.2.21".to_owned()), None),
        Ok(false)
    );
}

#[test]
fn a_database_without_the_hook_is_not_guessed_at() {
    let _host = kea(true, &[], Box::new(|_, _| config())).install();
    for result in [
        DhcpKea::add(reservation()),
        DhcpKea::by_address(NET.to_owned(), "192.0.2.1".to_owned()).map(|_| true),
    ] {
        match result {
            Err(Error::Unsupported(text)) => assert!(text.contains("host_cmds"), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

/// A server without `host_cmds` that keeps what is set, and whose file cannot be written.
#[test]
fn what_kea_cannot_write_is_taken_back() {
    let first = json!({ "subnet4": [{ "id": 1, "subnet": NET, "reservations": [] }] });
    let state = Rc::new(RefCell::new(first.clone()));
    let theirs = Rc::clone(&state);
    let host = kea(
        true,
        &[],
        Box::new(move |command, arguments| match command {
            "config-get" => json!({ "result": 0, "arguments": { "Dhcp4": *theirs.borrow() } }),
            "config-test" => json!({ "result": 0 }),
            "config-set" => {
                *theirs.borrow_mut() = arguments["Dhcp4"].clone();
                json!({ "result": 0 })
            }
            "config-write" => {
                json!({ "result": 1, "text": "Error during config-write: Permission denied" })
            }
            other => panic!("{other} was asked"),
        }),
    )
    .install();
    match DhcpKea::add(reservation()) {
        Err(Error::Refused(text)) => assert!(text.contains("Permission denied"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*state.borrow(), first);
    drop(host);
}

#[test]
fn hidden_passwords_are_not_set() {
    let _host = kea(
        true,
        &[],
        Box::new(|command, _| match command {
            "config-get" => json!({ "result": 0, "arguments": { "Dhcp4": { "secret": { "password": "*****" }, "subnet4": [{ "id": 1, "subnet": NET }] } } }),
            other => panic!("{other} was asked"),
        }),
    )
    .install();
    assert!(matches!(
        DhcpKea::add(reservation()),
        Err(Error::Unsupported(_))
    ));
}

#[test]
fn what_foreman_sends_beside_becomes_options_or_a_clear_refusal() {
    let mut wanted = reservation();
    wanted.options = vec![
        text("hostname", "b.example.com"),
        text("filename", "poap.cfg/x"),
        text("nextServer", "192.0.2.9"),
        text("PXEClient", "PXEClient"),
        text("interface_mtu", ""),
        text("related_macs", "aa"),
        DhcpOption {
            name: "routers".to_owned(),
            value: OptionValue::Texts(vec!["192.0.2.1".to_owned(), "192.0.2.2".to_owned()]),
        },
    ];
    let host = Host::wanted(&wanted).unwrap();
    let written = host.written(None);
    assert_eq!(written["hostname"], "b.example.com");
    assert_eq!(written["next-server"], "192.0.2.9");
    let options: Vec<&str> = written["option-data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        options,
        [
            "vendor-class-identifier",
            "routers",
            "tftp-server-name",
            "boot-file-name"
        ]
    );
    // A name is looked up; one without an address is refused.
    wanted.options = vec![text("nextServer", "localhost")];
    assert_eq!(
        Host::wanted(&wanted).unwrap().written(None)["next-server"],
        "127.0.0.1"
    );
    wanted.options = vec![text("nextServer", "nowhere.invalid")];
    assert!(matches!(Host::wanted(&wanted), Err(Failure::Refused(_))));
    wanted.options = vec![text("<SUNW>install_path", "/x")];
    assert!(matches!(
        Host::wanted(&wanted),
        Err(Failure::Unsupported(_))
    ));
    // A URL beyond the header's field, with a comma in it.
    let url = format!("https://boot.example.com/{},x", "y".repeat(200));
    wanted.options = vec![text("filename", &url)];
    let host = Host::wanted(&wanted).unwrap();
    let written = host.written(None);
    assert_eq!(written.get("boot-file-name"), None);
    let again: Host = serde_json::from_value(written).unwrap();
    assert!(again.same(&host));
    let Some(Entry::Reservation(shown)) = again.entry(NET.parse().unwrap(), true) else {
        panic!("it has an address");
    };
    assert_eq!(shown.options[1], text("filename", &url));
    assert_eq!(shown.options.len(), 2);
}

#[test]
fn identifiers_of_every_kind_are_read() {
    let host: Host =
        serde_json::from_str(r#"{"client-id": "01AABBCCDDEE01", "ip-address": "192.0.2.9"}"#)
            .unwrap();
    assert!(host.id.is(&HostId::of(&Identifier::Client(
        "01:aa:bb:cc:dd:ee:01".to_owned()
    ))));
    let host: Host =
        serde_json::from_str(r#"{"duid": "01:AA:bb", "ip-address": "192.0.2.9"}"#).unwrap();
    assert!(
        host.id
            .is(&HostId::of(&Identifier::Client("01:aa:bb".to_owned())))
    );
    assert!(serde_json::from_str::<Host>(r#"{"ip-address": "192.0.2.9"}"#).is_err());
}

#[test]
fn the_text_of_a_configuration_is_changed_in_one_place_only() {
    let text = r#"{ "x": 0.875, "subnet4": [ { "id": 1, "reservations": [  ], "subnet": "192.0.2.0/24" } ], "shared-networks": [ { "name": "é", "subnet4": [ { "id": 2, "subnet": "198.51.100.0/24" } ] } ] }"#;
    let host = Host::wanted(&reservation()).unwrap();
    let first = splice::with_added(text, 1, &host).unwrap();
    let host_text = host.written(None).to_string();
    assert_eq!(first, text.replace("[  ]", &format!("[  {host_text}]")));
    let both = splice::with_added(&first, 2, &host).unwrap();
    let config = config::read(&both).unwrap();
    assert!(
        config
            .subnets
            .iter()
            .all(|subnet| subnet.hosts == [host.clone()])
    );
    let (less, removed) = splice::with_removed(&both, 2, |_| true).unwrap();
    assert_eq!(removed, 1);
    let config = config::read(&less).unwrap();
    assert_eq!(config.subnets[0].hosts.len(), 1);
    assert_eq!(config.subnets[1].hosts.len(), 0);
    assert_eq!(
        splice::with_added(text, 3, &host),
        Err(Failure::UnknownSubnet)
    );
}

/// `config-get` of a server that keeps its leases in a file, without hooks.
fn with_lease_file() -> Double {
    Double::new().store("locks").setting(memfile::DIRECTORY, "/var/lib/kea").http(|request: &Outgoing| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let answer = match body["command"].as_str().unwrap() {
            "list-commands" => json!([{ "result": 0, "arguments": ["config-get", "dhcp-disable"] }]),
            _ => json!([{ "result": 0, "arguments": { "Dhcp4": { "lease-database": { "type": "memfile", "name": "/var/lib/kea/l.csv" }, "subnet4": [{ "id": 1, "subnet": NET }] } } }]),
        };
        said(answer.to_string().as_bytes())
    })
}

const HEADER: &str = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n";

fn line(number: u8, lasts: u32, state: u8) -> String {
    format!("192.0.2.{number},02:00:00:00:00:{number:02x},,{lasts},1795631201,1,0,0,,{state},,0\n")
}

fn leased() -> Vec<u8> {
    let page = DhcpKea::entries(NET.to_owned(), None, 1000).unwrap();
    page.entries
        .iter()
        .map(|entry| match entry {
            Entry::Lease(lease) => lease.address.rsplit('.').next().unwrap().parse().unwrap(),
            Entry::Reservation(_) => panic!("there are none"),
        })
        .collect()
}

#[test]
fn the_lease_file_is_followed_through_growth_and_tidying() {
    let mut now = format!("{HEADER}{}{}", line(1, 60, 0), line(2, 60, 0));
    let host = with_lease_file()
        .watched("leases", "l.csv", 1, now.as_bytes())
        .install();
    assert_eq!(leased(), [1, 2]);

    // A half-written line counts once it is whole; deleted and reclaimed leases are gone, declined ones are held.
    let half = format!("{}{}", line(2, 0, 0), line(3, 60, 1));
    now.push_str(&half[..half.len() - 5]);
    host.change(|host| host.watched("leases", "l.csv", 1, now.as_bytes()));
    assert_eq!(leased(), [1]);
    now.push_str(&half[half.len() - 5..]);
    now.push_str(&line(1, 60, 2));
    host.change(|host| host.watched("leases", "l.csv", 1, now.as_bytes()));
    assert_eq!(leased(), [3]);

    // Tidying: the file is renamed and a new one begun, then the old ones become one.
    let new = format!("{HEADER}{}", line(4, 60, 0));
    host.change(|host| {
        host.watched("leases", "l.csv.1", 1, now.as_bytes())
            .watched("leases", "l.csv", 2, new.as_bytes())
    });
    assert_eq!(leased(), [3, 4]);
    let tidy = format!("{HEADER}{}", line(3, 60, 1));
    host.change(|host| host.watched("leases", "l.csv.completed", 3, tidy.as_bytes()));
    assert_eq!(leased(), [3, 4]);
}

#[test]
fn a_missing_lease_file_is_named() {
    let _host = with_lease_file()
        .watched("leases", "other.csv", 1, b"")
        .install();
    match DhcpKea::in_use(NET.to_owned(), vec!["192.0.2.1".to_owned()]) {
        Err(Error::Refused(text)) => assert!(text.contains("l.csv"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prefixes_are_read_as_kea_reads_them() {
    let prefix: prefix::Prefix = "192.0.2.77/25".parse().unwrap();
    assert_eq!(prefix.to_string(), "192.0.2.0/25");
    assert_eq!(prefix.last().to_string(), "192.0.2.127");
    let all: prefix::Prefix = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains([255, 255, 255, 255].into()));
    for text in [
        "192.0.2.0",
        "192.0.2.0/33",
        "2001:db8::/64",
        "/",
        "192.0.2.0/-1",
    ] {
        assert!(text.parse::<prefix::Prefix>().is_err(), "{text}");
    }
}
