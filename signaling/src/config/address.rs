//! Addresses as they are written in the configuration.

use std::net::{IpAddr, SocketAddr};

use signaling_core::input::Transport;

use super::Listener;

/// A network: address and prefix length in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Address.
    pub address: IpAddr,
    /// Prefix length, at most 32 or 128.
    pub prefix: u8,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// Whether an address lies in the network. An IPv4 address inside IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                shift == 32 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                shift == 128 || network.to_bits() >> shift == address.to_bits() >> shift
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Whether an address lies in one of the networks.
#[must_use]
pub fn in_any_network(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// `10.0.0.0/8`, `fd00::/8` or a single address.
pub(super) fn parse_network(text: &str) -> Result<Network, String> {
    let remedy = "write a network like \"10.0.0.0/8\" or \"fd00::/8\", or one address";
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("\"{text}\" is not a network; {remedy}"))?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(prefix) => prefix
            .parse()
            .ok()
            .filter(|prefix| *prefix <= bits)
            .ok_or_else(|| format!("\"{text}\": the prefix length must be 0 to {bits}; {remedy}"))?,
    };
    Ok(Network { address, prefix })
}

/// `udp:ADDRESS:PORT` or `tcp:ADDRESS:PORT`.
pub(super) fn parse_listener(text: &str) -> Result<Listener, String> {
    let remedy = "write \"udp:ADDRESS:PORT\" or \"tcp:ADDRESS:PORT\", for example \"udp:127.0.0.1:5060\" or \"tcp:[::1]:5060\"";
    let Some((transport, address)) = text.split_once(':') else {
        return Err(format!("\"{text}\" is not a SIP listener; {remedy}"));
    };
    let transport = match transport {
        "udp" => Transport::Udp,
        "tcp" => Transport::Tcp,
        _ => {
            return Err(format!(
                "\"{text}\": transport \"{transport}\" is not known; {remedy}"
            ));
        }
    };
    let address: SocketAddr = address
        .parse()
        .map_err(|_| format!("\"{text}\": \"{address}\" is not ADDRESS:PORT; {remedy}"))?;
    Ok(Listener { transport, address })
}

/// `http://HOST:PORT`, without path; the trailing slash is taken off.
pub(super) fn parse_mixer_url(text: &str) -> Result<String, String> {
    let remedy = "write the mixer's control address like \"http://127.0.0.1:8090\"";
    let Some(rest) = text.strip_prefix("http://") else {
        return Err(format!("\"{text}\" is not an http:// URL; {remedy}"));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let port = authority
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if port.is_none_or(|port| port == 0) || authority.starts_with(':') || !authority.chars().all(plain) {
        return Err(format!("\"{text}\" is not http://HOST:PORT; {remedy}"));
    }
    Ok(format!("http://{authority}"))
}
