//! Which IP addresses are public.

use std::net::IpAddr;

/// The IPv4 blocks that are not globally reachable, each with the length of its prefix, see
/// <https://www.iana.org/assignments/iana-ipv4-special-registry/>. Multicast and reserved addresses are the last two.
#[rustfmt::skip]
const SPECIAL_V4: [([u8; 4], u32); 17] = [
    ([0, 0, 0, 0], 8), ([10, 0, 0, 0], 8), ([100, 64, 0, 0], 10), ([127, 0, 0, 0], 8), ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12), ([192, 0, 0, 0], 24), ([192, 0, 2, 0], 24), ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24), ([192, 88, 99, 0], 24), ([192, 168, 0, 0], 16), ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15), ([198, 51, 100, 0], 24), ([203, 0, 113, 0], 24), ([224, 0, 0, 0], 3),
];

/// The first 32 bits of the blocks within 2000::/3 that are not public or lead to IPv4 addresses, such as Teredo and
/// 6to4, see <https://www.iana.org/assignments/iana-ipv6-special-registry/>.
const SPECIAL_V6: [(u32, u32); 4] = [(0x2001_0000, 23), (0x2001_0db8, 32), (0x2002_0000, 16), (0x3fff_0000, 20)];

/// Whether this is a global unicast address that does not lead to another one, such as one that it contains.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let has_prefix =
                |&(block, len): &([u8; 4], u32)| (v4.to_bits() ^ u32::from_be_bytes(block)) >> (32 - len) == 0;
            !SPECIAL_V4.iter().any(has_prefix)
        }
        IpAddr::V6(v6) => {
            let start = (v6.to_bits() >> 96) as u32;
            start >> 29 == 0b001 && !SPECIAL_V6.iter().any(|&(block, len)| (start ^ block) >> (32 - len) == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ordinary_public_addresses_are_public() {
        for (what, address) in [
            ("a resolver", "1.1.1.1"),
            ("AWS", "52.95.110.1"),
            ("the last address before class A's private ones", "9.255.255.255"),
            ("the first one after them", "11.0.0.0"),
            ("the last one before carrier-grade NAT", "100.63.255.255"),
            ("the first one after it", "100.128.0.0"),
            ("the last one before loopback", "126.255.255.255"),
            ("the first one after it", "128.0.0.0"),
            ("the last one before link-local", "169.253.255.255"),
            ("the first one after it", "169.255.0.0"),
            ("the last one before class B's private ones", "172.15.255.255"),
            ("the first one after them", "172.32.0.0"),
            ("the last one before class C's private ones", "192.167.255.255"),
            ("the first one after them", "192.169.0.0"),
            ("the last one before benchmarking", "198.17.255.255"),
            ("the first one after it", "198.20.0.0"),
            ("the last one before multicast", "223.255.255.255"),
            ("an IPv6 resolver", "2606:4700:4700::1111"),
            ("an IPv6 address of Europe", "2a00:1450:4001::1"),
            ("the first one after the protocol assignments", "2001:200::1"),
            ("the last one before documentation", "2001:db7:ffff::1"),
            ("the first one after it", "2001:db9::1"),
            ("the first one after 6to4", "2003::1"),
            ("the first one after newer documentation", "3fff:1000::1"),
        ] {
            assert!(is_public(address.parse().expect("an address")), "{what}: {address}");
        }
        for (what, address) in [
            ("this host", "0.0.0.0"),
            ("this network", "0.255.255.255"),
            ("the first private one of class A", "10.0.0.0"),
            ("the last one", "10.255.255.255"),
            ("the first one of carrier-grade NAT", "100.64.0.0"),
            ("the last one", "100.127.255.255"),
            ("loopback", "127.0.0.1"),
            ("the last one of loopback", "127.255.255.255"),
            ("the first one of link-local", "169.254.0.0"),
            ("the metadata service of an instance", "169.254.169.254"),
            ("the metadata service of a container", "169.254.170.2"),
            ("the first private one of class B", "172.16.0.0"),
            ("the last one", "172.31.255.255"),
            ("protocol assignments", "192.0.0.1"),
            ("documentation", "192.0.2.1"),
            ("AS112", "192.31.196.1"),
            ("AMT", "192.52.193.1"),
            ("relays of 6to4", "192.88.99.1"),
            ("the first private one of class C", "192.168.0.0"),
            ("the last one", "192.168.255.255"),
            ("AS112, delegated", "192.175.48.1"),
            ("the first one of benchmarking", "198.18.0.0"),
            ("the last one", "198.19.255.255"),
            ("documentation, the second block", "198.51.100.1"),
            ("documentation, the third block", "203.0.113.1"),
            ("multicast", "224.0.0.1"),
            ("the last one of multicast", "239.255.255.255"),
            ("reserved", "240.0.0.1"),
            ("broadcast", "255.255.255.255"),
            ("no IPv6 address", "::"),
            ("IPv6 loopback", "::1"),
            ("IPv4-compatible", "::8.8.8.8"),
            ("IPv4-mapped", "::ffff:8.8.8.8"),
            ("IPv4-translated", "::ffff:0:8.8.8.8"),
            ("NAT64", "64:ff9b::8.8.8.8"),
            ("local NAT64", "64:ff9b:1::1"),
            ("discard", "100::1"),
            ("Teredo", "2001::1"),
            ("IPv6 benchmarking", "2001:2::1"),
            ("ORCHID", "2001:20::1"),
            ("the last protocol assignment", "2001:1ff:ffff::1"),
            ("IPv6 documentation", "2001:db8::1"),
            ("6to4 of a private address", "2002:a00:1::1"),
            ("6to4 of a public address", "2002:101:101::1"),
            ("newer documentation", "3fff:fff::1"),
            ("not assigned yet", "4000::1"),
            ("segment routing", "5f00::1"),
            ("unique local", "fc00::1"),
            ("the IPv6 metadata service", "fd00:ec2::254"),
            ("link-local", "fe80::1"),
            ("site-local", "fec0::1"),
            ("IPv6 multicast", "ff02::1"),
        ] {
            assert!(!is_public(address.parse().expect("an address")), "{what}: {address}");
        }
    }
}
