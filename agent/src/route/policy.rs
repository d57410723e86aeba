//! Policy routing: rules that send packets to other tables than the main one, by marks (mwan3), by
//! source, or past the main table (WireGuard). Which rule takes a packet cannot be told from here: a
//! mark is set by the firewall. So with such rules every default route of every table counts.
//!
//! Source: `ip rule show` and `ip route show table all`, as iproute2 and busybox print them.

use crate::commands::{self, Call};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// For one call of `ip`.
const LIMIT: Duration = Duration::from_secs(10);
const OUTPUT: usize = 256 * 1024;

/// What decides about the routes of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// The main table alone.
    Main,
    /// Rules: the interfaces of the default routes of all tables.
    Rules(Vec<String>),
    Unknown(String),
}

/// Where the coordinator is, and what decides about the way there.
#[derive(Debug, Clone)]
pub struct Way {
    pub addresses: Vec<IpAddr>,
    pub v4: Policy,
    pub v6: Policy,
}

impl Way {
    /// The way to a URL's host; `ip` is the router's program of that name.
    pub async fn find(url: &reqwest::Url, ip: &Path) -> Self {
        let addresses = super::addresses(url).await;
        // A router without IPv6 cannot list its rules, and nobody asks for them.
        let any_v6 = addresses.iter().any(IpAddr::is_ipv6);
        let v6 = if any_v6 { policy(ip, "-6").await } else { Policy::Main };
        Self { addresses, v4: policy(ip, "-4").await, v6 }
    }

    pub(super) fn policy(&self, address: IpAddr) -> &Policy {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

async fn policy(ip: &Path, family: &str) -> Policy {
    let rules = match output(ip, &[family, "rule", "show"]).await {
        Ok(text) => text,
        Err(reason) => return Policy::Unknown(reason),
    };
    if main_decides(&rules) {
        return Policy::Main;
    }
    match output(ip, &[family, "route", "show", "table", "all"]).await {
        Ok(routes) => Policy::Rules(default_interfaces(&routes)),
        Err(reason) => Policy::Unknown(reason),
    }
}

async fn output(ip: &Path, arguments: &[&str]) -> Result<String, String> {
    let call = Call { keep: OUTPUT, ..Call::new(ip, arguments, LIMIT) };
    let shown = || format!("{} {}", ip.display(), arguments.join(" "));
    let done = commands::run(&call).await.map_err(|error| format!("{}: {error}", shown()))?;
    if !done.status.success() || done.output.len() >= OUTPUT {
        return Err(format!("{}: {}", shown(), done.status));
    }
    Ok(String::from_utf8_lossy(&done.output).into_owned())
}

/// Whether nothing but the table of the router's own addresses comes before the main table, for any
/// packet. What comes after it matters only where the main table has no route.
fn main_decides(rules: &str) -> bool {
    for line in rules.lines() {
        let Some((_, rule)) = line.split_once(':') else { continue };
        let words: Vec<&str> = rule.split_whitespace().collect();
        match words.as_slice() {
            ["from", "all", "lookup", "local"] => {}
            ["from", "all", "lookup", "main"] => return true,
            _ => return false,
        }
    }
    false
}

/// Interfaces of `default via 192.0.2.1 dev eth1 table 2 metric 10` and of `default dev wg0`, and of
/// halves of the world that stand for it (`0.0.0.0/1`, `::/1`).
fn default_interfaces(routes: &str) -> Vec<String> {
    let mut interfaces = Vec::new();
    for line in routes.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let wide = ["default", "0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1", "2000::/3"];
        if !words.first().is_some_and(|first| wide.contains(first)) {
            continue;
        }
        // A route over several ways has a `dev` for each.
        for pair in words.windows(2).filter(|pair| pair[0] == "dev") {
            if !interfaces.iter().any(|known| known == pair[1]) {
                interfaces.push(pair[1].to_owned());
            }
        }
    }
    interfaces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::script;

    const PLAIN: &str = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n";

    #[test]
    fn rules_behind_the_main_table_change_nothing() {
        assert!(main_decides(PLAIN));
        let openwrt = "0:\tfrom all lookup local \n32766:\tfrom all lookup main \n\
                       4200000001:\tfrom all iif lo failed_policy\n";
        assert!(main_decides(openwrt));
    }

    #[test]
    fn any_rule_before_it_does() {
        for rule in [
            "1001:\tfrom all iif wan lookup 1",
            "2001:\tfrom all fwmark 0x100/0x3f00 lookup 1",
            "32764:\tfrom all lookup main suppress_prefixlength 0",
            "32765:\tnot from all fwmark 0xca6c lookup 51820",
        ] {
            let rules = PLAIN.replacen("32766", &format!("{rule}\n32766"), 1);
            assert!(!main_decides(&rules), "{rule}");
        }
        assert!(!main_decides(""), "a list that says nothing is not the usual one");
    }

    #[test]
    fn defaults_of_all_tables_are_found() {
        let routes = "default via 192.0.2.1 dev eth1 table 1 metric 10\n\
            default dev wwan0 table 2 proto static scope link metric 20\n\
            default proto static metric 5 nexthop via 10.0.0.1 dev eth1 weight 1 nexthop via 10.1.0.1 dev eth2 weight 1\n\
            0.0.0.0/1 dev tun0\n192.168.1.0/24 dev br-lan scope link\nlocal 10.0.0.2 dev eth9 table local\n";
        assert_eq!(default_interfaces(routes), ["eth1", "wwan0", "eth2", "tun0"]);
    }

    #[tokio::test]
    async fn the_routers_own_word_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let ip = directory.path().join("ip");
        let mwan3 = r#"
case "$2" in
rule) printf '0:\tfrom all lookup local\n2001:\tfrom all fwmark 0x100/0x3f00 lookup 1\n32766:\tfrom all lookup main\n' ;;
route) echo 'default via 192.0.2.1 dev eth1 table 1' ;;
esac"#;
        script(&ip, mwan3);
        assert_eq!(policy(&ip, "-4").await, Policy::Rules(vec!["eth1".into()]));
        script(&ip, "exit 2");
        assert!(matches!(policy(&ip, "-4").await, Policy::Unknown(_)));
        let absent = directory.path().join("absent");
        assert!(matches!(policy(&absent, "-4").await, Policy::Unknown(_)));
    }
}
