//! Where webhooks may be sent to: public addresses, and those that the configuration names.
//!
//! A URL is read by the rules of browsers, so that `http://2130706433/` is 127.0.0.1 here too. A
//! name is resolved for each attempt, every address that it has is judged, and the connection goes
//! to exactly these: a name that answers differently the next time gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use url::{Host, Url};

/// Longest URL, in bytes.
pub(crate) const URL_MAX: usize = 2_048;

/// A block of addresses, such as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Network {
    first: IpAddr,
    prefix: u8,
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let parts = text.split_once('/');
        let read = parts.and_then(|(first, prefix)| {
            let (first, prefix) = (first.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
            let bits = if first.is_ipv4() { 32 } else { 128 };
            (prefix <= bits).then_some(Network { first, prefix })
        });
        match read {
            Some(network) if network.is_start() => Ok(network),
            Some(_) => Err(format!("`{text}` is not the first address of its block")),
            None => Err(format!(
                "`{text}` is not a block of addresses such as 10.1.0.0/16"
            )),
        }
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Network {
        Network {
            first: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)),
            prefix,
        }
    }

    const fn v6(a: u16, b: u16, prefix: u8) -> Network {
        Network {
            first: IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)),
            prefix,
        }
    }

    /// Whether nothing is set behind the prefix.
    fn is_start(self) -> bool {
        match self.first {
            IpAddr::V4(first) => masked4(first, self.prefix) == u32::from(first),
            IpAddr::V6(first) => masked6(first, self.prefix) == u128::from(first),
        }
    }

    /// Whether `address` lies in it. An IPv4 address in IPv6 clothes is not an IPv4 address.
    fn contains(self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(other)) => {
                masked4(other, self.prefix) == u32::from(first)
            }
            (IpAddr::V6(first), IpAddr::V6(other)) => {
                masked6(other, self.prefix) == u128::from(first)
            }
            _ => false,
        }
    }
}

fn masked4(address: Ipv4Addr, prefix: u8) -> u32 {
    let free = 32_u32.saturating_sub(prefix.into());
    u32::from(address) & u32::MAX.checked_shl(free).unwrap_or(0)
}

fn masked6(address: Ipv6Addr, prefix: u8) -> u128 {
    let free = 128_u32.saturating_sub(prefix.into());
    u128::from(address) & u128::MAX.checked_shl(free).unwrap_or(0)
}

/// What is not public of IPv4 (IANA's special-purpose registry), and of the one IPv6 block that
/// public addresses come from.
const NOT_PUBLIC: [Network; 20] = [
    Network::v4(0, 0, 0, 8),
    Network::v4(10, 0, 0, 8),
    Network::v4(100, 64, 0, 10),
    Network::v4(127, 0, 0, 8),
    // Link-local: where clouds serve their metadata.
    Network::v4(169, 254, 0, 16),
    Network::v4(172, 16, 0, 12),
    Network::v4(192, 0, 0, 24),
    Network::v4(192, 0, 2, 24),
    Network::v4(192, 88, 99, 24),
    Network::v4(192, 168, 0, 16),
    Network::v4(198, 18, 0, 15),
    Network::v4(198, 51, 100, 24),
    Network::v4(203, 0, 113, 24),
    // Multicast, and all above it.
    Network::v4(224, 0, 0, 3),
    // Protocol assignments, Teredo among them, which carries an IPv4 address.
    Network::v6(0x2001, 0, 23),
    Network::v6(0x2001, 0xdb8, 32),
    // 6to4, which carries an IPv4 address.
    Network::v6(0x2002, 0, 16),
    Network::v6(0x3ffe, 0, 16),
    Network::v6(0x3fff, 0, 20),
    Network::v6(0x5f00, 0, 16),
];

/// Loopback, mapped and translated IPv4, private, link-local and multicast lie outside of it.
const PUBLIC_V6: Network = Network::v6(0x2000, 0, 3);

fn is_public(address: IpAddr) -> bool {
    let possible = address.is_ipv4() || PUBLIC_V6.contains(address);
    possible && !NOT_PUBLIC.iter().any(|block| block.contains(address))
}

/// Whether anything may be sent to `address`.
pub(crate) fn may_reach(allow: &[Network], address: IpAddr) -> bool {
    is_public(address) || allow.iter().any(|block| block.contains(address))
}

/// The URL that `text` writes, in its one form, or what is wrong with it.
pub(crate) fn check_url(text: &str, allow: &[Network]) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    match url.scheme() {
        "http" => {}
        "https" => {
            return Err(
                "cannot be sent to: this server speaks no TLS; name a forwarding proxy \
                        of yours (http://...) that passes requests on over TLS"
                    .to_owned(),
            );
        }
        _ => return Err("must begin with http://".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not carry a user name or password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must not have a fragment".to_owned());
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) | None => None,
    };
    if let Some(address) = address.filter(|address| !may_reach(allow, *address)) {
        return Err(format!(
            "{address} is not a public address; the operator can allow others with \
             webhooks.allow_addresses"
        ));
    }
    // What sends must understand it as what has judged it.
    let sent = Uri::try_from(url.as_str()).ok();
    let same = sent.is_some_and(|uri| {
        uri.host() == url.host_str() && uri.port_u16() == url.port() && url.port() != Some(0)
    });
    if same && url.as_str().len() <= URL_MAX {
        Ok(url.into())
    } else {
        Err(format!(
            "must name a host, at most {URL_MAX} bytes, of plain characters"
        ))
    }
}

/// A name led to an address that nothing may be sent to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address")]
pub(super) struct NotPublic(IpAddr);

/// Looks a name up, and refuses it if any of its addresses must not be reached.
#[derive(Debug)]
pub(super) struct Guarded<R> {
    pub(super) lookup: R,
    pub(super) allow: Vec<Network>,
}

impl<R: Resolver> Resolver for Guarded<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.lookup.resolve(uri, config, timeout)?;
        let mut addresses = found.iter().map(std::net::SocketAddr::ip);
        match addresses.find(|address| !may_reach(&self.allow, *address)) {
            Some(address) => Err(ureq::Error::Other(Box::new(NotPublic(address)))),
            None => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "223.255.255.1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn allowed_blocks_end_where_they_say() {
        let allow = [network("10.1.0.0/16"), network("fd00:1::/32")];
        for (address, may) in [
            ("10.1.0.0", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("10.0.255.255", false),
            ("fd00:1::5", true),
            ("fd00:2::5", false),
            ("::ffff:10.1.0.1", false),
        ] {
            assert_eq!(
                may_reach(&allow, address.parse().unwrap()),
                may,
                "{address}"
            );
        }
        assert!(may_reach(
            &[network("0.0.0.0/0")],
            "127.0.0.1".parse().unwrap()
        ));
        assert!(may_reach(&[network("::1/128")], "::1".parse().unwrap()));
    }

    #[test]
    fn blocks_that_are_none_are_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "x/8",
            "::1/127",
            "10.0.0.0/-1",
        ] {
            assert!(Network::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    /// Every way to write an address that a resolver or a browser would understand.
    #[test]
    fn private_addresses_are_refused_however_they_are_written() {
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "0",
            "0x0",
            "127.0.0.1.",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::a9fe:a9fe]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "10.0.0.1",
            "192.168.0.1",
            "172.16.1",
            "100.64.0.1",
            "255.255.255.255",
            "%31%32%37.0.0.1",
            "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
            "127\u{3002}0\u{3002}0\u{3002}1",
        ] {
            let fault = check_url(&format!("http://{host}/hook"), &[]).unwrap_err();
            assert!(fault.contains("not a public address"), "{host}: {fault}");
        }
        let allow = [network("127.0.0.0/8")];
        assert_eq!(
            check_url("http://2130706433:81/a?b=c", &allow).unwrap(),
            "http://127.0.0.1:81/a?b=c"
        );
    }

    #[test]
    fn urls_that_cannot_be_sent_to_are_refused_with_the_reason() {
        for (url, reason) in [
            ("https://example.com/", "no TLS"),
            ("ftp://example.com/", "http://"),
            ("file:///etc/passwd", "http://"),
            ("example.com", "not a URL"),
            ("http://", "not a URL"),
            ("http://a:b@example.com/", "password"),
            ("http://a@example.com/", "user name"),
            ("http://example.com/#x", "fragment"),
            ("http://example.com:0/", "must name a host"),
            ("http://exa mple.com/", "not a URL"),
        ] {
            let fault = check_url(url, &[]).unwrap_err();
            assert!(fault.contains(reason), "{url}: {fault}");
        }
        let long = format!("http://example.com/{}", "x".repeat(URL_MAX));
        assert!(check_url(&long, &[]).is_err());
        assert!(check_url("http://example.com/hooks/1", &[]).is_ok());
    }
}
