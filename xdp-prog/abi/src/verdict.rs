//! What became of a packet.

/// Every packet is counted under exactly one of these; the discriminant is its index in the map
/// [`VERDICTS`](crate::VERDICTS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Verdict {
    /// A header or a length claims more than the frame holds, or less than itself.
    PassMalformed,
    /// Neither IPv4 nor IPv6 after at most two VLAN tags.
    PassNotIp,
    /// IPv4 options or an IPv6 extension header.
    PassOptions,
    /// Any fragment, also the first.
    PassFragment,
    /// Another protocol than UDP.
    PassNotUdp,
    /// UDP to an address that is not ours.
    PassForeignAddress,
    /// UDP to a port that carries no live leg.
    PassForeignPort,
    /// Ours, but the arriving queue has no socket.
    PassNoSocket,
    /// Ours, but its source has used up its budget.
    DropBudget,
    /// Redirected; RTP by its first bytes (RFC 7983 section 7, RFC 5761 section 4).
    RedirectRtp,
    /// Redirected; RTCP by its first bytes.
    RedirectRtcp,
    /// Redirected; neither RTP nor RTCP: STUN, DTLS, keep-alives, an empty payload.
    RedirectOther,
}

impl Verdict {
    /// All, in the order of their indexes.
    pub const ALL: [Self; 12] = [
        Self::PassMalformed,
        Self::PassNotIp,
        Self::PassOptions,
        Self::PassFragment,
        Self::PassNotUdp,
        Self::PassForeignAddress,
        Self::PassForeignPort,
        Self::PassNoSocket,
        Self::DropBudget,
        Self::RedirectRtp,
        Self::RedirectRtcp,
        Self::RedirectOther,
    ];

    /// Index in the map `verdicts`.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Name as in the C header, in lower case and without its prefix; fit for a metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassMalformed => "pass_malformed",
            Self::PassNotIp => "pass_not_ip",
            Self::PassOptions => "pass_options",
            Self::PassFragment => "pass_fragment",
            Self::PassNotUdp => "pass_not_udp",
            Self::PassForeignAddress => "pass_foreign_address",
            Self::PassForeignPort => "pass_foreign_port",
            Self::PassNoSocket => "pass_no_socket",
            Self::DropBudget => "drop_budget",
            Self::RedirectRtp => "redirect_rtp",
            Self::RedirectRtcp => "redirect_rtcp",
            Self::RedirectOther => "redirect_other",
        }
    }

    /// What the kernel is told to do with such a packet.
    pub const fn action(self) -> Action {
        match self {
            Self::PassMalformed
            | Self::PassNotIp
            | Self::PassOptions
            | Self::PassFragment
            | Self::PassNotUdp
            | Self::PassForeignAddress
            | Self::PassForeignPort
            | Self::PassNoSocket => Action::Pass,
            Self::DropBudget => Action::Drop,
            Self::RedirectRtp | Self::RedirectRtcp | Self::RedirectOther => Action::Redirect,
        }
    }
}

/// The XDP actions that the program returns; discriminants are the kernel's `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Action {
    /// `XDP_DROP`
    Drop = 1,
    /// `XDP_PASS`: on to the kernel's stack.
    Pass = 2,
    /// `XDP_REDIRECT`: to the AF_XDP socket of the arriving queue.
    Redirect = 4,
}
