//! What is shown of a configuration that is not written as most are.

use super::*;

/// A server of one subnet, with these keys of `Dhcp4` beside.
fn with(keys: &Value) -> Double {
    let mut dhcp4 = json!({ "subnet4": [{ "id": 1, "subnet": NET }] });
    for (key, value) in keys.as_object().unwrap() {
        dhcp4[key] = value.clone();
    }
    Double::new()
        .store("locks")
        .setting(memfile::DIRECTORY, "/var/lib/kea")
        .http(move |request: &Outgoing| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let answer = match body["command"].as_str().unwrap() {
                "list-commands" => {
                    json!([{ "result": 0, "arguments": ["config-get", "dhcp-disable"] }])
                }
                _ => json!([{ "result": 0, "arguments": { "Dhcp4": dhcp4 } }]),
            };
            said(answer.to_string().as_bytes())
        })
}

#[test]
fn options_in_hexadecimal_are_shown_as_what_they_say() {
    let hexadecimal = |code: u16, data: &str| json!({ "code": code, "csv-format": false, "data": data, "space": "dhcp4" });
    let _host = with(&json!({ "option-data": [
        hexadecimal(3, "C0000201"),
        hexadecimal(6, "0xC0000235c0000236"),
        hexadecimal(15, "6578616D706C652E636F6D"),
        hexadecimal(26, "05DC"),
        // Not of whole addresses: as Kea has it.
        hexadecimal(42, "C00002"),
    ] }))
    .install();
    let texts =
        |texts: &[&str]| OptionValue::Texts(texts.iter().map(|text| (*text).to_owned()).collect());
    let subnets = DhcpKea::subnets().unwrap();
    let shown: Vec<(&str, &OptionValue)> = subnets[0]
        .options
        .iter()
        .map(|option| (option.name.as_str(), &option.value))
        .collect();
    assert_eq!(
        shown,
        [
            ("routers", &texts(&["192.0.2.1"])),
            ("domain_name", &OptionValue::Text("example.com".to_owned())),
            ("domain_name_servers", &texts(&["192.0.2.53", "192.0.2.54"])),
            ("ntp_servers", &texts(&["C00002"])),
            ("interface_mtu", &OptionValue::Integer(1500)),
        ]
    );
}

#[test]
fn a_lease_file_that_kea_does_not_write_is_not_read() {
    let database = json!({ "type": "memfile", "name": "/var/lib/kea/l.csv", "persist": false });
    let _host = with(&json!({ "lease-database": database }))
        .watched("leases", "l.csv", 1, HEADER.as_bytes())
        .install();
    match DhcpKea::in_use(NET.to_owned(), vec!["192.0.2.1".to_owned()]) {
        Err(Error::Unsupported(text)) => assert!(text.contains("lease_cmds"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_global_reservation_is_named_where_it_cannot_be_removed() {
    let global = json!([{ "hw-address": "02:00:00:00:00:09", "ip-address": "192.0.2.9" }]);
    let _host = with(&json!({ "reservations": global })).install();
    let who = Identifier::Hardware("02:00:00:00:00:09".to_owned());
    match DhcpKea::remove(NET.to_owned(), None, Some(who)) {
        Err(Error::NotDeletable(text)) => {
            assert!(
                text.starts_with("192.0.2.9 is reserved for 02:00:00:00:00:09"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Without `config-hash-get`, a configuration that takes long is not read for each question.
#[test]
fn a_slow_configuration_is_believed_for_as_long_as_reading_it_took() {
    let asked = Asked::default();
    let seen = Rc::clone(&asked);
    let answering = move |command: &str, arguments: &Value| {
        seen.borrow_mut()
            .push((command.to_owned(), arguments.clone()));
        if command == "config-get" {
            std::thread::sleep(std::time::Duration::from_millis(1200));
        }
        json!({ "result": 0, "arguments": { "Dhcp4": { "subnet4": [{ "id": 1, "subnet": NET }] } } })
    };
    let _host = kea(true, &[], Box::new(answering)).install();
    for _ in 0..3 {
        DhcpKea::subnets().unwrap();
    }
    assert_eq!(asked.borrow().len(), 1, "{:?}", asked.borrow());
}
