//! Which IP addresses are public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 blocks that are not globally reachable, each with the length of its prefix, see
/// <https://www.iana.org/assignments/iana-ipv4-special-registry/>. Multicast and reserved addresses are the last two.
const SPECIAL_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 3),
];

/// The blocks within 2000::/3 that are not ordinary public addresses, see
/// <https://www.iana.org/assignments/iana-ipv6-special-registry/>. They include Teredo and 6to4, which lead to IPv4
/// addresses.
const SPECIAL_V6: [([u16; 2], u32); 4] =
    [([0x2001, 0], 23), ([0x2001, 0xdb8], 32), ([0x2002, 0], 16), ([0x3fff, 0], 20)];

/// Whether the address is a global unicast address, which belongs to exactly one machine on the internet. Addresses that
/// lead to another address, such as those that contain an IPv4 address, are not.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let has_prefix =
        |&(block, len): &([u8; 4], u32)| (address.to_bits() ^ u32::from_be_bytes(block)) >> (32 - len) == 0;
    !SPECIAL_V4.iter().any(has_prefix)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let start = u32::from(first) << 16 | u32::from(second);
    let has_prefix = |&([first, second], len): &([u16; 2], u32)| {
        (start ^ (u32::from(first) << 16 | u32::from(second))) >> (32 - len) == 0
    };
    first >> 13 == 0b001 && !SPECIAL_V6.iter().any(has_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ordinary_public_addresses_are_public() {
        for address in ["1.1.1.1", "8.8.8.8", "52.95.110.1", "223.255.255.254", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(address.parse().expect("an address")), "{address}");
        }
        for address in ["127.0.0.1", "169.254.169.254", "100.127.0.1", "255.255.255.255", "::1", "::ffff:8.8.8.8"] {
            assert!(!is_public(address.parse().expect("an address")), "{address}");
        }
    }
}
