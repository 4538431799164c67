//! What a machine is told to boot.

use super::*;

#[test]
fn firmware_that_boots_over_http_is_told_name_servers_only_for_a_url_with_a_name() {
    let mut site = site();
    for (number, url, told) in [
        (1, "http://192.0.2.9:8000/grub2/grubx64.efi", false),
        (2, "http://192.0.2.9/grub2/grubx64.efi", false),
        (3, "http://proxy.example.com:8000/grub2/grubx64.efi", true),
    ] {
        let address = format!("192.0.2.5{number}");
        DhcpBuiltin::add(reservation(number, &address, &[("filename", url)])).unwrap();
        let mut told_to = |class: &[u8]| {
            let mut message = client(number, MessageType::Discover);
            raw(&mut message, 60, class);
            let offer = site.send(&message).unwrap();
            let told = offer.message.opts().get(OptionCode::DomainNameServer);
            told.is_some()
        };
        assert_eq!(told_to(b"HTTPClient:Arch:00016"), told, "{url}");
        assert!(told_to(b"udhcp"), "{url}: the booted system");
    }
}

#[test]
fn boot_files_go_by_architecture_and_kind_of_client() {
    let mut site = site();
    let mut ask = |class: &str, architecture: u16, user: Option<&[u8]>, number: u8| {
        let mut message = client(number, MessageType::Discover);
        raw(&mut message, 60, class.as_bytes());
        raw(&mut message, 93, &architecture.to_be_bytes());
        if let Some(user) = user {
            raw(&mut message, 77, user);
        }
        let offer = site.send(&message).unwrap();
        let class = match offer.message.opts().get(OptionCode::ClassIdentifier) {
            Some(DhcpOption::ClassIdentifier(class)) => String::from_utf8(class.clone()).unwrap(),
            _ => String::new(),
        };
        (offer.file(), class)
    };
    let url = "http://192.0.2.1:8000/httpboot/grub2/grubx64.efi";
    assert_eq!(
        ask("PXEClient:Arch:00000:UNDI:002001", 0, None, 1),
        ("pxelinux.0".into(), String::new())
    );
    assert_eq!(
        ask("PXEClient:Arch:00007", 7, None, 1),
        ("grub2/grubx64.efi".into(), String::new())
    );
    assert_eq!(
        ask("HTTPClient:Arch:00016", 16, None, 1),
        (url.into(), "HTTPClient".into())
    );
    assert_eq!(
        ask("HTTPClient:Arch:00007", 7, None, 1),
        (String::new(), String::new()),
        "a file name is no URL"
    );
    assert_eq!(
        ask("PXEClient:Arch:00016", 16, None, 1),
        (String::new(), String::new()),
        "a URL is no file name"
    );
    assert_eq!(
        ask("PXEClient", 11, None, 1),
        (String::new(), String::new())
    );
    DhcpBuiltin::add(reservation(
        7,
        "192.0.2.50",
        &[("filename", "http://192.0.2.9/x.efi")],
    ))
    .unwrap();
    assert_eq!(
        ask("HTTPClient:Arch:00016", 16, None, 7),
        ("http://192.0.2.9/x.efi".into(), "HTTPClient".into())
    );
    assert_eq!(
        ask("PXEClient", 7, Some(b"iPXE"), 7).0,
        "http://192.0.2.9/x.efi"
    );
}

/// What a machine of this architecture is told by default, and whether it is told that this is for `HTTPClient`.
fn told_by_default(site: &mut Site, class: &str, architectures: &[u16]) -> (String, bool) {
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 60, class.as_bytes());
    let octets: Vec<u8> = architectures
        .iter()
        .flat_map(|it| it.to_be_bytes())
        .collect();
    raw(&mut message, 93, &octets);
    let offer = site.send(&message).unwrap();
    let class = offer.message.opts().get(OptionCode::ClassIdentifier);
    let file = offer.message.opts().get(OptionCode::BootfileName).cloned();
    if class.is_some() {
        let file_of_option = DhcpOption::BootfileName(offer.file().into_bytes());
        assert_eq!(file, Some(file_of_option), "HTTP reads option 67");
    }
    (
        offer.file(),
        class == Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec())),
    )
}

#[test]
fn every_architecture_that_matters_has_a_boot_file_by_default() {
    let http = "http://192.0.2.9:8000";
    let host = host()
        .setting("boot_files", texts(BOOT_FILES))
        .public_url(Audience::Public, http)
        .ports(Some(8001), None);
    let mut site = site_of(host.setting("flood_limit", 1000));
    for (by_tftp, by_http, file) in [
        (6, Some(15), "grub2/grubia32.efi"),
        (7, Some(16), "grub2/grubx64.efi"),
        (9, None, "grub2/grubx64.efi"),
        (10, Some(18), "grub2/grubarm.efi"),
        (11, Some(19), "grub2/grubaa64.efi"),
        (27, Some(28), "grub2/grubriscv64.efi"),
        (39, Some(40), "grub2/grubloongarch64.efi"),
        (0, None, "pxelinux.0"),
    ] {
        let class = format!("PXEClient:Arch:{by_tftp:05}:UNDI:003016");
        let told = told_by_default(&mut site, &class, &[by_tftp]);
        assert_eq!(told, (file.to_owned(), false));
        if let Some(number) = by_http {
            let class = format!("HTTPClient:Arch:{number:05}:UNDI:003001");
            let told = told_by_default(&mut site, &class, &[number]);
            assert_eq!(told, (format!("{http}/httpboot/{file}"), true));
        }
    }
    // No loader of ours runs there, and nothing is better than one that does not.
    for (class, number) in [("PXEClient", 14), ("PXEClient", 22), ("HTTPClient", 20)] {
        let told = told_by_default(&mut site, class, &[number]);
        assert_eq!(told, (String::new(), false), "{number}");
    }
    let told = told_by_default(&mut site, "HTTPClient", &[20, 16]);
    assert!(told.1 && told.0.ends_with("grubx64.efi"), "{told:?}");
}

#[test]
fn a_boot_file_becomes_a_url_only_where_machines_can_read_it() {
    for (listener, port, told) in [
        (Some("https://192.0.2.1:8443"), Some(8000), ""),
        (Some("http://127.0.0.1:8000"), Some(8000), ""),
        (None, Some(8000), ""),
        (Some("http://proxy.example.com:8000"), None, ""),
        (
            Some("http://proxy.example.com:8000"),
            Some(8000),
            "http://192.0.2.1:8000/httpboot/grub2/grubx64.efi",
        ),
    ] {
        let mut host = host()
            .setting("boot_files", texts(BOOT_FILES))
            .ports(port, None);
        if let Some(listener) = listener {
            host = host.public_url(Audience::Public, listener);
        }
        let mut site = site_of(host);
        let (file, is_http) = told_by_default(&mut site, "HTTPClient", &[16]);
        assert_eq!((file.as_str(), is_http), (told, !told.is_empty()));
    }
}

#[test]
fn ipxe_can_have_a_script_of_its_own() {
    let mut site = site_of(host().setting(
        "boot_files",
        texts(&["0=undionly.kpxe", "ipxe=http://192.0.2.1/boot.ipxe"]),
    ));
    let mut message = client(1, MessageType::Discover);
    raw(&mut message, 93, &[0, 0]);
    assert_eq!(site.send(&message).unwrap().file(), "undionly.kpxe");
    raw(&mut message, 77, b"iPXE");
    assert_eq!(
        site.send(&message).unwrap().file(),
        "http://192.0.2.1/boot.ipxe"
    );
}

/// Options 66 and 67 of a subnet are for those who boot nothing of ours, telephones for example: nobody is told two, which clients would join.
#[test]
fn what_a_subnet_says_for_all_stands_behind_what_a_machine_boots() {
    let subnet = "192.0.2.0/24 range=192.0.2.100-192.0.2.103 option-66=6162 option-67=6364";
    let mut site = site_of(host().setting("subnets", texts(&[subnet])));
    let holds = |back: &Back, option: &[u8]| {
        let windows = back.bytes.windows(option.len());
        windows.filter(|it| *it == option).count()
    };
    let telephone = site.discover(1).unwrap();
    assert_eq!(holds(&telephone, b"\x42\x02ab"), 1);
    assert_eq!(holds(&telephone, b"\x43\x02cd"), 1);
    let mut firmware = client(2, MessageType::Discover);
    raw(&mut firmware, 93, &[0, 7]);
    let firmware = site.send(&firmware).unwrap();
    assert_eq!(firmware.file(), "grub2/grubx64.efi");
    assert_eq!(holds(&firmware, b"\x43\x11grub2/grubx64.efi"), 1);
    assert_eq!(holds(&firmware, b"\x42\x02ab"), 0);
    assert_eq!(holds(&firmware, b"\x43\x02cd"), 0);
}
