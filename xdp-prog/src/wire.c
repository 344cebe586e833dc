/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The lab's network: what comes in by one of two interfaces leaves by the other, which has the same index but for the
 * lowest bit (scripts/lab --nic). Unlike a plain veth pair it gives the mixer's interface what a NIC's driver gives:
 * frames that no socket buffer was made for yet.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

SEC("xdp")
int wire(struct xdp_md *context)
{
	return bpf_redirect(context->ingress_ifindex ^ 1, 0);
}

char wire_license[] SEC("license") = "Dual MIT/GPL";
