//! The kernel's routing tables as it prints them: `/proc/net/route` (net/ipv4/fib_trie.c) and
//! `/proc/net/ipv6_route` (net/ipv6/route.c).

use crate::files;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
/// IPv6 alone: the router's own addresses, and addresses used by many.
const LOCAL: u32 = 0x8000_0000;
const ANYCAST: u32 = 0x0010_0000;

/// Bytes of one table; a full BGP feed is not for us.
const LIMIT: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub destination: IpAddr,
    pub prefix: u8,
    pub metric: u32,
    pub interface: String,
}

impl Route {
    fn covers(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let shift = width - u32::from(self.prefix);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.destination, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether packets to the world could take it: not multicast and not the link alone.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        match self.destination {
            IpAddr::V4(address) => !address.is_multicast() && !address.is_link_local(),
            IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
        }
    }
}

/// Both tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    routes: Vec<Route>,
}

impl Tables {
    /// Reads what `<proc>/net` has; a kernel without IPv6 has only one of them.
    ///
    /// # Errors
    /// The IPv4 table cannot be read.
    pub fn read(proc_root: &Path) -> io::Result<Self> {
        let text = |name: &str| {
            let bytes = files::read_limited(&proc_root.join("net").join(name), LIMIT)?;
            io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let v6 = match text("ipv6_route") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        Ok(Self::parse(&text("route")?, &v6))
    }

    /// Lines that are no routes, or routes that are down or refuse, are left out.
    #[must_use]
    pub fn parse(v4: &str, v6: &str) -> Self {
        let routes = v4.lines().skip(1).filter_map(parse_v4).chain(v6.lines().filter_map(parse_v6));
        Self { routes: routes.collect() }
    }

    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route in use: the longest prefix, of those the lowest metric.
    #[must_use]
    pub fn route_to(&self, address: IpAddr) -> Option<&Route> {
        let covering = self.routes.iter().filter(|route| route.covers(address));
        covering.min_by_key(|route| (std::cmp::Reverse(route.prefix), route.metric))
    }
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT`, the addresses as
/// the number that the network's bytes make on this CPU.
fn parse_v4(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[interface, destination, _, flags, _, _, metric, mask, ..] = fields.as_slice() else {
        return None;
    };
    let address = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::to_ne_bytes);
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & UP == 0 || flags & REJECT != 0 {
        return None;
    }
    let prefix = u32::from_be_bytes(address(mask)?).count_ones();
    Some(Route {
        destination: IpAddr::V4(Ipv4Addr::from(address(destination)?)),
        prefix: u8::try_from(prefix).ok()?,
        metric: metric.parse().ok()?,
        interface: interface.to_owned(),
    })
}

/// `destination prefix source prefix next_hop metric refs use flags interface`, all hex.
fn parse_v6(line: &str) -> Option<Route> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[destination, prefix, _, _, _, metric, _, _, flags, interface] = fields.as_slice() else {
        return None;
    };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    if flags & UP == 0 || flags & (REJECT | LOCAL | ANYCAST) != 0 || destination.len() != 32 {
        return None;
    }
    let bits = u128::from_str_radix(destination, 16).ok()?;
    let prefix = u8::from_str_radix(prefix, 16).ok().filter(|prefix| *prefix <= 128)?;
    Some(Route {
        destination: IpAddr::V6(Ipv6Addr::from_bits(bits)),
        prefix,
        metric: u32::from_str_radix(metric, 16).ok()?,
        interface: interface.to_owned(),
    })
}
