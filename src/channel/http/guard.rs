//! Where a request may go. Whom a configuration names may be anywhere; whom a response names, by a redirect, must be in public: it
//! could otherwise make us ask what only we can reach. Judged by the very addresses that are then connected to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Who chose the host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chosen {
    /// The configuration.
    ByUs,
    /// A response.
    ByThem,
}

/// Why a request does not go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Forbidden {
    address: IpAddr,
    what: &'static str,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, and not asked", self.address, self.what)
    }
}

impl std::error::Error for Forbidden {}

impl Chosen {
    /// Judges the addresses of a name: all of them, for nobody knows which one answers.
    pub(super) fn judge(self, mut addresses: impl Iterator<Item = IpAddr>) -> Result<(), Forbidden> {
        let forbidden = |address: IpAddr| {
            let what = match (self, place(address)) {
                (_, Place::Metadata) => "where clouds keep the secrets of their machines",
                (Chosen::ByThem, Place::Private(what)) => what,
                (Chosen::ByUs, Place::Private(_)) | (_, Place::Public) => return None,
            };
            Some(Forbidden { address, what })
        };
        addresses.find_map(forbidden).map_or(Ok(()), Err)
    }

    /// Judges an address that stands in the URL itself, for which no name is looked up. One that we wrote there was meant.
    pub(super) fn judge_literal(self, url: &Url) -> Result<(), Forbidden> {
        let address = match (self, url.host()) {
            (Chosen::ByThem, Some(Host::Ipv4(ip))) => IpAddr::V4(ip),
            (Chosen::ByThem, Some(Host::Ipv6(ip))) => IpAddr::V6(ip),
            (Chosen::ByUs, _) | (_, Some(Host::Domain(_)) | None) => return Ok(()),
        };
        self.judge(std::iter::once(address))
    }
}

/// What an address is to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Public,
    Private(&'static str),
    /// Clouds hand out credentials there to whoever asks from the machine.
    Metadata,
}

/// AWS, Azure, Google, Oracle, Alibaba; AWS over IPv6; containers of AWS, Azure's host, Oracle's other, Alibaba.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

fn place(address: IpAddr) -> Place {
    let address = match address {
        IpAddr::V6(ip) => match embedded(ip) {
            Some(inner) => IpAddr::V4(inner),
            None => IpAddr::V6(ip),
        },
        ip => ip,
    };
    if METADATA.contains(&address) {
        return Place::Metadata;
    }
    match address {
        IpAddr::V4(ip) => of_v4(ip),
        IpAddr::V6(ip) => of_v6(ip),
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped and compatible (RFC 4291 section 2.5.5), behind NAT64 (RFC 6052), 6to4
/// (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let groups = ip.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match groups {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// <https://www.iana.org/assignments/iana-ipv4-special-registry>
fn of_v4(ip: Ipv4Addr) -> Place {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (127, ..) => Place::Private("this machine itself"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Place::Private("in a private network"),
        (100, 64..=127, _) => Place::Private("behind a carrier's address translation"),
        (169, 254, _) => Place::Private("on the link"),
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            Place::Private("reserved")
        }
        (0 | 224..=255, ..) => Place::Private("nobody's address"),
        _ => Place::Public,
    }
}

/// <https://www.iana.org/assignments/iana-ipv6-special-registry>: only 2000::/3 is out in the world, and not all of it.
fn of_v6(ip: Ipv6Addr) -> Place {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Private("this machine itself"),
        [0xfc00..=0xfdff, ..] => Place::Private("in a private network"),
        [0xfe80..=0xfebf, ..] => Place::Private("on the link"),
        [0x2001, 0x0000..=0x01ff | 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Place::Private("reserved"),
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Private("nobody's address"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(chosen: Chosen, address: &str) -> Option<&'static str> {
        chosen.judge(std::iter::once(address.parse().unwrap())).err().map(|forbidden| forbidden.what)
    }

    #[test]
    fn every_address_has_its_place() {
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::"]
        {
            assert_eq!((told(Chosen::ByThem, public), told(Chosen::ByUs, public)), (None, None), "{public}");
        }
        for private in [
            "127.0.0.1",
            "127.8.9.10",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(told(Chosen::ByThem, private).is_some(), "{private}");
            assert_eq!(told(Chosen::ByUs, private), None, "{private}: the configuration may name it");
        }
        for metadata in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::",
            "fd00:ec2::254",
            "169.254.170.2",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
        ] {
            for chosen in [Chosen::ByThem, Chosen::ByUs] {
                assert!(told(chosen, metadata).is_some_and(|what| what.contains("clouds")), "{metadata}");
            }
        }
    }

    #[test]
    fn one_forbidden_address_among_many_is_enough() {
        let mixed = ["1.1.1.1", "2606:4700::1111", "10.0.0.1"].map(|ip| ip.parse().unwrap());
        let told = Chosen::ByThem.judge(mixed.into_iter()).unwrap_err().to_string();
        assert_eq!(told, "10.0.0.1 is in a private network, and not asked");
        assert_eq!(Chosen::ByUs.judge(mixed.into_iter()), Ok(()));
    }

    #[test]
    fn an_address_is_known_however_it_is_written_in_a_url() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://１２７.0.0.1/",
            "http://127.0.0.1./",
            "http://0/",
            "http://169.254.169.254/latest",
            "http://0xa9fea9fe/",
        ] {
            let url: Url = url.parse().unwrap();
            assert!(Chosen::ByThem.judge_literal(&url).is_err(), "{url}");
            assert!(Chosen::ByUs.judge_literal(&url).is_ok(), "{url}: it was written there by hand");
        }
        assert!(Chosen::ByThem.judge_literal(&"http://1.1.1.1/".parse().unwrap()).is_ok());
    }

    proptest! {
        #[test]
        fn ipv4_is_the_same_in_every_disguise(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            let [high, low] = [(bits >> 16) as u16, bits as u16];
            let plain = place(IpAddr::V4(ip));
            for disguise in [
                ip.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(place(IpAddr::V6(disguise)), plain, "{}", disguise);
            }
        }
    }
}
