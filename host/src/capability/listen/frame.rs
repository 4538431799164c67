//! Frames that the host puts together itself: UDP in IPv4 in Ethernet, for a client that has no address yet and thus answers no ARP.

use std::net::SocketAddrV4;

/// What precedes the payload: Ethernet, IPv4, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// Hops; a frame to a neighbour needs one, but some firmware distrusts less than the customary number.
const TTL: u8 = 64;

/// An Ethernet frame with one UDP datagram. None: the payload does not fit one.
#[must_use]
pub fn udp(
    from_mac: [u8; 6],
    to_mac: [u8; 6],
    from: SocketAddrV4,
    to: SocketAddrV4,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let udp_length = u16::try_from(payload.len() + 8).ok()?;
    let ip_length = udp_length.checked_add(20)?;
    let mut frame = Vec::with_capacity(HEADERS + payload.len());
    frame.extend(to_mac);
    frame.extend(from_mac);
    frame.extend([0x08, 0x00]);

    let mut ip = vec![0x45, 0];
    ip.extend(ip_length.to_be_bytes());
    // No identification, "do not fragment": nobody on the way could.
    ip.extend([0, 0, 0x40, 0, TTL, 17, 0, 0]);
    ip.extend(from.ip().octets());
    ip.extend(to.ip().octets());
    let sum = checksum(&ip).to_be_bytes();
    ip.splice(10..12, sum);
    frame.extend(&ip);

    let mut udp = Vec::with_capacity(8 + payload.len());
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(udp_length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut covered = Vec::with_capacity(12 + udp.len());
    covered.extend(from.ip().octets());
    covered.extend(to.ip().octets());
    covered.extend([0, 17]);
    covered.extend(udp_length.to_be_bytes());
    covered.extend(&udp);
    // Zero would say that there is no checksum (RFC 768).
    let sum = match checksum(&covered) {
        0 => 0xffff,
        sum => sum,
    };
    udp.splice(6..8, sum.to_be_bytes());
    frame.extend(udp);
    Some(frame)
}

/// The Internet checksum (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_add_up_to_nothing() {
        let frame = udp(
            [2, 0, 0, 0, 0, 1],
            [2, 0, 0, 0, 0, 2],
            "192.0.2.1:67".parse().unwrap(),
            "192.0.2.9:68".parse().unwrap(),
            b"odd",
        )
        .unwrap();
        assert_eq!(frame.len(), HEADERS + 3);
        assert_eq!(checksum(&frame[14..34]), 0, "IPv4 header");
        let mut covered = frame[26..34].to_vec();
        covered.extend([0, 17, 0, 11]);
        covered.extend(&frame[34..]);
        assert_eq!(checksum(&covered), 0, "UDP with its pseudo header");
        assert_eq!(&frame[42..], b"odd");
    }

    #[test]
    fn what_fits_no_datagram_is_none() {
        let address = "192.0.2.1:67".parse().unwrap();
        assert!(udp([0; 6], [0; 6], address, address, &[0; 65_508]).is_none());
    }

    #[test]
    fn the_example_of_rfc_1071_holds() {
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }
}
